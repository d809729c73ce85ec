package dnsproxy

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/miekg/dns"

	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// TestActiveList: queries are allocated and released in any order, up to all of
// them. The active list is in the order of allocation, and tags differ each time.
func TestActiveList(t *testing.T) {
	b := newBench(t, nil)
	r := rand.New(rand.NewPCG(5, 6))
	var order []uint16
	tags := map[uint32]bool{}
	for step := range 12000 {
		if most := []int{maxPending + 9, 0}[step/3000%2]; len(order) < most && r.IntN(4) > 0 {
			q := b.p.alloc()
			if (q == nil) != (len(order) == maxPending) {
				t.Fatalf("step %d: with %d taken: %v", step, len(order), q != nil)
			}
			if q == nil {
				continue
			}
			i := b.p.active.last
			if q != &b.p.queries[i-1] || !q.active || q.next != 0 || q.tries != 0 || q.nameLen != 0 || tags[b.p.tag(i)] {
				t.Fatalf("step %d: place %d: %+v", step, i, q)
			}
			tags[b.p.tag(i)] = true
			q.client.Addr, q.probe, q.nameLen = packet.Addr(len(order)), r.IntN(2) == 0, 7
			if q.probe {
				b.p.probes++
			} else {
				b.p.addOwned(i)
			}
			order = append(order, i)
		} else if len(order) > 0 {
			k := r.IntN(len(order))
			b.p.release(order[k])
			order = append(order[:k], order[k+1:]...)
		}
		if b.p.Outstanding() != len(order) {
			t.Fatalf("step %d: %d, want %d", step, b.p.Outstanding(), len(order))
		}
		if step%50 != 0 {
			continue
		}
		k, before := 0, uint16(0)
		for i := b.p.active.first; i != 0; i = b.p.queries[i-1].next {
			if order[k] != i || b.p.queries[i-1].prev != before {
				t.Fatalf("step %d: %d in place %d of the list, want %d behind %d", step, i, k, order[k], before)
			}
			k, before = k+1, i
		}
		if k != len(order) || b.p.active.last != before {
			t.Fatalf("step %d: %d in the list, want %d", step, k, len(order))
		}
	}
}

// TestRates: a client may send so many queries within a second from its first, and
// as many in the next; others have their own rate.
func TestRates(t *testing.T) {
	b := newBench(t, func(p *ruleset.Policy) { p.Settings.DNSRate = 5 })
	if b.p.rate != 5 {
		t.Fatalf("a rate of %d", b.p.rate)
	}
	start := b.now
	for _, c := range []struct {
		at   int64
		addr packet.Addr
		want int // of 7
	}{{0, 1, 5}, {second - 1, 1, 0}, {second - 1, 2, 5}, {second, 1, 5}, {second, 2, 0}, {2*second - 2, 2, 0}, {2*second - 1, 2, 5}, {9 * second, 1, 5}} {
		got := 0
		for range 7 {
			if b.p.withinRate(b.p.rateOf(c.addr), start+c.at) {
				got++
			}
		}
		if got != c.want {
			t.Errorf("client %d after %d ms: %d of 7, want %d", c.addr, c.at/1e6, got, c.want)
		}
	}
	if p := newBench(t, func(p *ruleset.Policy) { p.Settings.DNSRate = 0 }).p; p.rate != ruleset.DefaultDNSRate {
		t.Errorf("by default %d", p.rate)
	}
}

