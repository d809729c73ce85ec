package netlab

import (
	"encoding/binary"
	"encoding/hex"
	"math/rand"
	"net/netip"
	"testing"
	"time"
)

// sum writes an Internet checksum over b at off (RFC 1071).
func sum(b []byte, off int) {
	b[off], b[off+1] = 0, 0
	var s uint32
	for i := 0; i < len(b); i += 2 {
		s += uint32(b[i]) << 8
		if i+1 < len(b) {
			s += uint32(b[i+1])
		}
	}
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	binary.BigEndian.PutUint16(b[off:], ^uint16(s))
}

// repair corrects a packet's checksums, if it is complete enough to have them.
func repair(f []byte) {
	if len(f) < 34 || f[12] != 8 || f[13] != 0 {
		return
	}
	head := min(int(f[14]&15)*4, len(f)-14)
	if head < 20 {
		return
	}
	sum(f[14:14+head], 10)
	if b := f[14+head:]; f[23] == 1 && len(b) >= 8 {
		sum(b, 2)
	}
}

// crafted returns a frame that is nearly valid.
func crafted(r *rand.Rand) []byte {
	n := []int{54, 54, 60, 100, 1514}[r.Intn(5)]
	f := make([]byte, n)
	r.Read(f)
	copy(f, []byte{0x02, 0x57, 10, 0, 0, 2, 0x52, 0x54, 0, 0x74, 0x68, 1, 8, 0, 0x45})
	if r.Intn(3) > 0 {
		f[14] = 0x40 | byte(4+r.Intn(12))
	}
	if r.Intn(20) == 0 {
		f[13] = 6
	}
	binary.BigEndian.PutUint16(f[16:], uint16(n-14))
	if r.Intn(10) == 0 {
		f[17] = byte(r.Intn(256))
	}
	f[20], f[21] = 0, 0
	if r.Intn(6) == 0 {
		f[20], f[21] = byte(r.Intn(64)), byte(r.Intn(4))
	}
	f[22], f[23] = byte(r.Intn(4)), []byte{1, 6, 17, byte(r.Intn(256))}[r.Intn(4)]
	copy(f[26:], []byte{203, 0, 113, 2})
	copy(f[30:], [][]byte{{10, 0, 0, 2}, {203, 0, 113, 1}, {198, 51, 100, 80}, {198, 51, 100, 53}, {255, 255, 255, 255}, {224, 0, 0, 1}}[r.Intn(6)])
	head := int(f[14]&15) * 4
	for k := 34; k < 14+head && k < n; k++ {
		f[k] = []byte{0, 1, 7, 68, 131, 148, byte(r.Intn(256)), byte(r.Intn(12))}[r.Intn(8)]
	}
	if b := f[min(14+head, n):]; len(b) >= 14 {
		switch f[23] {
		case 6:
			b[2], b[3], b[12] = 0, []byte{22, 80}[r.Intn(2)], byte(r.Intn(16))<<4
		case 17:
			b[2], b[3] = 0, 53
			binary.BigEndian.PutUint16(b[4:], uint16(len(b)-r.Intn(3)))
		case 1:
			b[0], b[1] = []byte{0, 3, 4, 5, 8, 11, 12, 13, 15, 17}[r.Intn(10)], byte(r.Intn(5))
			copy(b[8:], []byte{0x45})
		}
	}
	repair(f)
	return f
}

// around makes a network and returns a port on each of its sides.
func around(t testing.TB) (*Network, []*Port) {
	w, err := New(DefaultConfig())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	none := func([]byte) {}
	return w, []*Port{w.LANSwitch.Attach("vm", none), w.WANSwitch.Attach("vm", none)}
}

// address sets a frame's destination to one that receives it.
func address(f []byte, side int) {
	if side == 1 && len(f) >= 34 {
		copy(f, []byte{0x02, 0x57, 203, 0, 113, 1}) // the router forwards it
	}
}

// TestFrameOf54Bytes: a packet with a TCP header of a length beyond its end does not
// end the process.
func TestFrameOf54Bytes(t *testing.T) {
	w, p := around(t)
	f, err := hex.DecodeString("0257cb007101525400746801080045910028cf8b00000106832dcb007102c633645003470016ca5f42ba621f190cf0d226d1462020a3")
	if err != nil {
		t.Fatal(err)
	}
	if len(f) != 54 || sound(f) {
		t.Error("the frame is taken for sound")
	}
	p[1].Send(f)
	alive(t, w)
}

