package sni

import (
	"encoding/binary"
	"slices"
	"strings"
	"testing"

	"github.com/thurward/thurward/internal/guest/clienthello"
	"github.com/thurward/thurward/internal/guest/conntrack"
	"github.com/thurward/thurward/internal/guest/fqdn"
	"github.com/thurward/thurward/internal/shared/packet"
)

// hello is a ClientHello in one record, without a name if name is empty, with early data
// announced or not.
func hello(name string, early bool) []byte {
	long := func(b []byte) []byte { return append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...) }
	ext := func(typ byte, b []byte) []byte { return append([]byte{0, typ}, long(b)...) }
	exts := ext(43, []byte{2, 3, 4})
	if name != "" {
		exts = append(exts, ext(0, long(append([]byte{0}, long([]byte(name))...)))...)
	}
	if early {
		exts = append(exts, ext(42, nil)...)
	}
	body := slices.Concat([]byte{3, 3}, make([]byte, 32), []byte{0, 0, 2, 0x13, 1, 1, 0}, long(exts))
	return slices.Concat([]byte{22, 3, 1}, long(slices.Concat([]byte{1, 0}, long(body))))
}

// retry is the beginning of a HelloRetryRequest, and answer that of another response.
var (
	retry = []byte("\x16\x03\x03\x00\x5a\x02\x00\x00\x56\x03\x03" +
		"\xCF\x21\xAD\x74\xE5\x9A\x61\x11\xBE\x1D\x8C\x02\x1E\x65\xB8\x91\xC2\xA2\x11\x16\x7A\xBB\x8C\x5E\x07\x9E\x09\xE2\xC8\xA8\x33\x9C")
	answer = []byte("\x16\x03\x03\x00\x5a\x02\x00\x00\x56\x03\x03" + strings.Repeat("r", 32))
)

// TestRead: each outcome of a message, and the name that goes with it: also that of a
// message that is refused for what follows it.
func TestRead(t *testing.T) {
	good, early := hello("a.example", false), hello("a.example", true)
	ccs, data := "\x14\x03\x03\x00\x01\x01", "\x17\x03\x03\x00\x01x"
	for _, c := range []struct {
		what   string
		stream string
		second bool
		ended  bool
		want   Action
		name   string
	}{
		{"nothing", "", false, false, Hold, ""},
		{"nothing, and the end", "", false, true, Refuse, ""},
		{"half", string(good[:20]), false, false, Hold, ""},
		{"half, and the end", string(good[:20]), false, true, Refuse, ""},
		{"all", string(good), false, false, Pass, "a.example"},
		{"all, and the end", string(good), false, true, Pass, "a.example"},
		{"no name", string(hello("", false)), false, false, Refuse, ""},
		{"another protocol", "GET /", false, false, Refuse, ""},
		{"data behind it", string(good) + data, false, false, Refuse, "a.example"},
		{"early data behind it", string(early) + data, false, false, Pass, "a.example"},
		{"another record behind it", string(early) + string(good), false, false, Refuse, "a.example"},
		{"a change of ciphers before it", ccs + string(good), false, false, Refuse, ""},
		{"that before a second one", ccs + string(good), true, false, Pass, "a.example"},
	} {
		m := Message{second: c.second, len: len(c.stream)}
		copy(m.data[:], c.stream)
		var buf [fqdn.MaxName]byte
		if name, a := m.Read(c.ended, &buf); a != c.want || string(name) != c.name {
			t.Errorf("%s: %d %q, want %d %q", c.what, a, name, c.want, c.name)
		}
	}
}

