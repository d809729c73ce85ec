package conntrack

import (
	"testing"

	"github.com/thurward/thurward/internal/shared/packet"
)

// counts compares the table's counters with its flows.
func counts(t interface{ Fatalf(string, ...any) }, tab *Table) {
	var firmly [2]uint32
	var want holders
	for i := uint32(0); i < tab.fresh; i++ {
		d := &tab.dirs[2*i]
		if d.State == 0 {
			continue
		}
		if d.State.spare() == 0 {
			if d.Path.FromWAN() {
				firmly[1]++
			} else {
				firmly[0]++
			}
		}
		h := mix(uint64(d.Key.Src) ^ tab.k[0])
		want[0][h%(1<<holderBits)]++
		want[1][h>>32%(1<<holderBits)]++
	}
	if firmly != tab.firm {
		t.Fatalf("%v flows are firm, counted %v", firmly, tab.firm)
	}
	if want != tab.holders {
		t.Fatalf("flows by source are not what is counted")
	}
}

// open inserts flow n of a source in a state.
func open(tab *Table, src packet.Addr, n int, fromWAN bool, s State) Ref {
	k := Key{Src: src, Dst: 99, SrcPort: uint16(n), DstPort: 5353, Proto: packet.UDP}
	r := tab.Insert(&k, &packet.Rewrite{Src: src, Dst: 99, SrcPort: uint16(n), DstPort: 5353}, UDPUnreplied, pathOf(fromWAN), 1000)
	if r != None {
		tab.setState(r, s)
	}
	return r
}

// TestAdmits: one source gets seven eighths of a table with firm flows and no more, and may
// replace the ones that it ends; another one finds room; all sources on the WAN together
// get no more either, and leave the rest to the LAN.
func TestAdmits(t *testing.T) {
	const n = 4096
	tab := New(n, [2]uint64{1, 7}, udpTimeouts(), nil)
	var refs []Ref
	for tab.Admits(1, false) {
		refs = append(refs, open(tab, 1, len(refs), false, UDPReplied))
	}
	if len(refs) < n*7/8-1 || len(refs) > n*7/8+fewFlows || tab.C.Full != 1 {
		t.Fatalf("one source has %d of %d", len(refs), n)
	}
	if !tab.Admits(2, false) || !tab.Admits(3, true) || tab.Share(1) != len(refs) || tab.Share(2) != 0 {
		t.Fatalf("others are refused; shares %d and %d", tab.Share(1), tab.Share(2))
	}
	tab.Remove(refs[0], Closed)
	if !tab.Admits(1, false) {
		t.Fatal("what it gives up it may not have again")
	}
	counts(t, tab)
	for _, r := range refs[1:] {
		tab.Remove(r, Closed)
	}
	counts(t, tab)
	if tab.Len() != 0 || tab.Share(1) != 0 {
		t.Fatalf("%d left, share %d", tab.Len(), tab.Share(1))
	}
	// Sources without number on the WAN.
	m := 0
	for ; tab.Admits(packet.Addr(1000+m), true); m++ {
		open(tab, packet.Addr(1000+m), 1, true, UDPReplied)
	}
	if m < n*7/8-1 || m > n*7/8+fewFlows {
		t.Fatalf("the WAN has %d of %d", m, n)
	}
	if !tab.Admits(1, false) {
		t.Fatal("the LAN is refused")
	}
	// Flows that are not firm do not count.
	for r := Ref(0); int(r) < 2*n; r += 2 {
		if tab.Dir(r).State == UDPReplied {
			tab.setState(r, UDPQuery)
		}
	}
	if !tab.Admits(9999, true) || !tab.Admits(1, false) {
		t.Fatal("refused, although all others may be given up")
	}
	counts(t, tab)
}

// TestLargestHolderGivesWay: of flows with equal spare those of a large holder are evicted
// first, also before flows of others with a higher one.
func TestLargestHolderGivesWay(t *testing.T) {
	const n = 1024
	tab := New(n, [2]uint64{1, 7}, udpTimeouts(), nil)
	for i := range n {
		src, s := packet.Addr(500+i), UDPUnreplied
		if i%4 == 0 {
			src, s = 1, SynRecv // a quarter of all, in handshakes
		}
		if open(tab, src, i, false, s) == None {
			t.Fatal("does not fit")
		}
	}
	lost := map[bool]int{}
	tab.Removed = func(r Ref, _ Removal) { lost[tab.Dir(r).Key.Src == 1]++ }
	for i := range 100 {
		if open(tab, 7777, 2000+i, false, UDPReplied) == None {
			t.Fatal("no room")
		}
	}
	if lost[true] < 90 {
		t.Fatalf("the largest holder lost %d, others %d", lost[true], lost[false])
	}
	counts(t, tab)
}
