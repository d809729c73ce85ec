package conntrack

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/thurward/thurward/internal/shared/packet"
)

const (
	fFIN = packet.FIN
	fSYN = packet.SYN
	fRST = packet.RST
	fACK = packet.ACK
)

// TestWindowScaleOptions: each way in which TCP options can end, be truncated or have a
// wrong length. None is read beyond its end, and parsing terminates.
func TestWindowScaleOptions(t *testing.T) {
	for _, c := range []struct {
		o  []byte
		n  uint8
		ok bool
	}{
		{nil, 0, false},
		{[]byte{3}, 0, false},
		{[]byte{3, 3}, 0, false},
		{[]byte{3, 3, 7}, 7, true},
		{[]byte{3, 3, 0}, 0, true},
		{[]byte{3, 3, 14}, 14, true},
		{[]byte{3, 3, 15}, 14, true},
		{[]byte{3, 3, 255}, 14, true},
		{[]byte{3, 2, 7}, 0, false},
		{[]byte{3, 4, 7, 7}, 0, false},
		{[]byte{3, 0, 7}, 0, false}, // would be the same option for ever
		{[]byte{3, 1, 7}, 0, false},
		{[]byte{8, 0, 3, 3, 7}, 0, false},
		{[]byte{8, 1, 3, 3, 7}, 0, false},
		{[]byte{8, 2, 3, 3, 7}, 7, true},
		{[]byte{8, 3, 3, 3, 7}, 0, false}, // its end is taken as the next option's kind
		{[]byte{8, 255, 3, 3, 7}, 0, false},
		{[]byte{8, 5, 3, 3, 7}, 0, false},
		{[]byte{1, 3, 3, 7}, 7, true},
		{[]byte{1, 1, 1, 1}, 0, false},
		{[]byte{0, 3, 3, 7}, 0, false},
		{[]byte{3, 3, 7, 0, 3, 3, 9}, 7, true},
		{[]byte{3, 3, 7, 3, 3, 9}, 9, true},
		{[]byte{3, 3, 7, 3}, 7, true},
		{[]byte{3, 3, 7, 3, 3}, 7, true},
		{[]byte{3, 3, 7, 8, 0}, 7, true},
		{[]byte{2, 4, 5, 180, 3, 3, 2}, 2, true},
		{[]byte{2, 4, 3, 3, 3, 3, 2}, 2, true}, // an MSS that looks like one
	} {
		done := make(chan bool)
		go func() {
			defer close(done)
			// Exactly the memory that it may read.
			if n, ok := windowScale(append(make([]byte, 0, len(c.o)), c.o...)[:len(c.o):len(c.o)]); n != c.n || ok != c.ok {
				t.Errorf("%v: %d, %v; want %d, %v", c.o, n, ok, c.n, c.ok)
			}
		}()
		select {
		case <-done:
		case <-time.After(10 * time.Second):
			t.Fatalf("%v: does not end", c.o)
		}
	}
}

// A said is a segment and its expected verdict.
type said struct {
	from     Ref // 0: the client, 1: the server
	flags    uint8
	seq, ack uint32
	n        uint16
	win      uint16 // 0: 8192
	want     Verdict
	state    State
}

// talk begins a connection with a SYN of the client, 1000, and passes further segments.
func talk(t *testing.T, name string, opts [2][]byte, said []said) *Table {
	t.Helper()
	tab := New(1, [2]uint64{1, 2}, Timeouts{}, dirty)
	k := Key{Src: 1, Dst: 2, SrcPort: 3, DstPort: 4, Proto: packet.TCP}
	r := tab.Insert(&k, &packet.Rewrite{Src: 1, Dst: 2, SrcPort: 3, DstPort: 4}, Close, outward, 1)
	tab.StartTCP(r, &packet.Packet{Class: packet.ClassTCP, Proto: packet.TCP, Flags: fSYN, Seq: 1000, Window: 8192}, opts[0])
	for i, s := range said {
		if s.win == 0 {
			s.win = 8192
		}
		p := packet.Packet{Class: packet.ClassTCP, Proto: packet.TCP, Flags: s.flags, Seq: s.seq, Ack: s.ack, Payload: s.n, Window: s.win}
		var o []byte
		if s.flags&fSYN != 0 {
			o = opts[s.from]
		}
		before := *tab.Shared(r)
		v := tab.TCP(r|s.from, &p, o)
		if v != s.want || tab.Dir(r).State != s.state || tab.Dir(r^1).State != s.state {
			t.Fatalf("%s, segment %d %+v: %d in %v", name, i, s, v, tab.Dir(r).State)
		}
		if v == Invalid && s.state != Close && *tab.Shared(r) != before {
			t.Fatalf("%s, segment %d: invalid, but noted", name, i)
		}
	}
	return tab
}

