package reassembly

import (
	"testing"

	"github.com/thurward/thurward/internal/shared/packet"
)

// TestWhoGivesWay: at each limit, which datagram is evicted for the fragment that
// is one too many.
func TestWhoGivesWay(t *testing.T) {
	// A step puts n fragments of a datagram in, one after the other; with poison
	// they are followed by one that overlaps, with end by the last one. Many datagrams have one each.
	type step struct {
		src    packet.Addr
		id     uint16
		n      int
		many   int
		poison bool
		end    bool
	}
	for _, c := range []struct {
		name    string
		steps   []step // the last one's last fragment is one too many
		evicted Key    // zero: the new one itself, or none
		left    int    // datagrams
	}{
		{"of a source", []step{{1, 1, 40, 0, false, false}, {1, 2, 56, 0, false, false}, {1, 3, 1, 0, false, false}}, Key{Src: 1, ID: 1}, 2},
		{"of a source, when others hold more and are older", []step{{2, 1, 60, 0, false, false}, {1, 1, 40, 0, false, false}, {1, 2, 57, 0, false, false}}, Key{Src: 1, ID: 1}, 2},
		{"of a source, but for what is poisoned and holds nothing", []step{{1, 1, 3, 0, true, false}, {1, 2, 40, 0, false, false}, {1, 3, 57, 0, false, false}}, Key{Src: 1, ID: 2}, 2},
		{"of a source, the new one when it is the oldest", []step{{1, 1, 40, 0, false, false}, {1, 2, 56, 0, false, false}, {1, 1, 41, 0, false, false}}, Key{Src: 1, ID: 1}, 1},
		{"of all, the oldest of who holds most", []step{{3, 1, 60, 0, false, false}, {2, 1, 40, 0, false, false}, {2, 2, 50, 0, false, false}, {4, 1, 50, 0, false, false}, {5, 1, 56, 0, false, false}, {5, 2, 1, 0, false, false}}, Key{Src: 2, ID: 1}, 5},
		{"of all, but for what is poisoned and holds nothing", []step{{2, 9, 3, 0, true, false}, {3, 1, 60, 0, false, false}, {2, 1, 40, 0, false, false}, {2, 2, 50, 0, false, false}, {4, 1, 50, 0, false, false}, {5, 1, 57, 0, false, false}}, Key{Src: 2, ID: 1}, 5},
		{"of all, but for the new one, though it is older", []step{{2, 1, 1, 0, false, false}, {2, 2, 60, 0, false, false}, {3, 1, 60, 0, false, false}, {4, 1, 60, 0, false, false}, {5, 1, 60, 0, false, false}, {2, 1, 17, 0, false, false}}, Key{Src: 2, ID: 2}, 4},
		{"of all, when the new one is all that who holds most has", []step{{9, 9, 3, 0, true, false}, {1, 1, 1, 0, false, false}, {2, 1, 63, 0, false, false}, {3, 1, 63, 0, false, false}, {4, 1, 63, 0, false, false}, {5, 1, 4, 0, false, false}, {1, 1, 64, 0, false, false}}, Key{Src: 2, ID: 1}, 5},
		{"of all, of who holds most, in the first slot", []step{{6, 1, 1, 0, false, false}, {3, 1, 60, 0, false, false}, {6, 1, 1, 0, false, true}, {2, 1, 50, 0, false, false}, {2, 2, 46, 0, false, false}, {4, 1, 60, 0, false, false}, {5, 1, 41, 0, false, false}}, Key{Src: 2, ID: 1}, 4},
		{"datagrams, the oldest of who has most", []step{{3, 1, 1, 0, false, false}, {2, 100, 0, 90, false, false}, {4, 100, 0, 37, false, false}, {5, 1, 1, 0, false, false}}, Key{Src: 2, ID: 100}, MaxDatagrams},
		{"datagrams, poisoned ones, too", []step{{3, 1, 1, 0, false, false}, {2, 1, 3, 0, true, false}, {2, 100, 0, 90, false, false}, {4, 100, 0, 36, false, false}, {5, 1, 1, 0, false, false}}, Key{Src: 2, ID: 1}, MaxDatagrams},
		{"datagrams, those of the new one's source", []step{{3, 1, 1, 0, false, false}, {2, 100, 0, 90, false, false}, {4, 100, 0, 37, false, false}, {2, 1, 1, 0, false, false}}, Key{Src: 2, ID: 100}, MaxDatagrams},
		{"none, at the limits", []step{{1, 1, 60, 0, false, false}, {1, 2, 36, 0, false, false}, {2, 1, 60, 0, false, false}, {2, 2, 36, 0, false, false}, {3, 1, 64, 0, false, false}}, Key{}, 5},
		{"no datagram, at the limit", []step{{2, 100, 0, 90, false, false}, {4, 100, 0, 38, false, false}}, Key{}, MaxDatagrams},
	} {
		p, now, last := newPair(t), int64(1), c.steps[len(c.steps)-1]
		first := map[Key]int{} // of each datagram, the next place
		one := func(k Key) {
			now++
			p.put(k, extent{uint16(8 * first[k]), 8}, true, now)
			first[k]++
		}
		for i, s := range c.steps {
			k, n := Key{Src: s.src, ID: s.id}, s.n
			if i == len(c.steps)-1 && s.many == 0 {
				n--
			}
			for first[k] < n {
				one(k)
			}
			for j := range s.many {
				one(Key{Src: s.src, ID: s.id + uint16(j)})
			}
			if s.end {
				now++
				if !p.put(k, extent{uint16(8 * n), 8}, false, now) {
					t.Fatalf("%s: not complete", c.name)
				}
			}
			if s.poison {
				now++
				p.put(k, extent{4, 16}, true, now)
			}
			p.same()
		}
		if _, _, all := p.m.count(); all != p.Held() || p.dropped != p.m.dropped {
			t.Fatalf("%s: %d held before, %d dropped", c.name, p.Held(), p.dropped)
		}
		if c.evicted != (Key{}) {
			if k := c.evicted.slot(); p.find(&k) < 0 {
				t.Errorf("%s: %+v is evicted too early", c.name, c.evicted)
			}
		}
		if last.many == 0 {
			one(Key{Src: last.src, ID: last.id})
		}
		p.same()
		if k := c.evicted.slot(); p.find(&k) >= 0 || p.Len() != c.left {
			t.Errorf("%s: %d datagrams, want %d without %+v", c.name, p.Len(), c.left, c.evicted)
		}
	}
}
