package dnsproxy

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/miekg/dns"

	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

func (b *bench) askAs(a packet.Addr, name string) {
	b.t.Helper()
	b.p.Query(&Client{Addr: a, Port: 4000, Server: 1}, pack(b.t, query(name, dns.TypeA)), b.now)
}

// tick lets time pass in steps of 50 ms.
func (b *bench) tick(d int64) {
	for end := b.now + d; b.now < end; {
		b.now += second / 20
		b.p.Tick(b.now)
	}
}

// TestLargestOwnerGivesWay: clients that use all queries give way to one with none,
// with their oldest query first.
func TestLargestHolderGivesWay(t *testing.T) {
	b := newBench(t, nil)
	const victim = client1
	for i := range 1100 {
		b.askAs(0x0a010000+packet.Addr(i%11), fmt.Sprintf("f%d.example", i))
		b.now += second / 10000
	}
	b.got, b.done = nil, nil
	for i := range 50 { // more than one, and while the flood goes on
		b.askAs(victim, fmt.Sprintf("v%d.example", i))
		s, up := b.last()
		if up.Question[0].Name == "" || be16(s.msg) != up.Id || len(b.sent) == 0 {
			t.Fatal("no upstream was asked")
		}
		b.askAs(0x0a010000+packet.Addr(i%11), fmt.Sprintf("g%d.example", i))
		n := len(b.got)
		b.p.UDPResponse(s.to, s.toPort, s.myPort, pack(t, reply(t, up, "@ 60 IN A 192.0.2.1")), b.now)
		if len(b.got) != n+1 || unpack(t, b.got[n]).Rcode != dns.RcodeSuccess {
			t.Fatalf("query %d of the client with none: %d answers", i, len(b.got)-n)
		}
	}
	for i, d := range b.done {
		switch {
		case d.Client.Addr == victim && d.Outcome != verdict.DNSAnswered, d.Client.Addr != victim && d.Outcome != verdict.DNSOverload:
			t.Fatalf("end %d: %+v", i, d)
		}
	}
	// Each preempted query has a result.
	for i, raw := range b.got {
		if m := unpack(t, raw); m.Rcode != dns.RcodeSuccess && m.Rcode != dns.RcodeServerFailure {
			t.Fatalf("answer %d: %v", i, m)
		}
	}
	b.finishAll()
}

// TestOldestGivesWayFirst: of the client with the most queries the oldest ends with
// SERVFAIL, and no other.
func TestOldestGivesWayFirst(t *testing.T) {
	b := newBench(t, nil)
	for i := 0; b.p.n < b.p.clientRoom; i++ {
		a := packet.Addr(0x0a010000 + i%20)
		if i < maxPerClient {
			a = 0x0a020000
		}
		b.askAs(a, fmt.Sprintf("f%d.example", i))
	}
	b.done = nil
	for i := range 20 {
		b.askAs(client1, "v.example")
		if d := b.done[len(b.done)-1]; len(b.done) != i+1 || d.Client.Addr != 0x0a020000 || d.Outcome != verdict.DNSOverload || string(d.Name) != string(wire(fmt.Sprintf("f%d.example", i))) {
			t.Fatalf("%d: %d ends, the last %q of %x, %v", i, len(b.done), d.Name, d.Client.Addr, d.Outcome)
		}
	}
	b.finishAll()
}

func wire(name string) []byte {
	b := make([]byte, 300)
	n, err := dns.PackDomainName(dns.Fqdn(name), b, 0, nil, false)
	if err != nil {
		panic(err)
	}
	return b[:n]
}

// TestOwnShare: a client at its limit gets no further queries while its pending ones
// are recent; those older than a try are replaced.
func TestOwnShare(t *testing.T) {
	b := newBench(t, nil)
	for i := range maxPerClient {
		b.askAs(client1, fmt.Sprintf("a%d.example", i))
	}
	b.askAs(client1, "b.example")
	if d := b.done[0]; len(b.done) != 1 || string(d.Name) != string(wire("b.example")) || d.Outcome != verdict.DNSOverload {
		t.Fatalf("%d ends, %q: %v", len(b.done), d.Name, d.Outcome)
	}
	b.now += tryTimeout
	b.askAs(client1, "c.example")
	if d := b.done[1]; len(b.done) != 2 || string(d.Name) != string(wire("a0.example")) || d.Outcome != verdict.DNSOverload || b.p.Outstanding() != maxPerClient {
		t.Fatalf("%d ends, %q: %v", len(b.done), d.Name, d.Outcome)
	}
	b.finishAll()
}