// TestClientTable: with more clients than entries, the entry of the same hash whose
// second began first is replaced; other counts do not change.
func TestClientTable(t *testing.T) {
	b := newBench(t, func(p *ruleset.Policy) { p.Settings.DNSRate = 3 })
	home := func(a packet.Addr) uint32 { return uint32(a) * 0x9e3779b1 >> 8 % clientSlots }
	var near []packet.Addr // with the same first place
	for a := packet.Addr(1); len(near) <= clientWindow; a++ {
		if home(a) == home(1) {
			near = append(near, a)
		}
	}
	for i, a := range near[:clientWindow] {
		b.p.withinRate(b.p.rateOf(a), b.now+int64(clientWindow-i)) // the last one's second began first
	}
	for i, a := range near[:clientWindow] {
		if c := b.p.rateOf(a); c.n != 1 || c.since != b.now+int64(clientWindow-i) {
			t.Fatalf("client %d: %+v", i, *c)
		}
	}
	c := b.p.rateOf(near[clientWindow])
	if c.n != 0 || c.since != -second || c.addr != near[clientWindow] {
		t.Fatalf("the new one: %+v", *c)
	}
	if !b.p.withinRate(c, 0) { // whatever the time
		t.Fatal("the new one may not ask")
	}
	for i, a := range near[:clientWindow-1] {
		if c := b.p.rateOf(a); c.n != 1 {
			t.Fatalf("client %d has given way: %+v", i, *c)
		}
	}
	// Beside the end of the table, it goes on at its beginning.
	var last packet.Addr
	for a := packet.Addr(1); last == 0; a++ {
		if home(a) == clientSlots-1 {
			last = a
		}
	}
	b.p.rates = make([]rateEntry, clientSlots)
	for i := range b.p.rates {
		b.p.rates[i] = rateEntry{addr: 0xffffffff, since: 100}
	}
	b.p.rates[clientWindow-2].since = 99
	if got := b.p.rateOf(last); got != &b.p.rates[clientWindow-2] {
		t.Fatalf("a place at %+v", *got)
	}
	b.p.rates[clientWindow-1].since = 98 // beyond those that are looked at
	b.p.rates[clientWindow-3].since = 98
	if got := b.p.rateOf(last); got != &b.p.rates[clientWindow-2] {
		t.Fatalf("it has moved to %+v", *got)
	}
}

// TestPreemptTCP compares preemptTCP with a plain description: the oldest query of
// the client with the most, counting the new one; if that is the new one's client,
// or none has more, its own oldest, if it has waited for longer than a try.
func TestPreemptTCP(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	gave, kept := 0, 0
	for round := range 120 {
		b := newBench(t, nil)
		var addr []packet.Addr
		for range maxTCP {
			a := packet.Addr(0x0a010000 + r.IntN(1+round%9))
			b.askAs(a, "a.example")
			if r.IntN(3) == 0 {
				b.askAs(a+9, "udp.example") // over UDP: it does not count
				b.sent = b.sent[:len(b.sent)-1]
			}
			s, up := b.last()
			m := reply(t, up)
			m.Truncated = true
			b.p.UDPResponse(s.to, s.toPort, s.myPort, pack(t, m), b.now)
			addr = append(addr, a)
			b.now += 1e6
		}
		first := b.now - maxTCP*1e6
		if round%2 == 0 {
			b.now = first + tryTimeout - 3e6 + int64(r.IntN(10))*1e6
		}
		who := packet.Addr(0x0a010000 + r.IntN(1+round%9) + r.IntN(2)*8)
		count := map[packet.Addr]int{}
		most := 0
		for _, a := range addr {
			count[a]++
			most = max(most, count[a])
		}
		out := -1
		own := count[who] > 0 && count[who]+1 >= most
		for k, a := range addr {
			if out < 0 && (own && a == who || !own && count[a] == most) {
				out = k
			}
		}
		gives := !own || b.now-(first+int64(out)*1e6) >= tryTimeout
		b.done, b.dropped = nil, nil
		if got := b.p.preemptTCP(who, b.now); got != gives {
			t.Fatalf("round %d: %x of %v gets a place: %v", round, who, count, got)
		}
		if !gives {
			kept++
			if len(b.done) != 0 || b.p.tcp != maxTCP {
				t.Fatalf("round %d: %+v", round, b.done)
			}
			continue
		}
		gave++
		if d := b.done[0]; len(b.done) != 1 || d.Client.Addr != addr[out] || d.Outcome != verdict.DNSOverload || b.p.tcp != maxTCP-1 || len(b.dropped) != 1 || b.dropped[0] != b.tcp[out].tag {
			t.Fatalf("round %d: %+v gave way, dropped %x; want that of %x", round, b.done, b.dropped, addr[out])
		}
	}
	if gave < 15 || kept < 15 {
		t.Fatalf("%d gave way, %d did not", gave, kept)
	}
}

