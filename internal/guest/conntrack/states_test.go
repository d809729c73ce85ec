package conntrack

import (
	"testing"

	"github.com/thurward/thurward/internal/shared/packet"
)

// one is a table with one flow, whose reply comes from port.
func one(s State, port uint16, fromWAN bool) (*Table, Ref) { return oneBy(s, port, pathOf(fromWAN)) }

func oneBy(s State, port uint16, path Path) (*Table, Ref) {
	tab := New(1, [2]uint64{1, 2}, Timeouts{}, dirty)
	k := Key{Src: 1, Dst: 2, SrcPort: 1000, DstPort: port, Proto: packet.UDP}
	return tab, tab.Insert(&k, &packet.Rewrite{Src: 1, Dst: 2, SrcPort: 1000, DstPort: port}, s, path, 1)
}

// TestStates: the name of each state, and how readily it is evicted.
func TestStates(t *testing.T) {
	names := []string{"free", "syn_sent", "syn_recv", "established", "fin_wait", "close_wait", "last_ack", "time_wait", "close",
		"udp_unreplied", "udp_brief", "udp", "udp_query", "udp_answered", "icmp_echo", "invalid", "invalid"}
	over := map[State]bool{TimeWait: true, Close: true}
	spare := map[State]int{TimeWait: 3, Close: 3, SynSent: 2, UDPUnreplied: 2, UDPBrief: 2, UDPQuery: 2, SynRecv: 1, UDPAnswered: 1, Echo: 1}
	for s := range State(17) {
		if s.String() != names[s] || s.Over() != over[s] || s.spare() != spare[s] {
			t.Errorf("state %d: %q, over %v, spare %d", s, s, s.Over(), s.spare())
		}
		if want := s > 0 && s < NumStates && spare[s] == 0; (firm[s&15] == 1) != want && s < 16 || firm[s&15] > 1 {
			t.Errorf("%v is firm: %d", s, firm[s&15])
		}
	}
	if State(255).String() != "invalid" {
		t.Error("the last number is a state")
	}
	for r, want := range []string{"expired", "replaced", "reclaimed", "invalid"} {
		if Removal(r).String() != want {
			t.Errorf("removal %d: %q", r, Removal(r))
		}
	}
	for port, want := range map[uint16]State{0: UDPBrief, 53: UDPBrief, 1023: UDPBrief, 1024: UDPUnreplied, 65535: UDPUnreplied} {
		if UDPState(port) != want {
			t.Errorf("port %d: %v", port, UDPState(port))
		}
	}
}

// TestUDPTransitions: the state after a packet of each direction in each state of UDP, for
// port 53, other well-known ports, and others, of flows from both sides.
func TestUDPTransitions(t *testing.T) {
	for _, fromWAN := range []bool{false, true} {
		for _, port := range []uint16{52, 53, 54, 5353} {
			for s := State(1); s < NumStates; s++ {
				for _, reply := range []Ref{0, 1} {
					tab, r := one(s, port, fromWAN)
					want := s
					switch {
					case s == UDPUnreplied && reply == 1 && (port == 53 || fromWAN), s == UDPBrief && reply == 1:
						want = UDPQuery
					case s == UDPUnreplied && reply == 1:
						want = UDPAnswered
					case (s == UDPQuery || s == UDPAnswered) && reply == 0 && port != 53:
						want = UDPReplied
					}
					tab.UDP(r | reply)
					if tab.Dir(0).State != want || tab.Dir(1).State != want {
						t.Errorf("from WAN %v, port %d, %v, direction %d: %v and %v, want %v", fromWAN, port, s, reply, tab.Dir(0).State, tab.Dir(1).State, want)
					}
					counts(t, tab)
				}
			}
		}
	}
}

// TestFastMarks: which directions need no decision any more: those of open
// connections of TCP and of UDP whose packets change nothing, that have been
// accepted, and do not leave where they came from.
func TestFastMarks(t *testing.T) {
	for s := State(1); s < NumStates; s++ {
		for _, port := range []uint16{53, 54} {
			for verdict := range uint8(4) {
				for _, reply := range []Ref{0, 1} {
					for _, hairpin := range []bool{false, true} {
						path := outward
						if hairpin {
							path = NewPath(1, 1, false, false)
						}
						tab, r := oneBy(s, port, path)
						tab.timeouts[s] = 10
						d := tab.Dir(r | reply)
						d.Verdict = verdict
						tab.MarkFast(r | reply)
						want := s == Established || s == UDPReplied || (s == UDPUnreplied || s == UDPBrief) && reply == 0 ||
							(s == UDPQuery || s == UDPAnswered) && (reply == 1 || port == 53)
						want = want && verdict == Accepted && !hairpin
						if got := tab.IsFast(d, &d.Key, d.Path, 1); got != want {
							t.Errorf("%v, port %d, verdict %d, direction %d, hairpin %v: fast %v", s, port, verdict, reply, hairpin, got)
						}
						if o := tab.Dir(r | reply ^ 1); tab.IsFast(o, &o.Key, o.Path, 1) || tab.IsFast(d, &d.Key, d.Path^1, 1) || d.Path.Hairpin() != hairpin || want != (d.Fast() == d.Path) {
							t.Errorf("%v: the other direction is marked, or another path", s)
						}
						if c := d.Unmarked(); c.fast != 0 || c.Path != d.Path || c.Key != d.Key || c.State != d.State {
							t.Errorf("unmarked: %+v of %+v", c, *d)
						}
						// A change of state takes the mark away.
						tab.setState(r, Established)
						if d.fast != 0 || tab.Dir(r|reply^1).fast != 0 || d.Path != path && d.Path != path.Reverse() {
							t.Errorf("%v: still marked after a change, or another path", s)
						}
					}
				}
			}
		}
	}
}