// TestNoChurn: clients that share all queries keep their pending ones, however many
// more they send, so that a slow upstream is still of use.
func TestNoChurn(t *testing.T) {
	b := newBench(t, nil)
	for i := range 20000 {
		b.askAs(0x0a010000+packet.Addr(b.rnd.IntN(11)), fmt.Sprintf("f%d.example", i))
	}
	first := b.sent[:b.p.clientRoom]
	b.got = nil
	for _, s := range first {
		b.p.UDPResponse(s.to, s.toPort, s.myPort, pack(t, reply(t, unpack(t, s.msg), "@ 60 IN A 192.0.2.1")), b.now)
	}
	if len(b.got) < b.p.clientRoom*3/4 {
		t.Fatalf("%d of %d queries were still under way", len(b.got), b.p.clientRoom)
	}
	b.finishAll()
}

// TestAllPendingWhileAnUpstreamIsDown: the first upstream is down and all queries
// are in use. A client with none is served at once, and the first upstream is used
// again when it is up.
func TestAllPendingWhileAnUpstreamIsDown(t *testing.T) {
	b := newBench(t, func(p *ruleset.Policy) {
		p.Upstreams = append(p.Upstreams, ruleset.Upstream{Address: up2Addr.To16(), Port: 53})
	})
	asked, seen := 0, 0
	flood := func() {
		for range 1200 {
			asked++
			b.askAs(0x0a010000+packet.Addr(asked%12), fmt.Sprintf("f%d.example", asked))
		}
		if full := b.p.n >= b.p.clientRoom; !full && asked > 5*1200 {
			t.Fatalf("%d queries under way", b.p.n)
		}
	}
	serve := func(back bool) (victim int) {
		for ; seen < len(b.sent); seen++ {
			s := b.sent[seen]
			q := unpack(t, s.msg)
			mine := q.Question[0].Name[0]|0x20 == 'v'
			if !mine && q.Id%2 == 0 || s.to == upAddr && !back {
				continue
			}
			if b.p.UDPResponse(s.to, s.toPort, s.myPort, pack(t, reply(t, q, "@ 60 IN A 192.0.2.1")), b.now); mine {
				victim++
			}
		}
		return victim
	}
	for range 50 {
		flood()
		serve(false)
		b.tick(second / 20)
	}
	if !b.p.up[0].down() {
		t.Fatal("the first upstream is not known to be down")
	}
	for i := range 40 {
		flood()
		if b.askAs(client1, fmt.Sprintf("v%d.example", i)); serve(false) != 1 {
			t.Fatalf("query %d of the second client was not answered", i)
		}
		b.tick(second / 20)
	}
	for range 30 { // a second and a half
		flood()
		serve(true)
		b.tick(second / 20)
	}
	if b.p.up[0].down() {
		t.Fatal("the first upstream is back, and nobody has noticed")
	}
	b.finishAll()
}

// TestOwners compares the table of owners with a plain count of the queries.
func TestHolders(t *testing.T) {
	b := newBench(t, nil)
	r := rand.New(rand.NewPCG(3, 4))
	for step := range 30000 {
		clients := []int{3, 12, 300, 5000}[step/2000%4]
		if r.IntN(100) < 70 {
			b.askAs(0x0a000000+packet.Addr(r.IntN(clients)), "a.example")
		} else if b.p.n > 0 {
			i := b.p.active.first
			for range r.IntN(min(b.p.n, 50)) {
				i = b.p.queries[i-1].next
			}
			b.p.fail(i, rcodeServFail, verdict.DNSTimeout, b.now)
		}
		b.got, b.done, b.sent = nil, nil, nil
		b.now += second / 1000
		if step%100 != 0 {
			continue
		}
		counts := map[packet.Addr][]uint16{}
		for i := b.p.active.first; i != 0; i = b.p.queries[i-1].next {
			a := b.p.queries[i-1].client.Addr
			counts[a] = append(counts[a], i)
		}
		most := 0
		for a, qs := range counts {
			most = max(most, len(qs))
			if n := b.p.owners.count(a); n != len(qs) || b.p.owners.oldest(a) != qs[0] {
				t.Fatalf("step %d: %x has %d queries, counted %d", step, a, len(qs), n)
			}
		}
		used := 0
		for _, s := range b.p.owners.slot {
			if s != 0 {
				used++
			}
		}
		if l := b.p.owners.oldestOfLargest(); used != len(counts) || b.p.owners.most != most || most > 0 && (len(counts[b.p.queries[l-1].client.Addr]) != most || !slices.Contains(counts[b.p.queries[l-1].client.Addr], l)) {
			t.Fatalf("step %d: the largest has %d, noted %d; %d clients in %d slots", step, most, b.p.owners.most, len(counts), used)
		}
		if b.p.n > b.p.clientRoom || most > maxPerClient {
			t.Fatalf("step %d: %d queries, %d of one", step, b.p.n, most)
		}
	}
	b.finishAll()
}