// TestOwnOldestGivesWay: a client at its limit loses its oldest query when that has
// waited for a try, to the nanosecond.
func TestOwnOldestGivesWay(t *testing.T) {
	for _, late := range []int64{tryTimeout - 1, tryTimeout} {
		b := newBench(t, nil)
		for i := range maxPerClient {
			b.askAs(client1, fmt.Sprintf("a%d.example", i))
			if b.now++; b.p.Outstanding() != i+1 {
				t.Fatalf("%d of %d under way", b.p.Outstanding(), i+1)
			}
		}
		b.now += late - maxPerClient
		b.askAs(client1, "new.example")
		want := "new.example"
		if late == tryTimeout {
			want = "a0.example"
		}
		if len(b.done) != 1 || string(b.done[0].Name) != string(wire(want)) || b.done[0].Outcome != verdict.DNSOverload || b.p.Outstanding() != maxPerClient {
			t.Errorf("after %d: %+v, want %s", late, b.done, want)
		}
	}
}

// TestNoOwners: without queries there is no oldest one, and no largest owner.
func TestNoOwners(t *testing.T) {
	b := newBench(t, nil)
	hs := &b.p.owners
	if hs.oldestOfLargest() != 0 || hs.oldest(client1) != 0 || hs.count(client1) != 0 {
		t.Fatal("with no queries at all")
	}
	b.askAs(client1, "a.example")
	if i := b.p.active.first; hs.oldestOfLargest() != i || hs.oldest(client1) != i || hs.count(client1) != 1 || hs.oldest(client1+1) != 0 || hs.count(client1+1) != 0 {
		t.Fatal("with one query")
	}
	b.finishAll()
	if hs.oldestOfLargest() != 0 || hs.oldest(client1) != 0 || hs.count(client1) != 0 {
		t.Fatal("with no queries any more")
	}
}

// TestNoPort: a query fails if there is no port or the port is in use already, and
// the port is freed.
func TestNoPort(t *testing.T) {
	b := newBench(t, nil)
	tr := &portless{bench: b}
	b.p.cfg.Transport = tr
	b.ask(query("a.example", dns.TypeA))
	if len(b.got) != 1 || unpack(t, b.got[0]).Rcode != dns.RcodeServerFailure || b.done[0].Outcome != verdict.DNSOverload || b.p.Outstanding() != 0 || len(tr.gave) != 0 || b.p.up[0].failures != 0 || b.p.c.Asked != 0 {
		t.Fatalf("%d answers, %+v, gave %v", len(b.got), b.done, tr.gave)
	}
	tr.port = 4242
	b.ask(query("a.example", dns.TypeA))
	b.ask(query("b.example", dns.TypeA)) // gets the same one
	if len(b.got) != 2 || b.p.Outstanding() != 1 || len(tr.gave) != 1 || !b.p.OwnsPort(4242) {
		t.Fatalf("%d answers, %d under way, gave %v", len(b.got), b.p.Outstanding(), tr.gave)
	}
	if d := b.done[1]; string(d.Name) != string(wire("b.example")) || d.Outcome != verdict.DNSOverload {
		t.Fatalf("%+v", d)
	}
	s := b.sent[0]
	b.p.UDPResponse(s.to, s.toPort, s.myPort, answerTo(s.msg), b.now)
	if len(b.got) != 3 || b.p.OwnsPort(4242) || len(tr.gave) != 2 {
		t.Fatalf("%d answers, gave %v", len(b.got), tr.gave)
	}
}

// A portless is a transport with one port, or none.
type portless struct {
	*bench
	port uint16
	gave []uint16
}

func (p *portless) AllocPort() (uint16, bool) { return p.port, p.port != 0 }
func (p *portless) FreePort(port uint16)      { p.gave = append(p.gave, port) }

