package dnsproxy

import (
	"slices"
	"testing"

	"github.com/miekg/dns"

	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// TestWhichUpstream compares the upstream of a new query, the next, and that after
// an ICMP error with a plain description, for all combinations of up to four
// upstreams, with and without TLS, up and down, with different times of their last
// responses.
func TestWhichUpstream(t *testing.T) {
	failures := []uint8{0, downAfter - 1, downAfter, 255}
	for n := 1; n <= 4; n++ {
		b := overTLSBench(t, n, 0)
		p := b.p
		for c := range 1 << (3 * n) { // for each: TLS, two bits of failures
			for i := range p.up {
				p.up[i].tls, p.up[i].failures = c>>(3*i)&1 != 0, failures[c>>(3*i+1)&3]
				p.up[i].answered = int64(b.rnd.IntN(3))
			}
			tlsUp := false
			for _, u := range p.up {
				tlsUp = tlsUp || u.tls && u.failures < downAfter
			}
			may := func(i int) bool { return p.up[i].tls || !tlsUp }
			var works, rest []int
			for i := range p.up {
				switch {
				case !may(i):
				case p.up[i].failures < downAfter:
					works = append(works, i)
				default:
					rest = append(rest, i)
				}
				if p.usable(i) != may(i) {
					t.Fatalf("%d of %+v: usable %v", i, p.up, !may(i))
				}
			}
			first := -1
			if len(works) > 0 {
				first = works[0]
			} else {
				first = slices.MinFunc(rest, func(x, y int) int { return int(p.up[y].answered - p.up[x].answered) })
			}
			if got := int(p.firstUpstream()); got != first {
				t.Fatalf("%+v: first %d, want %d", p.up, got, first)
			}
			order := func(i int, list []int) []int { // those behind i first, i at the end
				return slices.SortedFunc(slices.Values(list), func(x, y int) int { return (x-i-1+n)%n - (y-i-1+n)%n })
			}
			for i := range n {
				next := append(order(i, works), order(i, rest)...)
				want := i
				if len(next) > 0 {
					want = next[0]
				}
				if got := int(p.nextUpstream(uint8(i))); got != want {
					t.Fatalf("%+v: after %d comes %d, want %d", p.up, i, got, want)
				}
				w := &pending{up: uint8(i), refused: b.rnd.Uint64()}
				next = slices.DeleteFunc(next, func(j int) bool { return j == i || w.refused>>j&1 != 0 })
				got, ok := p.nextNotRefused(w)
				if ok != (len(next) > 0) || ok && int(got) != next[0] {
					t.Fatalf("%+v: after %d and the refusals %b comes %d, %v; want %v", p.up, i, w.refused, got, ok, next)
				}
			}
		}
	}
}

func twoPlain(p *ruleset.Policy) {
	p.Upstreams = append(p.Upstreams, ruleset.Upstream{Address: up2Addr.To16(), Port: 5353})
}

// at runs Tick just before a time and at it, and returns how many queries were sent
// each time.
func (b *bench) at(now int64) (before, then int) {
	n := len(b.sent) + len(b.tcp) + len(b.tls) + len(b.got)
	b.now = now - 1
	b.p.Tick(b.now)
	before = len(b.sent) + len(b.tcp) + len(b.tls) + len(b.got) - n
	b.now = now
	b.p.Tick(b.now)
	return before, len(b.sent) + len(b.tcp) + len(b.tls) + len(b.got) - n - before
}

// TestDeadlines: Due returns the earliest time at which Tick has something to do;
// Tick does nothing before.
func TestDeadlines(t *testing.T) {
	b := newBench(t, twoPlain)
	if at, any := b.p.Due(); any || at != 0 {
		t.Fatalf("with nothing to do: %d, %v", at, any)
	}
	start := b.now
	due := func(want int64) {
		t.Helper()
		if at, any := b.p.Due(); !any || at != want {
			t.Fatalf("due at %d (%v), want %d", at-start, any, want-start)
		}
	}
	b.ask(query("a.example", dns.TypeA))
	due(start + tryTimeout)
	b.now = start + 100
	b.ask(query("b.example", dns.TypeA))
	due(start + tryTimeout) // the older one
	// The older one is answered: what is left is the other.
	s := b.sent[0]
	b.p.UDPResponse(s.to, s.toPort, s.myPort, pack(t, reply(t, unpack(t, s.msg))), b.now)
	due(start + 100 + tryTimeout)
	if before, then := b.at(start + 100 + tryTimeout); before != 0 || then != 1 {
		t.Fatalf("%d before, %d then", before, then)
	}
	if s := b.sent[2]; s.to != up2Addr || s.toPort != 5353 || s.myPort == b.sent[1].myPort {
		t.Fatalf("asked again: %+v", s)
	}
	due(start + 100 + 2*tryTimeout)
	// Over TCP it waits until nobody waits for the answer any more: the younger is
	// due first, although it comes later in the list.
	s, up := b.last()
	r := reply(t, up)
	r.Truncated = true
	b.p.UDPResponse(s.to, s.toPort, s.myPort, pack(t, r), b.now)
	due(start + 100 + queryTimeout)
	b.ask(query("c.example", dns.TypeA))
	due(b.now + tryTimeout)
	s, up = b.last()
	b.p.UDPResponse(s.to, s.toPort, s.myPort, pack(t, reply(t, up)), b.now)
	got := len(b.got)
	if before, then := b.at(start + 100 + queryTimeout); before != 0 || then != 1 || b.p.Outstanding() != 0 || len(b.got) != got+1 {
		t.Fatalf("%d before, %d then, %d under way", before, then, b.p.Outstanding())
	}
	if d := b.done[len(b.done)-1]; d.Outcome != verdict.DNSTimeout || d.Duration != queryTimeout || len(b.dropped) != 1 || b.dropped[0] != b.tcp[0].tag {
		t.Fatalf("%+v, dropped %v", d, b.dropped)
	}
	if _, any := b.p.Due(); any {
		t.Fatal("with nothing to do again")
	}
}

// TestTriesEnd: a query fails when its time is over, after the number of tries that
// fit, and not later than after maxTries.
func TestTriesEnd(t *testing.T) {
	b := newBench(t, nil)
	start := b.now
	b.ask(query("a.example", dns.TypeA))
	for i := int64(1); i < 4; i++ {
		if before, then := b.at(start + i*tryTimeout); before != 0 || then != 1 || len(b.sent) != int(i)+1 || len(b.got) != 0 {
			t.Fatalf("try %d: %d before, %d then", i, before, then)
		}
		// The same upstream gets the same question from the same port: its late
		// answer is still good.
		if a, c := b.sent[0], b.sent[i]; a.myPort != c.myPort || string(a.msg) != string(c.msg) {
			t.Fatalf("try %d: %+v", i, c)
		}
	}
	if before, then := b.at(start + queryTimeout); before != 0 || then != 1 || len(b.got) != 1 {
		t.Fatalf("%d before, %d then", before, then)
	}
	if c := b.p.c; c.Asked != 4 || c.Retries != 3 || b.p.up[0].failures != 4 {
		t.Fatalf("%+v, %d failures", c, b.p.up[0].failures)
	}
	// Several upstreams that refuse it in turn: maxTries in all.
	b = newBench(t, func(p *ruleset.Policy) {
		for i := range 11 {
			p.Upstreams = append(p.Upstreams, ruleset.Upstream{Address: (up2Addr + 1).To16(), Port: uint16(100 + i)})
		}
	})
	b.ask(query("a.example", dns.TypeA))
	for range 20 {
		b.p.Unreachable(b.sent[len(b.sent)-1].myPort, b.now)
	}
	if len(b.sent) != maxTries || len(b.got) != 0 || b.p.c.Unreachable != maxTries {
		t.Fatalf("asked %d times, %d answers, %d refusals", len(b.sent), len(b.got), b.p.c.Unreachable)
	}
	if before, then := b.at(b.now + tryTimeout); before != 0 || then != 1 || len(b.got) != 1 || b.done[0].Outcome != verdict.DNSTimeout {
		t.Fatalf("%d before, %d then, %+v", before, then, b.done)
	}
	b.finishAll()
}

// TestRefusalsCountOnce: an unreachable upstream counts one failure however many
// ICMP errors arrive, and is used for the query again only after the try has timed
// out.
func TestRefusalsCountOnce(t *testing.T) {
	b := newBench(t, twoPlain)
	b.ask(query("a.example", dns.TypeA))
	first := b.sent[0].myPort
	to, port, msg, ok := b.p.Sent(first)
	if !ok || to != upAddr || port != 53 || string(msg) != string(b.sent[0].msg) {
		t.Fatalf("sent to %v:%d %x, %v", to, port, msg, ok)
	}
	if to, port, msg, ok := b.p.Sent(first + 1); ok || to != 0 || port != 0 || msg != nil {
		t.Fatal("something was sent from another port")
	}
	b.p.Unreachable(first+1, b.now) // no query's
	if len(b.sent) != 1 || b.p.c.Unreachable != 0 {
		t.Fatal("another port's error was taken")
	}
	b.p.Unreachable(first, b.now)
	if len(b.sent) != 2 || b.sent[1].to != up2Addr || b.p.up[0].failures != 1 || b.p.c.Unreachable != 1 || !b.p.OwnsPort(b.sent[1].myPort) || b.p.OwnsPort(first) && first != b.sent[1].myPort {
		t.Fatalf("%+v, %d failures", b.sent, b.p.up[0].failures)
	}
	b.p.Unreachable(b.sent[1].myPort, b.now)
	b.p.Unreachable(b.sent[1].myPort, b.now)
	if len(b.sent) != 2 || b.p.up[1].failures != 1 || b.p.c.Unreachable != 2 {
		t.Fatalf("asked %d times, %d failures, %d counted", len(b.sent), b.p.up[1].failures, b.p.c.Unreachable)
	}
	// The answer that comes all the same is one.
	s := b.sent[1]
	b.p.UDPResponse(s.to, s.toPort, s.myPort, pack(t, reply(t, unpack(t, s.msg))), b.now)
	if len(b.got) != 1 || b.p.up[1].failures != 0 || b.p.up[1].answered != b.now {
		t.Fatalf("%d answers, %+v", len(b.got), b.p.up[1])
	}
	b = newBench(t, twoPlain) // both refuse it: when the try is over neither has failed again
	b.ask(query("a.example", dns.TypeA))
	b.p.Unreachable(b.sent[0].myPort, b.now)
	b.p.Unreachable(b.sent[1].myPort, b.now)
	if b.at(b.now + tryTimeout); len(b.sent) != 3 || b.p.up[0].failures != 1 || b.p.up[1].failures != 1 {
		t.Fatalf("asked %d times, failures %d and %d", len(b.sent), b.p.up[0].failures, b.p.up[1].failures)
	}
	// A try that ends after a refusal is no further failure, and the refusal is
	// forgotten with it.
	b = newBench(t, nil)
	b.ask(query("a.example", dns.TypeA))
	b.p.Unreachable(b.sent[0].myPort, b.now)
	b.at(b.now + tryTimeout)
	if len(b.sent) != 2 || b.p.up[0].failures != 1 {
		t.Fatalf("asked %d times, %d failures", len(b.sent), b.p.up[0].failures)
	}
	b.p.Unreachable(b.sent[1].myPort, b.now)
	if b.p.up[0].failures != 2 || b.p.c.Unreachable != 2 {
		t.Fatalf("%d failures", b.p.up[0].failures)
	}
	b.finishAll()
}

// TestProbes: an upstream that is down is probed once a second, with at most
// maxProbes at a time; a response to a probe is not relayed, and the upstream is up
// then.
func TestProbes(t *testing.T) {
	b := newBench(t, twoPlain)
	ask := func() (probes int) {
		n := len(b.sent)
		b.ask(query("a.example", dns.TypeA))
		for _, s := range b.sent[n:] {
			if s.to == upAddr {
				probes++
			} else {
				b.p.UDPResponse(s.to, s.toPort, s.myPort, pack(t, reply(t, unpack(t, s.msg))), b.now)
			}
		}
		return probes
	}
	for i := range downAfter { // three in a row
		if b.p.up[0].down() {
			t.Fatalf("down after %d failures", i)
		}
		b.now += second / 2
		b.p.noteFailure(0, b.now)
	}
	down := b.now
	if !b.p.up[0].down() || b.p.up[0].probed != down {
		t.Fatalf("%+v", b.p.up[0])
	}
	b.now = down + probeEvery - 1
	if n := ask(); n != 0 {
		t.Fatalf("%d probes within a second", n)
	}
	b.now = down + probeEvery
	if n := ask(); n != 1 || b.p.probes != 1 || b.p.Outstanding() != 1 {
		t.Fatalf("%d probes after a second, %d under way", n, b.p.probes)
	}
	if n := ask(); n != 0 {
		t.Fatalf("%d probes at the same time", n)
	}
	var probe sent
	for _, s := range b.sent {
		if s.to == upAddr {
			probe = s
		}
	}
	got, told := len(b.got), len(b.done)
	b.p.UDPResponse(probe.to, probe.toPort, probe.myPort, pack(t, reply(t, unpack(t, probe.msg), "@ 60 IN A 192.0.2.1")), b.now)
	if len(b.got) != got || len(b.done) != told || b.set.Len() != 0 || b.p.up[0].down() || b.p.probes != 0 || b.p.Outstanding() != 0 {
		t.Fatalf("%d answers, %d ends, %+v", len(b.got)-got, len(b.done)-told, b.p.up[0])
	}
	// Probes without a response, faster than they time out: at most so many.
	for range downAfter {
		b.p.noteFailure(0, b.now)
	}
	for i := range 20 {
		b.now += probeEvery // no Tick: none ends
		if ask(); b.p.probes > maxProbes*len(b.p.up) || b.p.probes != min(i+1, maxProbes*len(b.p.up)) {
			t.Fatalf("%d probes after %d s", b.p.probes, i+1)
		}
	}
	failed := b.p.up[0].failures
	b.p.Tick(b.now)
	if b.p.probes != 0 || b.p.up[0].failures != failed+uint8(maxProbes*len(b.p.up)) {
		t.Fatalf("%d probes, %d failures, before %d", b.p.probes, b.p.up[0].failures, failed)
	}
	b.finishAll()
	if b.p.probes != 0 {
		t.Fatalf("%d probes are left", b.p.probes)
	}
	// It does not wrap.
	for range 600 {
		b.p.noteFailure(0, b.now)
	}
	if !b.p.up[0].down() {
		t.Fatal("up after 600 failures")
	}
}