// TestRespond: a response is read in order and once, and counts when the message has
// arrived.
func TestRespond(t *testing.T) {
	type step struct {
		seq            uint32
		data           string
		ended, arrived bool
		want           Action
	}
	next := ^uint32(4) // the numbers wrap
	half, n := string(retry[:20]), uint32(len(retry))
	for _, c := range []struct {
		what          string
		early, second bool
		steps         []step
	}{
		{"an answer", false, false, []step{{next, string(answer), false, true, Settle}}},
		{"an answer before it has arrived", false, false, []step{{next, string(answer), false, false, Pass}, {next + uint32(len(answer)), "", false, true, Settle}}},
		{"a request", false, false, []step{{next, string(retry), false, true, Second}}},
		{"a request before it has arrived", false, false, []step{{next, string(retry), false, false, Pass}, {next + n, "", false, true, Second}}},
		{"in two parts", false, false, []step{{next, half, false, true, Pass}, {next + 20, string(retry[20:]), false, true, Second}}},
		{"the second part first", false, false, []step{{next + 20, string(retry[20:]), false, true, Pass}, {next, half, false, true, Pass}, {next + 20, string(retry[20:]), false, true, Second}}},
		{"the first part again", false, false, []step{{next, half, false, true, Pass}, {next, half, false, true, Pass}, {next + 20, string(retry[20:]), false, true, Second}}},
		{"half, and the end", false, false, []step{{next, half, true, true, Settle}}},
		{"half and the end, before it has arrived", false, false, []step{{next, half, true, false, Pass}, {next + 20, "", false, true, Settle}}},
		{"the end of another part", false, false, []step{{next + 20, "x", true, true, Pass}}},
		{"a request after early data", true, false, []step{{next, string(retry), false, true, Refuse}}},
		{"a second request", false, true, []step{{next, string(retry), false, true, Refuse}}},
		{"an answer after early data", true, false, []step{{next, string(answer), false, true, Settle}}},
		{"an answer to the second", false, true, []step{{next, string(answer), false, true, Settle}}},
	} {
		tab := New()
		m := tab.Open(0, 1, 1000, 0)
		m.early, m.second = c.early, c.second
		tab.Pass(m, next, 0)
		for i, s := range c.steps {
			if got := m.Respond(s.seq, []byte(s.data), len(s.data), s.ended, s.arrived); got != s.want {
				t.Errorf("%s, step %d: %d, want %d", c.what, i, got, s.want)
			}
		}
	}
	// Of a segment whose frame has not all of its data the rest counts as data.
	m := Message{next: next}
	if got := m.Respond(next, retry[:11], 11+7, false, true); got != Pass || m.next != next+18 || m.read != 11 {
		t.Errorf("%d, next %d, %d read", got, m.next-next, m.read)
	}
	if m.bytes[0] != 22 || m.response != clienthello.Undecided {
		t.Errorf("%x, %d", m.bytes, m.response)
	}
}

// TestSecondFollowsTheFirst: a second message begins where the first has ended, with nothing
// of it, and its segments are held in any order.
func TestSecondFollowsTheFirst(t *testing.T) {
	tab := New()
	m := tab.Open(6, 1, 1000, 0)
	m.SetName([]byte("\x01a\x00"))
	first := hello("a", false)
	add := func(at int, b []byte) Action {
		return m.Add(&Segment{Packet: packet.Packet{Seq: 1000 + uint32(at), Payload: uint16(len(b))}}, b)
	}
	if a := add(0, first); a != Hold || m.End() != 1000+uint32(len(first)) || m.IsSecond() {
		t.Fatalf("%d, to %d", a, m.End())
	}
	tab.Pass(m, 7, 0)
	if len(m.Held()) != 0 || !m.Passed {
		t.Errorf("%d are held", len(m.Held()))
	}
	tab.Second(m, 0)
	if !m.IsSecond() || m.Passed || m.End() != 1000+uint32(len(first)) || !m.HasName([]byte("\x01a\x00")) || m.HasName([]byte("\x01b\x00")) || m.HasName(nil) {
		t.Errorf("second %v, from %d", m.IsSecond(), m.End())
	}
	if a := add(len(first)+1, first[1:]); a != Hold || m.End() != 1000+uint32(len(first)) {
		t.Errorf("without its first byte: %d, to %d", a, m.End())
	}
	if a := add(len(first), first[:1]); a != Hold || m.End() != 1000+2*uint32(len(first)) {
		t.Errorf("with its first byte: %d, to %d", a, m.End())
	}
	// The place that it leaves has nothing of it for the next one.
	tab.Close(m)
	if n := tab.Open(8, 1, 5000, 0); n != m || n.IsSecond() || n.Passed || n.HasName([]byte("\x01a\x00")) || len(n.Held()) != 0 || n.End() != 5000 || n.Flow != 8 {
		t.Errorf("the next one in its place: %+v", n.Flow)
	}
}

// TestDueOfAll: of a full table each message that is due is found, in whichever place.
func TestDueOfAll(t *testing.T) {
	tab := New()
	for i := range MaxUnanswered {
		tab.Pass(tab.Open(conntrack.Ref(2*i), packet.Addr(i), 0, 0), 0, 0)
	}
	for i := range MaxIncomplete {
		tab.Open(conntrack.Ref(2*(MaxUnanswered+i)), packet.Addr(i), 0, 0)
	}
	for late, want := range map[int64]int{ReadWithin - 1: 0, ReadWithin: MaxIncomplete, AnsweredWithin: MaxIncomplete + MaxUnanswered} {
		n := 0
		for m := tab.Due(nil, late); m != nil; m = tab.Due(m, late) {
			n++
		}
		if n != want {
			t.Errorf("%d ns later %d are due, want %d", late, n, want)
		}
	}
}