// TestNewRefuses: policies for which New returns an error.
func TestNewRefuses(t *testing.T) {
	six := ruleset.Addr{0x20, 1}
	good := ruleset.Upstream{Address: upAddr.To16(), Port: 53}
	bad := func(set func(*ruleset.Policy, ruleset.Name)) *ruleset.Policy {
		p := &ruleset.Policy{Upstreams: []ruleset.Upstream{good}}
		set(p, name(p, "a..b"))
		return p
	}
	for what, c := range map[string]struct {
		p    *ruleset.Policy
		want string
	}{
		"no upstream":                 {&ruleset.Policy{}, "dnsproxy: the policy has no upstream"},
		"an upstream of IPv6":         {&ruleset.Policy{Upstreams: []ruleset.Upstream{good, {Address: six}}}, "dnsproxy: the address of an upstream is not IPv4"},
		"a resolver of IPv6":          {&ruleset.Policy{Upstreams: []ruleset.Upstream{good}, Resolvers: []ruleset.Resolver{{Address: six}}}, "dnsproxy: the address of a resolver is not IPv4"},
		"one good upstream":           {&ruleset.Policy{Upstreams: []ruleset.Upstream{good}}, ""},
		"with a good resolver":        {&ruleset.Policy{Upstreams: []ruleset.Upstream{good}, Resolvers: []ruleset.Resolver{{Address: resolver.To16()}}}, ""},
		"a blocked name that is none": {bad(func(p *ruleset.Policy, n ruleset.Name) { p.Blocked = []ruleset.Name{n} }), "fqdn: a..b is not a name"},
		"a private name that is none": {bad(func(p *ruleset.Policy, n ruleset.Name) { p.Private = []ruleset.Name{n} }), "fqdn: a..b is not a name"},
		"a name of a rule with sni that is none": {bad(func(p *ruleset.Policy, n ruleset.Name) {
			p.Names, p.Rules, p.Matches = []ruleset.Name{n}, []ruleset.Rule{{SNI: 1}}, []ruleset.Match{{Name: 1}}
		}), "fqdn: a..b is not a name"},
	} {
		p, err := New(Config{Policy: c.p, Transport: &silent{}})
		got := ""
		if err != nil {
			got = err.Error()
		}
		if got != c.want || (p == nil) != (c.want != "") {
			t.Errorf("%s: %q, want %q", what, got, c.want)
		}
		if p != nil && (p.cfg.MaxUDP != minUDP || p.clientRoom != maxPending-maxProbes || len(p.resolvers) != len(c.p.Resolvers)) {
			t.Errorf("%s: %d bytes, %d places, %d resolvers", what, p.cfg.MaxUDP, p.clientRoom, len(p.resolvers))
		}
	}
}

// TestSourceSets: which clients may use a name, with prefixes of all lengths, rules
// that accept and rules that do not, two rules and two clients.
func TestSourceSets(t *testing.T) {
	for bits := range 33 {
		mask := ^packet.Addr(0) << (32 - bits)
		const src = packet.Addr(0x0a141e28)
		var m16 ruleset.Addr
		for i := range m16 {
			m16[i] = 0xff
		}
		for i := range 4 {
			m16[12+i] = byte(mask >> (24 - 8*i))
		}
		b := newBench(t, func(p *ruleset.Policy) {
			p.Settings.Flags |= ruleset.FlagDNSFollow
			p.Rules = []ruleset.Rule{{Action: ruleset.Accept}}
			p.Matches = []ruleset.Match{
				{Name: 1, Action: ruleset.Deny}, {Action: ruleset.Accept}, // none of these lets a client use a name
				{Name: 1, Action: ruleset.Accept, Src: ruleset.Addr{0x20, 1}, SrcMask: ruleset.Addr{0xff, 0xff}},
				{Name: 2, Action: ruleset.Accept, Src: (src & mask).To16(), SrcMask: m16},
				{Name: 2, Action: ruleset.Accept, Src: packet.Addr(0xc0a80005).To16(), SrcMask: ruleset.Addr{0: 0xff, 1: 0xff, 2: 0xff, 3: 0xff, 4: 0xff, 5: 0xff, 6: 0xff, 7: 0xff, 8: 0xff, 9: 0xff, 10: 0xff, 11: 0xff, 12: 0xff, 13: 0xff, 14: 0xff, 15: 0xff}},
			}
		})
		for _, c := range []struct {
			addr packet.Addr
			name string
			want bool
		}{
			{src, "example.com", true}, {src, "a.example", false}, {src, "other.test", false},
			{src&mask | ^mask, "example.com", true}, {src & mask, "example.com", true},
			{0xc0a80005, "example.com", true}, {0xc0a80006, "example.com", bits == 0},
			{src&mask | ^mask + 1, "example.com", bits == 0 || (src&mask|^mask+1)&mask == src&mask}, {src&mask - 1, "example.com", bits == 0},
		} {
			n := len(b.sent)
			b.askAs(c.addr, c.name)
			if asked := len(b.sent) > n; asked != c.want {
				t.Errorf("/%d: %v may ask for %s: %v", bits, c.addr, c.name, asked)
			}
		}
	}
}