// TestFastKeys: a mark is of one direction's packets, to the last bit.
func TestFastKeys(t *testing.T) {
	tab, r := one(Established, 80, false)
	tab.timeouts[Established] = 10
	d := tab.Dir(r)
	d.Verdict = Accepted
	tab.MarkFast(r)
	for i := range 8 * 16 {
		k := d.Key
		words(&k)[i/64] ^= 1 << (i % 64)
		if tab.IsFast(d, &k, d.Path, 1) || tab.Lookup(&k, 1) != None || tab.Taken(&k) || same(&k, &d.Key) {
			t.Fatalf("bit %d of a key makes no difference", i)
		}
	}
	if !tab.IsFast(d, &d.Key, d.Path, 10) || tab.IsFast(d, &d.Key, d.Path, 11) {
		t.Fatal("to the end of its time")
	}
}

// TestSpare: how readily a flow is evicted for its external port, by its state and by when
// either direction has sent last.
func TestSpare(t *testing.T) {
	for s := State(1); s < NumStates; s++ {
		for _, idle := range []int64{0, 16e9 - 1, 16e9, 120e9 - 1, 120e9} {
			for _, last := range []Ref{0, 1} {
				tab := New(3, [2]uint64{1, 2}, Timeouts{}, dirty)
				open(tab, 50, 1, false, Established) // one before it
				r := open(tab, 51, 1, false, s)
				open(tab, 52, 1, false, Close)
				tab.Dir(r).LastSeen, tab.Dir(r^1).LastSeen = 5, 5
				tab.Dir(r | last).LastSeen = 100
				want := Keep
				switch {
				case s == TimeWait || s == Close:
					want = Over
				case s == SynSent || s == UDPUnreplied || s == UDPBrief || s == UDPQuery:
					want = Unsure
					if idle >= 16e9 {
						want = Stale
					}
				case s == SynRecv || s == UDPAnswered || s == Echo || s == UDPReplied && idle >= 120e9:
					want = Unsure
				}
				if got := tab.Spare(1, 100+idle); got != want {
					t.Errorf("%v after %d ns: %d, want %d", s, idle, got, want)
				}
			}
		}
	}
	tab, r := one(Close, 53, false)
	if tab.Spare(0, 1) != Over || tab.Spare(1, 1) != Keep || tab.Spare(1<<31, 1) != Keep || tab.RemoveOver(1, 1) {
		t.Error("a flow that there never was")
	}
	tab.Remove(r, Closed)
	if tab.Spare(0, 1<<40) != Keep || tab.RemoveOver(0, 1<<40) {
		t.Error("a flow that is gone")
	}
}

// TestAdmitsToTheLast: who may begin a flow, by how many firm flows a source and all
// sources have, at every fill of a table.
func TestAdmitsToTheLast(t *testing.T) {
	const n = 64
	for _, fromWAN := range []bool{false, true} {
		for of := range 60 { // flows of source 1
			tab := New(n, [2]uint64{1, 7}, udpTimeouts(), nil)
			for i := range of {
				open(tab, 1, i, fromWAN, UDPReplied)
			}
			for total := of; total <= n; total++ {
				if tab.Share(1) != of {
					t.Fatal("another secret is needed: two sources share their cells")
				}
				room := n - total
				limit := 7*room + 16
				for _, wan := range []bool{false, true} {
					wans := map[bool]int{true: of, false: 0}[fromWAN] + (total-of+1)/2
					want := room >= 8 || of < limit && (!wan || wans < limit)
					full := tab.C.Full
					if got := tab.Admits(1, wan); got != want || tab.C.Full-full != map[bool]uint64{true: 0, false: 1}[want] {
						t.Fatalf("with %d of %d, of them %d of the WAN, from WAN %v: %v", of, total, wans, wan, got)
					}
				}
				if total < n && open(tab, packet.Addr(100+total), 1, (total-of)%2 == 0, Established) == None {
					t.Fatal("no room")
				}
			}
			counts(t, tab)
		}
	} // While an eighth of the table or more is not firm anybody may begin one, whatever
	// he has.
	for firmly, want := range map[int]bool{224: true, 225: false} {
		tab := New(256, [2]uint64{1, 7}, udpTimeouts(), nil)
		for i := range 256 {
			s := UDPReplied
			if i >= firmly {
				s = UDPQuery
			}
			open(tab, 1, i, false, s)
		}
		if tab.Admits(1, false) != want || tab.Admits(1, true) != want {
			t.Fatalf("%d of 256 firm: %v", firmly, !want)
		}
	}
}