// TestTCPToUpstreamsIsShared: one client causes as many queries over TCP as it can,
// without responses. Truncated responses for another client are still fetched;
// preempted queries are cancelled, and are no failures of the upstream.
func TestTCPToUpstreamsIsShared(t *testing.T) {
	b := newBench(t, nil)
	truncated := func(a packet.Addr, name string) {
		b.askAs(a, name)
		s, up := b.last()
		r := reply(t, up)
		r.Truncated = true
		b.p.UDPResponse(s.to, s.toPort, s.myPort, pack(t, r), b.now)
	}
	for i := range 60 {
		truncated(0x0a010000, fmt.Sprintf("f%d.example", i))
	}
	if len(b.tcp) != maxTCP || len(b.dropped) != 0 || len(b.done) != 60-maxTCP {
		t.Fatalf("%d over TCP, %d dropped, %d ends", len(b.tcp), len(b.dropped), len(b.done))
	}
	b.done = nil
	for i := range 5 {
		truncated(client1, fmt.Sprintf("v%d.example", i))
		if len(b.tcp) != maxTCP+i+1 || len(b.dropped) != i+1 || b.dropped[i] != b.tcp[i].tag || b.done[i].Client.Addr != 0x0a010000 || b.done[i].Outcome != verdict.DNSOverload {
			t.Fatalf("query %d: %d over TCP, dropped %v, ends %+v", i, len(b.tcp), b.dropped, b.done)
		}
	}
	for i := range 5 {
		s := b.tcp[maxTCP+i]
		if b.p.TCPResponse(s.tag, pack(t, reply(t, unpack(t, s.msg), "@ 60 IN A 192.0.2.1")), b.now); b.done[5+i].Client.Addr != client1 || b.done[5+i].Outcome != verdict.DNSAnswered {
			t.Fatalf("answer %d: %+v", i, b.done[5+i])
		}
	}
	// Queries over TCP without a response end, and so do their connections.
	b.finishAll()
	if b.p.tcp != 0 || len(b.dropped) != maxTCP {
		t.Fatalf("%d over TCP, %d dropped", b.p.tcp, len(b.dropped))
	}
	// No place for a connection is no failure of the upstream.
	b.p.up[0].failures, b.noTCP = 0, true
	for i := range 5 {
		truncated(client1, fmt.Sprintf("w%d.example", i))
	}
	if d := b.done[len(b.done)-1]; b.p.up[0].failures != 0 || b.p.Outstanding() != 0 || d.Outcome != verdict.DNSOverload {
		t.Fatalf("%d failures, %d under way, %v", b.p.up[0].failures, b.p.Outstanding(), d.Outcome)
	}
}

// TestOwnersHash: addresses that follow each other are spread over the slots, with any
// key.
func TestOwnersHash(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for range 50 {
		var hs owners
		hs.init(r.Uint64())
		slots := map[int]bool{}
		for i := range packet.Addr(1000) {
			slots[hs.home(client1+i)] = true
		}
		if len(slots) < 400 {
			t.Errorf("key %x: 1000 addresses have %d slots", hs.key, len(slots))
		}
	}
}

// TestOwnersAtTheEnd: clients whose probe sequences cross the end of the table are
// found, in whatever order others come and go.
func TestOwnersAtTheEnd(t *testing.T) {
	b := newBench(t, nil)
	p := b.p
	var addrs []packet.Addr
	for a := client1; len(addrs) < 40; a++ {
		if h := p.owners.home(a); h >= ownerSlots-3 || h < 2 {
			addrs = append(addrs, a)
		}
	}
	r := rand.New(rand.NewPCG(7, 8))
	used := map[uint16]packet.Addr{}
	want := map[packet.Addr]int{}
	for range 20000 {
		i := uint16(1 + r.IntN(60))
		if a, ok := used[i]; ok {
			p.removeOwned(i)
			delete(used, i)
			want[a]--
		} else {
			a := addrs[r.IntN(len(addrs))]
			p.queries[i-1].client.Addr = a
			p.addOwned(i)
			used[i] = a
			want[a]++
		}
		most := 0
		for _, a := range addrs {
			if most = max(most, want[a]); p.owners.count(a) != want[a] {
				t.Fatalf("%x has %d queries, want %d", a, p.owners.count(a), want[a])
			}
		}
		if p.owners.most != most {
			t.Fatalf("at most %d, want %d", p.owners.most, most)
		}
	}
}