// upTo returns what brings a connection into a state, and more.
func upTo(st State, more ...said) []said {
	all := []said{
		{1, fSYN | fACK, 5000, 1001, 0, 0, Pass, SynRecv},
		{0, fACK, 1001, 5001, 0, 0, Pass, Established},
		{0, fFIN | fACK, 1001, 5001, 0, 0, Pass, FinWait},
		{1, fACK, 5001, 1002, 0, 0, Pass, CloseWait},
		{1, fFIN | fACK, 5001, 1002, 0, 0, Pass, LastAck},
		{0, fACK, 1002, 5002, 0, 0, Pass, TimeWait},
		{1, fRST, 5002, 0, 0, 0, Pass, Close},
	}
	n := map[State]int{SynSent: 0, SynRecv: 1, Established: 2, FinWait: 3, CloseWait: 4, LastAck: 5, TimeWait: 6, Close: 7}[st]
	return append(all[:n:n], more...)
}

// A conversation is the segments of both ends of a connection, and the options of their
// SYNs.
type conversation struct {
	opts [2][]byte
	said []said
}

var scaled = [2][]byte{{3, 3, 7}, {3, 3, 2}}

// guards are conversations about each guard of the state machine, with its last good
// and its first bad number.
var guards = func() map[string]conversation {
	const far = 1 << 31
	return map[string]conversation{
		"two of SYN, FIN, RST": {said: upTo(Established,
			said{0, fSYN | fFIN | fACK, 1001, 5001, 0, 0, Invalid, Established},
			said{0, fSYN | fRST, 1001, 0, 0, 0, Invalid, Established},
			said{1, fRST | fFIN | fACK, 5001, 1001, 0, 0, Invalid, Established},
			said{0, 0, 1001, 5001, 0, 0, Invalid, Established},
			said{0, fFIN, 1001, 5001, 0, 0, Invalid, Established},
			said{0, fACK | packet.PSH | 0x20, 1001, 5001, 0, 0, Pass, Established})},
		"the window's upper end": {said: upTo(Established,
			said{1, fACK, 5001, 1001, 8192, 0, Pass, Established},
			said{1, fACK, 5001, 1001, 8193, 0, Invalid, Established},
			said{1, fACK, 13193, 1001, 0, 0, Pass, Established},
			said{1, fACK, 13194, 1001, 0, 0, Invalid, Established},
			said{1, fFIN | fACK, 13193, 1001, 0, 0, Invalid, Established},
			said{0, fACK, 1001, 5002, 0, 0, Pass, Established}, // slides by one
			said{1, fFIN | fACK, 13193, 1001, 0, 0, Pass, FinWait})},
		"the window's lower end": {said: upTo(Established,
			said{1, fACK, 1<<32 + 5001 - slack, 1001, 0, 0, Pass, Established},
			said{1, fACK, 1<<32 + 5001 - slack - 1, 1001, 0, 0, Invalid, Established},
			said{1, fACK, 1<<32 + 5001 - slack - 1, 1001, 1, 0, Pass, Established},
			said{1, fACK, 1<<32 + 5001 - slack - 100, 1001, 99, 0, Invalid, Established},
			said{1, fACK, 1<<32 + 5001 - slack - 100, 1001, 100, 0, Pass, Established},
			said{1, fACK, 5001 + far, 1001, 0, 0, Invalid, Established})},
		"acknowledgements": {said: upTo(Established,
			said{0, fACK, 1001, 5001, 1000, 0, Pass, Established},
			said{1, fACK, 5001, 2001, 0, 0, Pass, Established},
			said{1, fACK, 5001, 2002, 0, 0, Invalid, Established},
			said{1, fACK, 5001, 1<<32 + 2001 - slack - 1, 0, 0, Pass, Established},
			said{1, fACK, 5001, 1<<32 + 2001 - slack - 2, 0, 0, Invalid, Established},
			said{1, fACK, 5001, 2001 + far, 0, 0, Invalid, Established})},
		"closed windows": {said: upTo(Established,
			said{1, fACK, 5001, 1001, 0, 1, Pass, Established},
			said{0, fACK, 1001, 5001, 8192, 0, Pass, Established}, // what was offered stays
			said{0, fACK, 9193, 5001, 1, 0, Invalid, Established})},
		"scaled windows": {scaled, upTo(Established,
			said{1, fACK, 5001 + 8192<<7 - 1000, 1001, 1000, 0, Pass, Established},
			said{1, fACK, 5001 + 8192<<7 - 1000, 1001, 1001, 0, Invalid, Established},
			said{1, fACK, 5001 + 8192<<7, 1001, 0, 10_000, Pass, Established}, // 40,000
			said{0, fACK, 1001 + 39_000, 5001, 1000, 0, Pass, Established},
			said{0, fACK, 1001 + 39_000, 5001, 1001, 0, Invalid, Established})},
		"no scale of a SYN-ACK": {[2][]byte{{3, 3, 7}, nil}, upTo(Established,
			said{0, fACK, 1001, 5001, 0, 1000, Pass, Established},
			said{1, fACK, 5001 + 8192, 1001, 1, 0, Invalid, Established})},
		"answers": {said: upTo(SynSent,
			said{1, fSYN | fACK, 5000, 1000, 0, 0, Invalid, SynSent},
			said{1, fSYN | fACK, 5000, 1002, 0, 0, Invalid, SynSent},
			said{1, fACK, 5000, 77, 1, 0, Invalid, SynSent},
			said{1, fFIN | fACK, 5000, 77, 0, 0, Invalid, SynSent},
			said{0, fSYN | fACK, 1000, 77, 0, 0, Invalid, SynSent},
			said{0, fACK, 1001, 77, 0, 0, Invalid, SynSent},
			said{1, fACK, 5000, 77, 0, 0, Quiet, SynSent}, // a challenge
			said{0, fRST, 78, 0, 0, 0, Invalid, SynSent},
			said{0, fRST, 77, 0, 0, 0, Quiet, SynSent},
			said{1, fSYN | fACK, 5000, 1001, 0, 0, Pass, SynRecv})},
		"refusals": {said: upTo(SynSent,
			said{1, fRST, 0, 1001, 0, 0, Invalid, SynSent},
			said{1, fRST | fACK, 0, 1000, 0, 0, Invalid, SynSent},
			said{1, fRST | fACK, 0, 1002, 0, 0, Invalid, SynSent},
			said{1, fRST | fACK, 0, 1001, 0, 0, Pass, Close},
			said{0, fSYN, 1000, 0, 0, 0, Restart, Close})},
		"a client gives up": {said: upTo(SynSent,
			said{0, fRST, 1002, 0, 0, 0, Invalid, SynSent},
			said{0, fRST, 1001, 0, 0, 0, Pass, Close})},
		"handshake": {said: upTo(SynRecv,
			said{0, fACK, 1001, 5000, 0, 0, Invalid, SynRecv},
			said{0, fACK, 1001, 5002, 0, 0, Invalid, SynRecv},
			said{1, fSYN | fACK, 5000, 1001, 0, 0, Pass, SynRecv},
			said{1, fSYN | fACK, 5000, 1002, 0, 0, Invalid, SynRecv},
			said{1, fSYN | fACK, 5000, 1000, 0, 0, Invalid, SynRecv},
			said{0, fSYN, 1000, 0, 0, 0, Pass, SynRecv},
			said{0, fSYN, 999, 0, 0, 0, Quiet, SynRecv},
			said{0, fSYN, 1001, 0, 0, 0, Quiet, SynRecv},
			said{1, fRST | fACK, 0, 1002, 0, 0, Pass, Close})}, // the refusal of the last one
		"three answers": {said: upTo(SynRecv,
			said{1, fSYN | fACK, 60_000, 1001, 0, 0, Pass, SynRecv},
			said{1, fSYN | fACK, 70_000, 1001, 0, 0, Pass, SynRecv},
			said{1, fSYN | fACK, 70_000, 1001, 0, 0, Pass, SynRecv},
			said{0, fACK, 1001, 60_002, 0, 0, Invalid, SynRecv},
			said{1, fACK, 60_001, 1001, 0, 0, Pass, SynRecv}, // not known yet which; in the last one's reach
			said{0, fACK, 1001 + 8193, 60_001, 0, 0, Invalid, SynRecv},
			said{0, fACK, 1001, 60_001, 0, 0, Pass, Established},
			said{0, fACK, 1001, 70_001, 0, 0, Invalid, Established})},
		"a blind SYN between answers": {said: upTo(SynRecv,
			said{1, fSYN | fACK, 60_000, 1001, 0, 0, Pass, SynRecv},
			said{1, fSYN, 33, 0, 0, 0, Quiet, SynRecv},
			said{0, fACK, 1001, 34, 0, 0, Invalid, SynRecv},
			said{0, fACK, 1001, 5001, 0, 0, Pass, Established},
			said{1, fSYN, 33, 0, 0, 0, Quiet, Established},
			said{0, fRST | fACK, 0, 34, 0, 0, Pass, Close})},
		"a client's SYN between answers": {said: upTo(SynRecv,
			said{1, fSYN | fACK, 60_000, 1001, 0, 0, Pass, SynRecv},
			said{1, fSYN | fACK, 90_000, 1001, 0, 0, Pass, SynRecv},
			said{0, fSYN, 33, 0, 0, 0, Quiet, SynRecv},
			said{1, fRST | fACK, 0, 34, 0, 0, Pass, Close})},
		"the one that is chosen is its own": {said: upTo(SynRecv,
			said{1, fSYN | fACK, 60_000, 1001, 0, 0, Pass, SynRecv},
			said{0, fACK, 1001, 5001, 0, 0, Pass, Established},
			said{1, fACK, 5001, 1001, 1000, 0, Pass, Established},
			said{1, fRST, 6001, 0, 0, 0, Pass, Close},
			said{1, fSYN, 5000, 0, 0, 0, Quiet, Close},
			said{1, fSYN, 60_000, 0, 0, 0, Restart, Close})},
		"the last one is its own": {said: upTo(SynRecv,
			said{1, fSYN | fACK, 60_000, 1001, 0, 0, Pass, SynRecv},
			said{0, fACK, 1001, 60_001, 0, 0, Pass, Established},
			said{1, fRST, 60_001, 0, 0, 0, Pass, Close},
			said{1, fSYN, 60_000, 0, 0, 0, Quiet, Close},
			said{1, fSYN, 5000, 0, 0, 0, Restart, Close})},
		"who does not answer": {said: upTo(SynRecv,
			said{0, fSYN | fACK, 77_000, 5001, 0, 0, Invalid, SynRecv},
			said{1, fSYN, 77_000, 0, 0, 0, Quiet, SynRecv},
			said{0, fACK, 1001, 77_001, 0, 0, Invalid, SynRecv},
			said{0, fACK, 1001, 5001, 0, 0, Pass, Established})},
		"its own number again, and forgotten": {said: upTo(Close,
			said{0, fSYN, 1000, 0, 0, 0, Quiet, Close},
			said{1, fSYN | fACK, 99_000, 1001, 0, 0, Invalid, Close},
			said{0, fSYN, 1000, 0, 0, 0, Restart, Close})},
		"its own number again, and refused": {said: upTo(Close,
			said{0, fSYN, 1000, 0, 0, 0, Quiet, Close},
			said{1, fRST | fACK, 0, 1001, 0, 0, Quiet, Close},
			said{0, fSYN, 1000, 0, 0, 0, Restart, Close})},
		"its own number again, forgotten, and going on": {said: upTo(Established,
			said{0, fSYN, 1000, 0, 0, 0, Quiet, Established},
			said{1, fSYN | fACK, 99_000, 1001, 0, 0, Invalid, Close},
			said{0, fACK, 1001, 5001, 0, 0, Pass, Established},
			said{1, fRST, 5001, 0, 0, 0, Pass, Close},
			said{0, fSYN, 1000, 0, 0, 0, Quiet, Close})},
		"two SYNs": {said: upTo(SynSent,
			said{0, fSYN, 400, 0, 0, 0, Pass, SynSent},
			said{1, fSYN | fACK, 5000, 402, 0, 0, Invalid, SynSent},
			said{1, fSYN | fACK, 5000, 1002, 0, 0, Invalid, SynSent},
			said{1, fRST | fACK, 0, 1001, 0, 0, Quiet, SynSent},
			said{1, fSYN | fACK, 5000, 1001, 0, 0, Pass, SynRecv},
			said{0, fACK, 401, 5001, 0, 0, Pass, Established}, // near enough
			said{0, fRST, 1001, 0, 0, 0, Pass, Close},
			said{0, fSYN, 400, 0, 0, 0, Restart, Close})},
		"two SYNs, the second one answered": {said: upTo(SynSent,
			said{0, fSYN, 400, 0, 0, 0, Pass, SynSent},
			said{1, fSYN | fACK, 5000, 401, 0, 0, Pass, SynRecv},
			said{1, fRST | fACK, 0, 1001, 0, 0, Invalid, SynRecv},
			said{0, fACK, 401, 5001, 0, 0, Pass, Established})},
		"reset": {said: upTo(Established,
			said{1, fRST, 5000, 0, 0, 0, Invalid, Established},
			said{1, fRST, 5002, 0, 0, 0, Quiet, Established},
			said{1, fRST, 5001 + 8192, 0, 0, 0, Quiet, Established},
			said{1, fRST, 5001 + 8193, 0, 0, 0, Invalid, Established},
			said{1, fRST | fACK, 0, 1001, 0, 0, Invalid, Established},
			said{1, fRST, 5001, 0, 0, 0, Pass, Close},
			said{1, fRST, 5001, 0, 0, 0, Quiet, Close},
			said{1, fACK, 5001, 1001, 10, 0, Quiet, Close},
			said{0, fACK, 1001, 5012, 0, 0, Invalid, Close},
			said{0, fACK, 1001, 5011, 0, 0, Pass, Established})},
		"a SYN in a connection": {said: upTo(Established,
			said{0, fSYN, 77_000, 0, 0, 0, Quiet, Established},
			said{1, fRST | fACK, 0, 77_000, 0, 0, Invalid, Established},
			said{1, fRST | fACK, 0, 77_002, 0, 0, Invalid, Established},
			said{1, fRST | fACK, 0, 77_001 + 1<<16, 0, 0, Invalid, Established},
			said{1, fSYN | fACK, 9000, 77_001 + 1<<16, 0, 0, Invalid, Established},
			said{1, fRST | fACK, 0, 77_001, 0, 0, Pass, Close},
			said{0, fSYN, 77_000, 0, 0, 0, Restart, Close})},
		"a SYN with data": {said: upTo(Established,
			said{0, fSYN, 77_000, 0, 10, 0, Quiet, Established},
			said{1, fRST | fACK, 0, 77_000, 0, 0, Invalid, Established},
			said{1, fRST | fACK, 0, 77_001 + fastData + 1, 0, 0, Invalid, Established},
			said{1, fRST | fACK, 0, 77_001 + fastData, 0, 0, Pass, Close})},
		"forgotten": {said: upTo(Established,
			said{0, fSYN, 77_000, 0, 0, 0, Quiet, Established},
			said{1, fSYN | fACK, 9000, 77_002, 0, 0, Invalid, Established},
			said{1, fSYN | fACK, 9000, 77_001, 0, 0, Invalid, Close},
			said{0, fSYN, 77_000, 0, 0, 0, Restart, Close})},
		"forgotten by mistake": {said: upTo(Established,
			said{0, fSYN, 77_000, 0, 0, 0, Quiet, Established},
			said{1, fSYN | fACK, 9000, 77_001, 0, 0, Invalid, Close},
			said{0, fACK, 1001, 5001, 0, 0, Pass, Established},
			said{1, fRST, 5001, 0, 0, 0, Pass, Close},
			said{0, fSYN, 1<<32 + 1000 - slack - 1, 0, 0, 0, Restart, Close})},
		"late SYN-ACKs": {said: upTo(Established,
			said{1, fSYN | fACK, 5000, 1001, 0, 0, Quiet, Established},
			said{1, fSYN | fACK, 77_000, 1001, 0, 0, Quiet, Established}, // to be challenged
			said{1, fSYN | fACK, 77_000, 1000, 0, 0, Invalid, Established},
			said{1, fSYN | fACK, 5001, 1001, 0, 0, Quiet, Established},
			said{0, fSYN | fACK, 1000, 5001, 0, 0, Quiet, Established})},
		"old SYNs in TIME-WAIT": {said: upTo(TimeWait,
			said{0, fSYN, 1000, 0, 0, 0, Quiet, TimeWait},
			said{0, fSYN, 1001, 0, 0, 0, Quiet, TimeWait},
			said{0, fSYN, 1<<32 + 1001 - slack, 0, 0, 0, Quiet, TimeWait},
			said{0, fSYN, 1<<32 + 1000 - slack, 0, 0, 0, Restart, TimeWait})},
		"new SYNs in TIME-WAIT": {said: upTo(TimeWait, said{0, fSYN, 1002, 0, 0, 0, Restart, TimeWait})},
		"old SYNs in CLOSE":     {said: upTo(Close, said{0, fSYN, 1000, 0, 0, 0, Quiet, Close}, said{0, fSYN, 1001, 0, 0, 0, Restart, Close})},
		"SYNs of the other side in CLOSE": {said: upTo(Close, said{1, fSYN, 5000, 0, 0, 0, Quiet, Close},
			said{1, fSYN, 77_000, 0, 0, 0, Restart, Close})},
		"both begin": {said: upTo(SynSent,
			said{1, fSYN, 5000, 0, 0, 0, Pass, SynRecv},
			said{0, fSYN | fACK, 1000, 5002, 0, 0, Invalid, SynRecv},
			said{0, fSYN | fACK, 1000, 5000, 0, 0, Invalid, SynRecv},
			said{0, fSYN | fACK, 1000, 5001, 0, 0, Pass, SynRecv},
			said{1, fSYN | fACK, 5000, 1000, 0, 0, Invalid, SynRecv},
			said{1, fSYN | fACK, 5000, 1001, 0, 0, Pass, SynRecv},
			said{0, fACK, 1001, 5001, 0, 0, Pass, Established})},
	}
}()

