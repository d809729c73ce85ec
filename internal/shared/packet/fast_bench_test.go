package packet

import "testing"

func fastFrame() []byte {
	f := make([]byte, 60)
	for i := range f {
		f[i] = byte(i * 7)
	}
	PutEth(f, &[6]byte{2, 1}, &[6]byte{2, 2}, TypeIPv4)
	PutIPv4(f[EthLen:], 0x0a000001, 0xc0000201, UDP, 64, 26)
	l4 := f[34:]
	l4[4], l4[5], l4[6], l4[7] = 0, 26, 0, 0
	p := Packet{Src: 0x0a000001, Dst: 0xc0000201, Proto: UDP}
	s := ^Sum(l4, pseudo(&p, 26))
	l4[6], l4[7] = byte(s>>8), byte(s)
	return f
}

func BenchmarkFastKey(b *testing.B) {
	f := fastFrame()
	self := MAC([6]byte{2, 1})
	var t Tuple
	for range b.N {
		if FastKey(f, self, &t) == 0 {
			b.Fatal("not a frame of the fast path")
		}
	}
}

// translateFast does what the data plane does with a packet of the fast path in f.
func translateFast(f []byte, proto uint32, r *Rewrite) {
	var h [Head]byte
	n := copy(h[:], f)
	d := PutAddrs(&h, r)
	PassTTL(&h, d)
	d += PutPorts(&h, r)
	if proto == TCP {
		UpdateTCP(&h, d)
	} else {
		UpdateUDP(&h, d)
	}
	copy(f[:n], h[:])
}

func BenchmarkTranslateFast(b *testing.B) {
	f := fastFrame()
	self := MAC([6]byte{2, 1})
	var t Tuple
	FastKey(f, self, &t)
	r := Rewrite{Src: t.Dst, Dst: t.Src, SrcPort: t.DstPort, DstPort: t.SrcPort}
	for range b.N {
		translateFast(f, t.Proto, &r)
	}
}

func BenchmarkSum(b *testing.B) {
	f := make([]byte, 1480)
	for range b.N {
		Sum(f, 0)
	}
}