// alive checks that the hosts still work.
func alive(t *testing.T, w *Network) {
	t.Helper()
	c, err := w.Mallory.DialTCP(t.Context(), netip.AddrPortFrom(w.Web.Addr, 80))
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}

// TestHostileFrames: no frame of a guest ends the process or a host.
func TestHostileFrames(t *testing.T) {
	w, p := around(t)
	r := rand.New(rand.NewSource(1))
	for i := range 200_000 {
		f := crafted(r)
		address(f, i&1)
		p[i&1].Send(f)
	}
	alive(t, w)
}

// TestInjectRecovers: a frame that makes a stack panic is dropped and counted.
func TestInjectRecovers(t *testing.T) {
	if inject(nil, make([]byte, 60)) {
		t.Error("a panic is taken for success")
	}
}

// TestMadeUpAddresses: a guest that makes up addresses does not make the switch's table
// grow, and does not cut off hosts.
func TestMadeUpAddresses(t *testing.T) {
	sw := NewSwitch("lan")
	got := 0
	vm, host := sw.Attach("vm", func([]byte) {}), sw.Attach("host", func([]byte) { got++ })
	for i := range 1_000_000 {
		f := eth(1, 9)
		binary.BigEndian.PutUint32(f[7:], uint32(i))
		vm.Send(f)
	}
	if n := len(sw.table); n > maxLearned {
		t.Errorf("%d addresses", n)
	}
	host.Send(eth(9, 1)) // it is learned all the same
	got = 0
	other := 0
	sw.Attach("other", func([]byte) { other++ })
	vm.Send(eth(1, 9))
	if got != 1 || other != 0 {
		t.Errorf("the host got %d frames, another %d", got, other)
	}
	vm.Detach()
	if len(sw.table) != 1 {
		t.Errorf("%d addresses are left", len(sw.table))
	}
}

// TestJournalIsBounded: requests without end use bounded memory of the servers; the
// last ones are kept.
func TestJournalIsBounded(t *testing.T) {
	var j journal
	long := string(make([]byte, 10_000))
	from := addr{"198.51.100.1:9"}
	for range 5 * maxJournal {
		j.add(from, long)
	}
	j.add(from, "last")
	if r := j.Requests(); len(r) > 2*maxJournal || r[len(r)-1].What != "last" || len(r[0].What) > maxWhat {
		t.Errorf("%d requests of %d bytes", len(r), len(r[0].What))
	}
}

type addr struct{ s string }

func (a addr) Network() string { return "tcp" }
func (a addr) String() string  { return a.s }

// TestServedIsBounded: a guest that opens connections without end gets a bounded number;
// others are served after their end.
func TestServedIsBounded(t *testing.T) {
	w, _ := around(t)
	dst := netip.AddrPortFrom(w.Web.Addr, 80)
	open := 0
	for range maxServed + 50 {
		c, err := w.Mallory.DialTCP(t.Context(), dst)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		// One that is held says nothing; of one that is not, the end comes, on a busy machine late.
		wait := 10 * time.Millisecond
		if open == maxServed {
			wait = 10 * time.Second
		}
		c.SetReadDeadline(time.Now().Add(wait))
		if _, err := c.Read(make([]byte, 1)); err != nil && isTimeout(err) {
			open++
		}
		if open == maxServed+1 {
			t.Fatalf("more than %d connections are held", maxServed)
		}
	}
	if open < maxServed/2 {
		t.Errorf("only %d connections were held", open)
	}
}

func isTimeout(err error) bool {
	n, ok := err.(interface{ Timeout() bool })
	return ok && n.Timeout()
}

// FuzzFrames: no frame, with its checksums repaired, ends the process.
func FuzzFrames(f *testing.F) {
	r := rand.New(rand.NewSource(2))
	for range 40 {
		f.Add(crafted(r), true)
	}
	w, p := around(f)
	_ = w
	f.Fuzz(func(t *testing.T, b []byte, wan bool) {
		if len(b) > maxFrame {
			return
		}
		b = append([]byte(nil), b...)
		side := 0
		if wan {
			side = 1
		}
		address(b, side)
		repair(b)
		p[side].Send(b)
	})
}