// TestTCPGuards: the verdict about each segment of guards, and that invalid ones change
// nothing.
func TestTCPGuards(t *testing.T) {
	for name, c := range guards {
		talk(t, name, c.opts, c.said)
	}
}

// TestTCPFastIsTCP: the fast path accepts what TCP would let pass, records the same, and
// leaves all else alone.
func TestTCPFastIsTCP(t *testing.T) {
	for _, from := range []Ref{0, 1} {
		for _, s := range []said{
			{from: from, seq: 1001, ack: 5001}, {from: from, seq: 1001, ack: 5001, n: 1000}, {from: from, seq: 1001, ack: 5002}, {from: from, seq: 1001, ack: 4000},
			{from: from, seq: 1001 + 8192, ack: 5001}, {from: from, seq: 1001 + 8193, ack: 5001}, {from: from, seq: 1001 + 8192, ack: 5001, n: 1},
			{from: from, seq: 900, ack: 5001, n: 50}, {from: from, seq: 1001 + 1<<31, ack: 5001}, {from: from, seq: 1001, ack: 5001 + 1<<31, win: 100},
			{from: from, seq: 1001, ack: 5001, win: 65535},
		} {
			if from == 1 {
				s.seq, s.ack = s.seq+4000, s.ack-4000
			}
			a, b := talk(t, "", [2][]byte{}, upTo(Established)), talk(t, "", [2][]byte{}, upTo(Established))
			p := packet.Packet{Class: packet.ClassTCP, Proto: packet.TCP, Flags: fACK, Seq: s.seq, Ack: s.ack, Payload: s.n, Window: s.win}
			v, ok := a.TCP(from, &p, nil), b.TCPFast(from, p.Seq, p.Ack, uint32(p.Payload), uint32(p.Window))
			if ok != (v == Pass) || a.Shared(0).tcp != b.Shared(0).tcp || b.Dir(0).State != Established {
				t.Errorf("%+v: %d and %v, %+v and %+v", s, v, ok, a.Shared(0).tcp, b.Shared(0).tcp)
			}
		}
	}
}

