package neigh

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/thurward/thurward/internal/guest/framebuf"
	"github.com/thurward/thurward/internal/shared/packet"
)

// A known is what the model has of a neighbour.
type known struct {
	state   State
	mac     [6]byte
	learned bool
	tries   uint8
	expires int64
	frames  []waiting
}

type waiting struct {
	id    int
	group uint16
}

// A model is a neighbour cache with maps, as it is said to be, for addresses that
// do not evict each other.
type model struct {
	of   map[packet.Addr]*known
	room int
}

// by counts the frames that wait, by group of holders.
func (m *model) by() (by map[uint16]int, all int) {
	by = map[uint16]int{}
	for _, k := range m.of {
		for _, f := range k.frames {
			by[f.group]++
			all++
		}
	}
	return by, all
}

// most returns the first group, of those that are among, that has most frames,
// and g if none has more than that.
func most(by map[uint16]int, g uint16, among []uint16) uint16 {
	for _, k := range among {
		if by[k] > by[g] {
			g = k
		}
	}
	return g
}

// oldest removes the first frame of a group that waits for k.
func (k *known) oldest(g uint16) (id int, ok bool) {
	i := slices.IndexFunc(k.frames, func(f waiting) bool { return f.group == g })
	if i < 0 {
		return 0, false
	}
	id = k.frames[i].id
	k.frames = slices.Delete(k.frames, i, i+1)
	return id, true
}

// resolve keeps a frame, and returns the frames that give way and whether the
// address is to be asked for. The hops are in the order in which the cache has
// them.
func (m *model) resolve(hop packet.Addr, f waiting, hops []packet.Addr, now int64) (drop []int, request bool) {
	k := m.of[hop]
	if k == nil {
		k = &known{state: Incomplete, tries: 1, expires: now + RequestEvery}
		m.of[hop] = k
		request = true
	}
	fits := true
	give := func(k *known, g uint16) bool {
		id, ok := k.oldest(g)
		if ok {
			drop = append(drop, id)
		}
		return ok
	}
	if by, all := m.by(); all >= m.room {
		var groups []uint16
		for g := range by {
			groups = append(groups, g)
		}
		slices.Sort(groups)
		if g := most(by, f.group, groups); g == f.group {
			fits = give(k, g)
		} else {
			fits = slices.ContainsFunc(hops, func(a packet.Addr) bool { return m.of[a] != nil && give(m.of[a], g) })
		}
	}
	if fits && hop != gateway && len(k.frames) >= MaxPerHop {
		by, _ := m.by()
		var groups []uint16
		for _, f := range k.frames {
			groups = append(groups, f.group)
		}
		fits = give(k, most(by, f.group, groups))
	}
	if !fits {
		return append(drop, f.id), request
	}
	k.frames = append(k.frames, f)
	return drop, request
}

// runsMeet reports whether addresses have slots in common: then one may be evicted
// for another.
func runsMeet(key uint64, as []packet.Addr) bool {
	c, seen := &Cache{key: key}, map[uint32]bool{}
	for _, a := range as {
		for i := range uint32(window) {
			at := (c.base(a) + i) % MaxEntries
			if seen[at] {
				return true
			}
			seen[at] = true
		}
	}
	return false
}

var modelBuffers = make([]byte, 300*framebuf.Size)

