package conntrack

import (
	"math/rand/v2"
	"testing"

	"github.com/thurward/thurward/internal/shared/packet"
)

// TestSweepBounds: a step examines 1024 records from where the last one ended, and wraps
// around; it ends after 128 removals, and reports that there may be more. Free records are
// none of those.
func TestSweepBounds(t *testing.T) {
	const n = 3000
	tab := New(n, [2]uint64{1, 7}, udpTimeouts(), dirty)
	if tab.Sweep(1 << 40) {
		t.Fatal("more to do in an empty table")
	}
	for i := range 2500 {
		k, out := flow(i)
		tab.Insert(&k, &out, UDPUnreplied, outward, 1000)
	}
	for _, hand := range []uint32{1024, 2048, 572, 1596} {
		if tab.Sweep(1000) || tab.hand != hand || tab.Len() != 2500 {
			t.Fatalf("the sweep is at %d, want %d; %d flows", tab.hand, hand, tab.Len())
		}
	}
	tab.hand = 0
	for r := range Ref(1000) { // 500 of the first are gone
		if !r.Reply() {
			tab.Remove(r, Closed)
		}
	}
	if tab.Sweep(1099) || tab.hand != 1024 || tab.Len() != 2000 {
		t.Fatalf("free records were removed again: at %d, %d flows", tab.hand, tab.Len())
	}
	tab.hand = 0
	if !tab.Sweep(1100) || tab.hand != 500+128 || tab.Len() != 2000-128 || tab.C.Evictions != [NumRemovals]uint64{Expired: 128, Closed: 500} {
		t.Fatalf("at %d, %d flows, %+v", tab.hand, tab.Len(), tab.C)
	}
	// 127 and no more: there is nothing to do.
	tab = New(n, [2]uint64{1, 7}, udpTimeouts(), dirty)
	for i := range 127 {
		k, out := flow(i)
		tab.Insert(&k, &out, UDPUnreplied, outward, 1000)
	}
	if tab.Sweep(1100) || tab.Len() != 0 {
		t.Fatal("more to do")
	}
	// Few records: each is examined once in a step, whatever was added.
	tab = New(n, [2]uint64{1, 7}, udpTimeouts(), dirty)
	for i := range 3 {
		k, out := flow(i)
		tab.Insert(&k, &out, UDPUnreplied, outward, 1000+int64(i))
		tab.hand = 2
		if tab.Sweep(1000); tab.hand != []uint32{1, 2, 2}[i] {
			t.Fatalf("of %d records the sweep is at %d", i+1, tab.hand)
		}
	}
	if tab.Sweep(1101); tab.Len() != 1 {
		t.Fatalf("%d flows", tab.Len())
	}
}

// TestReclaimIsAsItSays: which flow a full table evicts, of any mixture: from the sweep's
// position on, among 64, the first that has expired or is over, or that a holder of more
// than a sixteenth has and is not firm; or else the one with the highest spare among all
// that were examined until the ninth. No firm flow is evicted.
func TestReclaimIsAsItSays(t *testing.T) {
	for seed := range uint64(1500) {
		r := rand.New(rand.NewPCG(seed, 2))
		n := []int{1, 2, 9, 10, 11, 63, 64, 65, 128, 200}[seed%10]
		tab := New(n, [2]uint64{seed, 7}, udpTimeouts(), dirty)
		firmness := r.IntN(101) // of a hundred
		sources := []int{1, 3, 20, 1000}[r.IntN(4)]
		for i := range n {
			s := []State{Established, UDPReplied, FinWait, CloseWait, LastAck}[r.IntN(5)]
			if r.IntN(100) >= firmness {
				s = []State{SynSent, SynRecv, UDPUnreplied, UDPBrief, UDPQuery, UDPAnswered, Echo, SynSent, SynRecv, Echo, TimeWait, Close}[r.IntN(12-2*r.IntN(2))]
			}
			k := Key{Src: packet.Addr(1 + r.IntN(sources)), Dst: 99, SrcPort: uint16(i), DstPort: 5353, Proto: packet.UDP}
			at := int64(1000)
			if r.IntN(5*n) == 0 {
				at = 1
			}
			if tab.Insert(&k, &packet.Rewrite{Src: 77, Dst: 99, SrcPort: uint16(i), DstPort: 5353}, s, outward, at) == None {
				t.Fatalf("seed %d: flow %d of %d does not fit", seed, i, n)
			}
		}
		hand := r.IntN(n + 1) // n: the sweep is at the end
		tab.hand = uint32(hand)
		want, why, best := -1, Reclaimed, 0
		looked := 0
		for k := range min(64, n) {
			i := (hand + k) % n
			looked = k + 1
			d := tab.Dir(Ref(2 * i))
			rank := map[State]int{TimeWait: 3, Close: 3, SynSent: 2, UDPUnreplied: 2, UDPBrief: 2, UDPQuery: 2, SynRecv: 1, UDPAnswered: 1, Echo: 1}[d.State]
			large := tab.Share(d.Key.Src) > n/16
			if d.LastSeen == 1 {
				want, why = i, Expired
				break
			}
			if rank == 3 || rank > 0 && large {
				want = i
				break
			}
			if rank > best {
				want, best = i, rank
			}
			if best > 0 && k >= 8 {
				break
			}
		}
		got, how := -1, NumRemovals
		tab.Removed = func(r Ref, w Removal) { got, how = int(r>>1), w }
		tab.reclaim(1001)
		if got != want || want >= 0 && how != why || int(tab.hand) != (hand+looked-1)%n+1 {
			t.Fatalf("seed %d, %d flows from %d: flow %d went, %v; want %d, %v; the sweep is at %d after %d", seed, n, hand, got, how, want, why, tab.hand, looked)
		}
		if want >= 0 && (tab.C.Evictions[why] != 1 || tab.Len() != n-1) {
			t.Fatalf("%+v", tab.C)
		}
		counts(t, tab)
	}
}

// TestRemoving: the sweep tells of each flow once before it removes it, and of a group before the
// first of it.
func TestRemoving(t *testing.T) {
	tab := New(100, [2]uint64{1, 2}, udpTimeouts(), nil)
	for i := range 40 {
		k := Key{Src: packet.Addr(i), Dst: 9, SrcPort: 7, DstPort: 80, Proto: packet.UDP}
		tab.Insert(&k, &packet.Rewrite{Src: 77, Dst: 9, SrcPort: uint16(i), DstPort: 80}, UDPReplied, outward, 1)
	}
	told, most, removed := map[Ref]bool{}, 0, 0
	tab.Removing = func(r Ref) {
		if told[r] || r.Reply() || tab.Dir(r).State == 0 {
			t.Errorf("flow %d is told of", r)
		}
		told[r] = true
		most = max(most, len(told))
	}
	tab.Removed = func(r Ref, _ Removal) {
		if !told[r] {
			t.Errorf("flow %d is removed, and was not told of", r)
		}
		delete(told, r)
		removed++
	}
	tab.Sweep(1 << 60)
	if removed != 40 || len(told) != 0 || most != sweepGroup {
		t.Errorf("%d removed, %d left, at most %d at once", removed, len(told), most)
	}
}