// TestTCPFastAtBounds: around every bound of the windows, TCPFast accepts what inWindow does
// and records what advance does; what it leaves to TCP it does not touch.
func TestTCPFastAtBounds(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	near := func(of ...uint32) uint32 { return of[rnd.IntN(len(of))] + uint32(rnd.IntN(5)) - 2 }
	taken := 0
	for range 200_000 {
		tab := &Table{shared: make([]Shared, 1)}
		r, f := Ref(rnd.IntN(2)), &tab.shared[0]
		me, other := &f.tcp[r], &f.tcp[r^1]
		base := rnd.Uint32()
		for i := range f.tcp {
			s := &f.tcp[i]
			s.end, s.window = base+uint32(rnd.IntN(1<<18)), near(2, 1000, slack, 1<<20)
			s.limit, s.ack = s.end+uint32(rnd.IntN(1<<17)), base+uint32(rnd.IntN(1<<18))
			s.flags = sideSeen | uint16(rnd.IntN(2))*sideScale | uint16(rnd.IntN(15))<<sideScaleBit
			if rnd.IntN(8) > 0 {
				s.flags |= sideAcked
			}
		}
		p := packet.Packet{Flags: packet.ACK, Payload: uint16(rnd.IntN(2) * 1448), Window: uint16(near(2, 1<<15, 1<<16-3))}
		p.Seq = near(me.limit, me.end, me.end-slack, me.end-other.window, me.limit+1<<31) - uint32(rnd.IntN(2))*uint32(p.Payload)
		p.Ack = near(other.end, me.ack, me.ack-slack, me.ack-me.window, other.end+1<<31)
		was, valid := f.tcp, inWindow(me, other, &p)
		if ok := tab.TCPFast(r, p.Seq, p.Ack, uint32(p.Payload), uint32(p.Window)); ok {
			taken++
			got := f.tcp
			f.tcp = was
			if me.advance(other, &p); !valid || f.tcp != got {
				t.Fatalf("%+v: segment %d %d %d %d of %d: valid %v, recorded %+v, want %+v", was, p.Seq, p.Ack, p.Payload, p.Window, r, valid, got, f.tcp)
			}
		} else if f.tcp != was {
			t.Fatalf("%+v: a segment that is left to TCP has changed it to %+v", was, f.tcp)
		} else if far := uint32(1 << 30); valid && me.flags&sideAcked != 0 && me.limit-seqEnd(&p) < far && other.end-p.Ack < far {
			t.Fatalf("%+v: segment %d %d %d of %d is left to TCP", was, p.Seq, p.Ack, p.Payload, r)
		}
	}
	if taken < 10_000 {
		t.Errorf("only %d segments were valid", taken)
	}
}