// TestCacheModel compares a cache with the model: frames of few holders for few
// hops, requests and answers of these with the link-layer address that they have
// or another, and time going on, in any order.
func TestCacheModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		pool := framebuf.NewPool(modelBuffers, 0)
		links := framebuf.NewLinks(pool)[:4*rapid.SampledFrom([]int{5, 12, 72}).Draw(t, "room")]
		hops := []packet.Addr{gateway, gateway + 1, gateway + 2, gateway + 3, gateway + 77}
		key := rapid.Uint64().Draw(t, "key")
		for runsMeet(key, hops) {
			key = key*6364136223846793005 + 1442695040888963407
		}
		b := &bench{New(key, gateway, links, len(links)), t, framebuf.NewPool(modelBuffers[:len(links)*framebuf.Size], 0)}
		m := &model{map[packet.Addr]*known{}, len(links) / 4}
		now, id := 1000*second, 100
		who := rapid.SampledFrom(hops)
		steps := rapid.SampledFrom([]int64{1, second / 3, second - 1, second, 59 * second, 60 * second})
		// inOrder returns the hops in the order of their slots.
		inOrder := func() (in []packet.Addr) {
			for i := range b.slot {
				if n := &b.slot[i]; n.State != free {
					in = append(in, n.Addr)
				}
			}
			return in
		}
		send := func(t *rapid.T, hop packet.Addr, holder uint64) {
			k := m.of[hop]
			n, probe := b.Use(hop, now)
			stale := k != nil && k.state == Reachable && now >= k.expires
			if (n != nil) != (k != nil && k.state != Incomplete) || probe != stale || n != nil && n.MAC != k.mac {
				t.Fatalf("%v is %+v, want %+v; probe: %v", hop, n, k, probe)
			}
			if stale {
				k.state, k.tries, k.expires = Probe, 1, now+RequestEvery
			}
			if n != nil {
				return
			}
			id++
			r := b.Resolve(hop, b.frame(id), holder, now)
			drop, request := m.resolve(hop, waiting{id, b.group(holder)}, inOrder(), now)
			if got := b.taken(r.Drop); !slices.Equal(got, drop) || r.Request != request || r.Evicted {
				t.Fatalf("a frame for %v: %v dropped, want %v; request: %v, want %v", hop, got, drop, r.Request, request)
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"send": func(t *rapid.T) {
				hop, holder := who.Draw(t, "hop"), rapid.Uint64Range(1, 4).Draw(t, "holder")
				for range rapid.SampledFrom([]int{1, 3, 40}).Draw(t, "frames") {
					send(t, hop, holder)
				}
			},
			"mix": func(t *rapid.T) {
				for range 30 {
					send(t, who.Draw(t, "hop"), rapid.Uint64Range(1, 4).Draw(t, "holder"))
				}
			},
			"hear": func(t *rapid.T) {
				a, answer := who.Draw(t, "sender"), rapid.Bool().Draw(t, "answer")
				mac := macOf(a)
				mac[1] = rapid.SampledFrom([]byte{9, 9, 9, 6}).Draw(t, "link-layer address")
				k := m.of[a]
				conflict := k != nil && k.state != Incomplete && k.mac != mac && (k.state == Probe || now < k.expires || a == gateway)
				n, probe := b.Conflict(a, mac, now)
				if (n != nil) != conflict || probe != (conflict && k.state == Reachable) {
					t.Fatalf("%v with %x: conflict with %+v, want %+v; probe: %v", a, mac, n, k, probe)
				}
				if conflict {
					if probe {
						k.state, k.tries, k.expires = Probe, 1, now+RequestEvery
					}
					return
				}
				l := b.Learn(a, mac, answer, now)
				asked := k != nil && k.state != Reachable
				var want []int
				if asked && (answer || a != gateway || k.state == Probe) || !asked && !answer && (a != gateway || k != nil) {
					if k == nil {
						k = &known{learned: true}
						m.of[a] = k
					}
					if asked {
						k.learned = !answer
					}
					for _, f := range k.frames {
						want = append(want, f.id)
					}
					*k = known{state: Reachable, mac: mac, learned: k.learned, expires: now + Lifetime}
				}
				if got := b.taken(l.Send); !slices.Equal(got, want) || l.Evicted {
					t.Fatalf("%v known, %v leave, want %v", a, got, want)
				}
			},
			"wait": func(t *rapid.T) {
				now += steps.Draw(t, "time")
				seen := map[packet.Addr]bool{}
				for x, ok := b.Timeout(now); ok; x, ok = b.Timeout(now) {
					k := m.of[x.Addr]
					if k == nil || seen[x.Addr] || k.state == Reachable || now < k.expires || x.Request != (k.tries < MaxRequests) {
						t.Fatalf("%+v of %+v", x, k)
					}
					seen[x.Addr] = true
					var want []int
					if k.tries, k.expires = k.tries+1, now+RequestEvery; !x.Request {
						for _, f := range k.frames {
							want = append(want, f.id)
						}
						delete(m.of, x.Addr)
					}
					if got := b.taken(x.Drop); !slices.Equal(got, want) {
						t.Fatalf("%v dropped with %v, want %v", got, x.Addr, want)
					}
				}
				for a, k := range m.of {
					if k.state != Reachable && now >= k.expires {
						t.Fatalf("%v has been overlooked: %+v", a, k)
					}
				}
			},
			"": func(t *rapid.T) {
				b.check()
				if b.Len() != len(m.of) {
					t.Fatalf("%d entries, want %d", b.Len(), len(m.of))
				}
				for a, k := range m.of {
					n := b.Find(a)
					if n == nil || n.Addr != a || n.State != k.state || n.MAC != k.mac || n.Learned != k.learned || n.tries != k.tries || n.Expires != k.expires {
						t.Fatalf("%+v, want %+v", n, k)
					}
					var want []int
					for _, f := range k.frames {
						want = append(want, f.id)
					}
					if got := b.waitingFor(n); !slices.Equal(got, want) || n.Waiting() != len(want) {
						t.Fatalf("%v wait for %v, want %v", got, a, want)
					}
				}
			},
		})
	})
}
