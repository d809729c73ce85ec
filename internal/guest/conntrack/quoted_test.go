package conntrack

import (
	"testing"

	"github.com/thurward/thurward/internal/shared/packet"
)

// TestUnderWayBounds: the first and the last number that an error may quote, as far
// as it is known what the other end has, and of SYNs that are not the connection's.
func TestUnderWayBounds(t *testing.T) {
	begin := []said{}
	for name, c := range map[string]struct {
		said        []said
		r           Ref
		first, last uint32
		also        []uint32 // beside these
	}{
		"a SYN":                     {begin, 0, 1<<32 + 1001 - 1<<16, 1001, nil},
		"a SYN again, of another":   {[]said{{0, fSYN, 900_000, 0, 0, 0, Pass, SynSent}}, 0, 900_001 - 1<<16, 900_001, []uint32{1000}},
		"nothing of the server":     {begin, 1, 1, 0, nil},
		"both begin":                {[]said{{1, fSYN, 500_000, 0, 0, 0, Pass, SynRecv}}, 0, 1<<32 + 1001 - 1<<16, 1001, nil},
		"the server begins as well": {[]said{{1, fSYN, 500_000, 0, 0, 0, Pass, SynRecv}}, 1, 500_001 - 1<<16, 500_001, nil},
		"a SYN-ACK":                 {upTo(SynRecv), 1, 1<<32 + 5001 - 1<<16, 5001, nil},
		"an answered SYN":           {upTo(SynRecv), 0, 1<<32 + 1001 - 8192 - 1, 1001, nil},
		"data":                      {upTo(Established, said{0, fACK, 1001, 5001, 700, 0, Pass, Established}), 0, 1<<32 + 1001 - 8192 - 1, 1701, nil},
		"data of a larger window": {upTo(Established, said{1, fACK, 5001, 1001, 0, 20_000, Pass, Established}, said{0, fACK, 1001, 5001, 700, 0, Pass, Established}),
			0, 1<<32 + 1001 - 20_000 - 1, 1701, nil},
		"a SYN noted":               {upTo(Established, said{0, fSYN, 77_000, 0, 0, 0, Quiet, Established}), 0, 1<<32 + 1001 - 8192 - 1, 1001, []uint32{77_000}},
		"a SYN of the server noted": {upTo(Established, said{1, fSYN, 77_000, 0, 0, 0, Quiet, Established}), 1, 1<<32 + 5001 - 8192 - 1, 5001, []uint32{77_000}},
	} {
		tab := talk(t, name, [2][]byte{}, c.said)
		in := func(seq uint32, want bool) {
			t.Helper()
			if tab.UnderWay(c.r, seq) != want {
				t.Errorf("%s: %d may be quoted: %v", name, seq, !want)
			}
		}
		some := c.first != 1 || c.last != 0
		in(c.first, some)
		in(c.last, some)
		in(c.first-1, false)
		in(c.last+1, false)
		in(c.last+1<<31, false)
		for _, s := range c.also {
			in(s, true)
			in(s-1, false)
			in(s+1, false)
		}
	}
	// The number of the SYN that began it is like all others: when the window has advanced
	// it may not be quoted any more.
	tab := talk(t, "", [2][]byte{}, upTo(Established))
	for seq := uint32(1001); seq < 300_000; seq += 8000 {
		for _, s := range []struct {
			r        Ref
			seq, ack uint32
			n        uint16
		}{{0, seq, 5001, 8000}, {1, 5001, seq + 8000, 0}} {
			p := packet.Packet{Class: packet.ClassTCP, Proto: packet.TCP, Flags: fACK, Seq: s.seq, Ack: s.ack, Payload: s.n, Window: 8192}
			if tab.TCP(s.r, &p, nil) != Pass {
				t.Fatal("not passed")
			}
		}
	}
	if tab.UnderWay(0, 1000) || tab.UnderWay(0, 1001) {
		t.Error("the beginning of a connection that is far beyond it")
	}
}

// TestMarksStay: a segment that changes no state leaves both directions' marks, and
// one that does takes them.
func TestMarksStay(t *testing.T) {
	for _, r := range []Ref{0, 1} {
		for flags, stays := range map[uint8]bool{fACK: true, fACK | packet.PSH: true, fACK | fFIN: false, fRST: false, fSYN: true} {
			tab := talk(t, "", [2][]byte{}, upTo(Established))
			for d := range Ref(2) {
				tab.Dir(d).Verdict = Accepted
				tab.MarkFast(d)
			}
			p := packet.Packet{Class: packet.ClassTCP, Proto: packet.TCP, Flags: flags, Seq: 1001, Ack: 5001, Window: 8192}
			if r == 1 {
				p.Seq, p.Ack = 5001, 1001
			}
			if flags == fSYN {
				p.Seq += 70_000
			}
			if v := tab.TCP(r, &p, nil); v != Pass && v != Quiet {
				t.Fatalf("flags %x: %v", flags, v)
			}
			for d := range Ref(2) {
				if (tab.Dir(d).fast != 0) != stays {
					t.Errorf("flags %x of direction %d: direction %d is marked %d", flags, r, d, tab.Dir(d).fast)
				}
			}
		}
	}
}