// TestUnderWay: what an ICMP error may quote.
func TestUnderWay(t *testing.T) {
	tab := talk(t, "", [2][]byte{}, upTo(Established,
		said{0, fACK, 1001, 5001, 5000, 0, Pass, Established},
		said{1, fACK, 5001, 4001, 0, 0, Pass, Established}))
	for seq, want := range map[uint32]bool{6001: true, 6002: false, 4001: true, 1<<32 + 4001 - 8192 - 1: true, 1<<32 + 4001 - 8192 - 2: false, 6001 + 1<<31: false} {
		if tab.UnderWay(0, seq) != want {
			t.Errorf("%d: %v", seq, !want)
		}
	}
	p := packet.Packet{Class: packet.ClassTCP, Proto: packet.TCP, Flags: fSYN, Seq: 700_000}
	if tab.UnderWay(0, 700_000) || tab.TCP(0, &p, nil) != Quiet || !tab.UnderWay(0, 700_000) || tab.UnderWay(0, 700_001) || tab.UnderWay(0, 700_000+1<<16) {
		t.Error("a SYN within the connection")
	}
	tab = talk(t, "", [2][]byte{}, nil)
	if !tab.UnderWay(0, 1000) || tab.UnderWay(0, 1002) || tab.UnderWay(1, 0) {
		t.Error("a SYN alone")
	}
}
