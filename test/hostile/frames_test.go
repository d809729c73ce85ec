package hostile

import (
	"encoding/binary"
	"encoding/hex"
	"math/rand"
	"net"
	"time"
)

// Attacks by frames on the simulated networks, which live in the launcher.

// frame sends a frame.
func (m *monitor) frame(nic int, f []byte) {
	_, err := m.nic[nic].Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(f))), f...))
	check(err)
}

// tcp returns a SYN from a made-up address to the router, which forwards it, with
// a header length in words.
func syn(src uint32, port uint16, words byte) []byte {
	f, err := hex.DecodeString("0257cb007101525400746802" + "0800" + "4500002800000000" + "4006" + "0000" + "cb007109" + "c6336450" + "30390050" + "0000000100000000" + "5002ffff00000000")
	check(err)
	binary.BigEndian.PutUint32(f[26:], 0xcb007100|src&0x7f|0x80)
	binary.BigEndian.PutUint16(f[34:], port)
	f[46] = words << 4
	sum(f[14:34], 10)
	pseudo := append(append([]byte(nil), f[26:34]...), 0, 6, 0, 20)
	b := append(pseudo, f[34:54]...)
	sum(b, len(pseudo)+16)
	copy(f[50:52], b[len(pseudo)+16:])
	return f
}

// sum writes an Internet checksum over b at off (RFC 1071).
func sum(b []byte, off int) {
	b[off], b[off+1] = 0, 0
	var s uint32
	for i := 0; i+1 < len(b); i += 2 {
		s += uint32(b[i])<<8 | uint32(b[i+1])
	}
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	binary.BigEndian.PutUint16(b[off:], ^uint16(s))
}

// asked reports whether somebody on the network still does something: the answer
// to an ARP request comes.
func (m *monitor) asked(nic int, target string) error {
	c := m.nic[nic]
	drained := make(chan error, 1)
	go func() {
		b := make([]byte, 1<<16)
		for {
			n, err := c.Read(b)
			if err != nil {
				drained <- err
				return
			}
			for i := 0; i+42 <= n; i++ { // an ARP answer in what has come
				if b[i+12] == 8 && b[i+13] == 6 && b[i+21] == 2 && net.IP(b[i+28:i+32]).String() == target {
					drained <- nil
					return
				}
			}
		}
	}()
	f, err := hex.DecodeString("ffffffffffff525400746801" + "0806" + "0001080006040001" + "525400746801" + "0a000001" + "000000000000")
	check(err)
	if nic == 1 {
		copy(f[28:], net.ParseIP("203.0.113.10").To4())
	}
	f = append(f, net.ParseIP(target).To4()...)
	check(c.SetReadDeadline(time.Now().Add(5 * time.Second)))
	m.frame(nic, f)
	return <-drained
}

func init() {
	wan := []string{"--lan", "unix:wan", "--wan", "demo"}
	then := func(nic int, host string, f func(m *monitor)) func(m *monitor) error {
		return func(m *monitor) error {
			f(m)
			m.front.start()
			m.honest()
			return m.asked(nic, host)
		}
	}
	alice, router := "10.0.0.2", "203.0.113.1"
	honest := then(0, alice, func(m *monitor) {})
	machine("frames/of-54-bytes", then(1, router, func(m *monitor) {
		f, err := hex.DecodeString("0257cb007101525400746801080045910028cf8b00000106832dcb007102c633645003470016ca5f42ba621f190cf0d226d1462020a3")
		check(err)
		m.frame(1, f)
		m.frame(1, syn(1, 1000, 15))
		m.frame(1, syn(1, 1000, 0))
	}), then(1, router, func(m *monitor) { m.frame(1, syn(1, 1000, 5)) }), wan...)
	machine("frames/at-random", then(1, router, func(m *monitor) {
		r := rand.New(rand.NewSource(1))
		for range 100_000 {
			f := syn(r.Uint32(), uint16(r.Uint32()), byte(r.Intn(16)))
			f[14+r.Intn(40)] = byte(r.Uint32())
			f[23] = []byte{1, 6, 17, byte(r.Uint32())}[r.Intn(4)]
			sum(f[14:34], 10)
			m.frame(1, f)
		}
	}), then(1, router, func(m *monitor) {}), wan...)
	machine("frames/opens-many", then(1, router, func(m *monitor) {
		for i := range 200_000 {
			m.frame(1, syn(uint32(i), uint16(i/128), 5))
		}
	}), then(1, router, func(m *monitor) { m.frame(1, syn(1, 1000, 5)) }), wan...)
	machine("frames/made-up-addresses", then(0, alice, func(m *monitor) {
		for i := range 500_000 {
			f := make([]byte, 60)
			copy(f, "\xff\xff\xff\xff\xff\xff\x02\x00")
			binary.BigEndian.PutUint32(f[8:], uint32(i))
			m.frame(0, f)
		}
	}), honest)
	machine("frames/short", then(0, alice, func(m *monitor) {
		for n := range 60 {
			m.frame(0, make([]byte, n))
		}
	}), honest)
	machine("frames/length-of-4-gb", func(m *monitor) error {
		_, err := m.nic[0].Write([]byte{0xff, 0xff, 0xff, 0xff, 0})
		check(err)
		return honestStart(m)
	}, then(0, alice, func(m *monitor) { m.frame(0, make([]byte, 65_550)) })) // the largest
	machine("frames/half", func(m *monitor) error {
		_, err := m.nic[0].Write([]byte{0, 0, 5, 0, 1, 2, 3})
		check(err)
		return honestStart(m)
	}, honest)
}