// TestAddAtTheEnd: a message of the greatest length is held, one byte more is refused, or
// waits until what is missing has come; wherever the client's numbers begin.
func TestAddAtTheEnd(t *testing.T) {
	for _, first := range []uint32{0, 1 << 30, 1 << 31, ^uint32(0)} {
		for _, c := range []struct {
			at, n int
			want  Action
		}{{0, clienthello.MaxLen, Hold}, {0, clienthello.MaxLen + 1, Refuse}, {1, clienthello.MaxLen, Repeat}, {1, clienthello.MaxLen - 1, Hold}} {
			tab := New()
			m := tab.Open(0, 1, first, 0)
			b := make([]byte, c.n)
			if got := m.Add(&Segment{Packet: packet.Packet{Seq: first + uint32(c.at), Payload: uint16(c.n)}}, b); got != c.want {
				t.Errorf("from %#x, %d bytes at %d: %d, want %d", first, c.n, c.at, got, c.want)
			}
		}
	}
}

// TestFollowsAnAnswer: when its message has arrived a client sends on, but not what may be a
// second message; from then on it is not looked at.
func TestFollowsAnAnswer(t *testing.T) {
	for content, want := range map[string]Action{"\x17\x03": Pass, "\x15\x03": Pass, "\x16\x03": Repeat, "\x14\x03": Repeat} {
		for _, before := range []string{"", "d", "cd"} {
			m := Message{first: 1000, len: 4}
			copy(m.data[:], "abcd")
			at := 1004 - uint32(len(before))
			if got := m.Follows(at, []byte(before+content), true); got != want || m.early != (want == Pass) {
				t.Errorf("%q behind %q: %d, want %d", content, before, got, want)
			}
			if got := m.Follows(1100, []byte("\x16"), false); got != want {
				t.Errorf("what follows %q: %d, want %d", content, got, want)
			}
		}
	}
	// Early data that the message announces are no answer's.
	m := Message{}
	b := hello("a.example", true)
	m.len = copy(m.data[:], b)
	if _, a := m.Read(false, new([fqdn.MaxName]byte)); a != Pass || m.Follows(uint32(len(b))+9, []byte("\x16"), false) != Pass {
		t.Error("early data do not pass")
	}
}

// TestEndOfARequest: the end of a server's stream makes a request no answer.
func TestEndOfARequest(t *testing.T) {
	m := Message{next: 7}
	if got := m.Respond(7, retry, len(retry), true, true); got != Second {
		t.Error(got)
	}
}

// TestWhole: a held segment is whole if all of it is contiguous with the beginning.
func TestWhole(t *testing.T) {
	for _, first := range []uint32{1000, ^uint32(0)} {
		m := Message{first: first, len: 10}
		for _, c := range []struct {
			at   uint32
			n    uint16
			want bool
		}{{0, 10, true}, {0, 9, true}, {4, 6, true}, {4, 7, false}, {10, 1, false}, {11, 2, false}, {0, 11, false}} {
			if got := m.Whole(&Segment{Packet: packet.Packet{Seq: first + c.at, Payload: c.n}}); got != c.want {
				t.Errorf("from %#x, %d bytes at %d: %v", first, c.n, c.at, got)
			}
		}
	}
}

// TestClosedCountsNothing: neither its segments nor it itself.
func TestClosedCountsNothing(t *testing.T) {
	tab := New()
	segment := Segment{Packet: packet.Packet{Seq: 1, Payload: 1}}
	var a, b *Message
	for i := range 3 {
		m := tab.Open(conntrack.Ref(2*i), packet.Addr(i), 1, 0)
		a, b = b, m
		segment.Seq = 1
		m.Add(&segment, []byte{22})
		segment.Seq = 2
		m.Add(&segment, []byte{3})
	}
	if tab.Segments() != 6 {
		t.Errorf("%d segments", tab.Segments())
	}
	b.early = true
	b.SetName([]byte("\x01a\x00"))
	tab.Close(b)
	tab.Close(a)
	if tab.Segments() != 2 || len(a.Held())+len(b.Held()) != 0 {
		t.Errorf("%d segments, %d and %d of those that are closed", tab.Segments(), len(a.Held()), len(b.Held()))
	}
	// The source of b again, in a's place.
	c := tab.Open(10, 2, 1, 0)
	if c != a || tab.slot[c.slot].share != 1 {
		t.Errorf("its share is %d", tab.slot[c.slot].share)
	}
	if d := tab.Open(12, 2, 1, 0); d != b || tab.slot[d.slot].share != 2 || tab.slot[c.slot].share != 2 || d.early || !d.HasName(nil) {
		t.Errorf("the next one's share is %d, early %v", tab.slot[d.slot].share, d.early)
	}
}
