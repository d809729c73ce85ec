package dnsproxy

import (
	"reflect"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// An end is everything that a query causes: all fields of its result, all counters,
// and the reply.
type end struct {
	what string
	edit func(p *ruleset.Policy)
	do   func(b *bench)
	told Result
	c    Counters
	code int // of the response, with the extended bits
	edns bool
	ede  bool // an Extended DNS Error says that it is blocked
}

// fieldsClient is the client, over TCP so that replies are not truncated.
var fieldsClient = Client{Addr: client1, Port: 4321, Server: 0x0a000001, Conn: 9}

// asks sends a query of the client for a.example over TCP, with EDNS.
func asks(b *bench, name string, typ uint16, change ...func(m *dns.Msg)) {
	q := query(name, typ)
	q.SetEdns0(1232, true)
	for _, f := range change {
		f(q)
	}
	c := fieldsClient
	b.p.Query(&c, pack(b.t, q), b.now)
}

// answers sends the upstream's response to the last query after 3 ms.
func answers(b *bench, rcode int, rrs ...string) {
	b.t.Helper()
	b.now += 3e6
	_, up := b.last()
	r := reply(b.t, up, rrs...)
	r.Rcode = rcode
	b.answer(pack(b.t, r))
}

// one returns the counters of one query with this outcome that was sent to an
// upstream.
func one(why verdict.DNSOutcome, change func(c *Counters)) Counters {
	c := Counters{Queries: 1, Asked: 1, LatencySum: 3e6}
	c.Latency[3] = 1 // 2.5 to 5 ms
	c.Outcomes[why] = 1
	if change != nil {
		change(&c)
	}
	return c
}

// own returns the counters of one query with this outcome that was not sent to an
// upstream.
func own(why verdict.DNSOutcome) Counters {
	c := Counters{Queries: 1}
	c.Outcomes[why] = 1
	return c
}

// TestResults: for every outcome, each field of the result and each counter, and
// that nothing else is counted.
func TestEndsAreTold(t *testing.T) {
	const addr = packet.Addr(0xc0000201)
	badRecord := func(b *bench, tc byte) {
		s, _ := b.last()
		m := append([]byte(nil), s.msg[:bodyAt]...)
		m[2], m[7], m[11] = m[2]|0x80|tc, 1, 0
		b.now += 3e6
		b.answer(append(m, "\x00"...))
	}
	waits := func(b *bench) {
		for range 60 {
			b.now += second / 10
			b.p.Tick(b.now)
		}
	}
	told := func(why verdict.DNSOutcome, d Result) Result {
		d.Outcome = why
		if why != verdict.DNSTimeout && d.Upstream != 1 {
			d.Upstream, d.Duration = upAddr, 3e6
		}
		return d
	}
	self := func(why verdict.DNSOutcome) Result { return Result{Outcome: why} }
	blocked := func(p *ruleset.Policy) { p.Blocked = []ruleset.Name{name(p, "ads.test")} }
	for _, e := range []end{
		{what: "answered", do: func(b *bench) {
			asks(b, "A.Example", dns.TypeA)
			answers(b, 0, "@ 60 IN A 192.0.2.1", "@ 60 IN A 192.0.2.2")
		}, told: told(verdict.DNSAnswered, Result{Bound: 2, First: addr}), c: one(verdict.DNSAnswered, func(c *Counters) { c.Bound = 2 }), edns: true},
		{what: "answered without an address", do: func(b *bench) { asks(b, "a.example", dns.TypeMX); answers(b, 0, "@ 60 IN MX 1 b.example.") },
			told: told(verdict.DNSAnswered, Result{Type: dns.TypeMX}), c: one(verdict.DNSAnswered, nil), edns: true},
		{what: "no such name", do: func(b *bench) { asks(b, "a.example", dns.TypeA); answers(b, 3) },
			told: told(verdict.DNSNXDomain, Result{}), c: one(verdict.DNSNXDomain, nil), code: 3, edns: true},
		{what: "the upstream's failure", do: func(b *bench) { asks(b, "a.example", dns.TypeA); answers(b, 2) },
			told: told(verdict.DNSServFail, Result{}), c: one(verdict.DNSServFail, nil), code: 2, edns: true},
		{what: "the upstream refuses", do: func(b *bench) { asks(b, "a.example", dns.TypeA); answers(b, 5) },
			told: told(verdict.DNSRefused, Result{}), c: one(verdict.DNSRefused, nil), code: 5, edns: true},
		{what: "another code", do: func(b *bench) { asks(b, "a.example", dns.TypeA); answers(b, 9) },
			told: told(verdict.DNSOther, Result{}), c: one(verdict.DNSOther, nil), code: 9, edns: true},
		{what: "an extended code", do: func(b *bench) { asks(b, "a.example", dns.TypeA); answers(b, 23) },
			told: told(verdict.DNSOther, Result{}), c: one(verdict.DNSOther, nil), code: 23, edns: true},
		{what: "an extended code, without EDNS", do: func(b *bench) {
			asks(b, "a.example", dns.TypeA, func(m *dns.Msg) { m.Extra = nil })
			answers(b, 23)
		}, told: told(verdict.DNSOther, Result{Upstream: 1}), c: one(verdict.DNSOther, nil), code: 2},
		{what: "malformed answer", do: func(b *bench) { asks(b, "a.example", dns.TypeA); badRecord(b, 0) },
			told: told(verdict.DNSOther, Result{Upstream: 1}), c: one(verdict.DNSOther, func(c *Counters) { c.Malformed = 1 }), code: 2, edns: true},
		{what: "blocked target", edit: blocked, do: func(b *bench) {
			asks(b, "a.example", dns.TypeA)
			answers(b, 0, "@ 60 IN CNAME ads.test.", "ads.test. 60 IN A 192.0.2.1")
		}, told: told(verdict.DNSBlockedList, Result{Upstream: 1}), c: one(verdict.DNSBlockedList, nil), code: 5, edns: true, ede: true},
		{what: "more targets than are looked at", edit: blocked, do: func(b *bench) {
			asks(b, "a.example", dns.TypeA)
			answers(b, 0, many("@ 60 IN CNAME b.example.", maxAliases+1)...)
		}, told: told(verdict.DNSOther, Result{Upstream: 1}), c: one(verdict.DNSOther, nil), code: 2, edns: true},
		{what: "private address", do: func(b *bench) { asks(b, "a.example", dns.TypeA); answers(b, 0, "@ 60 IN A 10.1.2.3") },
			told: told(verdict.DNSBlockedPrivate, Result{Upstream: 1, Private: packet.Addr(0x0a010203).To16()}), c: one(verdict.DNSBlockedPrivate, nil), code: 5, edns: true, ede: true},
		{what: "nobody answers", do: func(b *bench) { asks(b, "a.example", dns.TypeA); waits(b) },
			told: told(verdict.DNSTimeout, Result{Duration: 52e8}), code: 2, edns: true,
			c: one(verdict.DNSTimeout, func(c *Counters) {
				c.Asked, c.Retries, c.LatencySum = 4, 3, 52e8
				c.Latency[3], c.Latency[len(Buckets)] = 0, 1
			})},
		{what: "blocked", edit: blocked, do: func(b *bench) { asks(b, "ADS.test", dns.TypeA) },
			told: self(verdict.DNSBlockedList), c: own(verdict.DNSBlockedList), code: 5, edns: true, ede: true},
		{what: "no rule", edit: func(p *ruleset.Policy) { p.Settings.Flags |= ruleset.FlagDNSFollow }, do: func(b *bench) { asks(b, "a.example", dns.TypeA) },
			told: self(verdict.DNSBlockedPolicy), c: own(verdict.DNSBlockedPolicy), code: 5, edns: true, ede: true},
		{what: "a zone transfer", do: func(b *bench) { asks(b, "a.example", dns.TypeAXFR) },
			told: Result{Outcome: verdict.DNSNotImplemented, Type: dns.TypeAXFR}, c: own(verdict.DNSNotImplemented), code: 4, edns: true},
		{what: "another operation", do: func(b *bench) {
			asks(b, "a.example", dns.TypeA, func(m *dns.Msg) { m.Opcode = dns.OpcodeNotify })
		}, told: self(verdict.DNSNotImplemented), c: own(verdict.DNSNotImplemented), code: 4, edns: true},
		{what: "version 1", do: func(b *bench) {
			asks(b, "a.example", dns.TypeA, func(m *dns.Msg) { m.IsEdns0().SetVersion(1) })
		}, told: self(verdict.DNSMalformed), c: own(verdict.DNSMalformed), code: 16, edns: true},
		{what: "malformed EDNS", do: func(b *bench) {
			asks(b, "a.example", dns.TypeA, func(m *dns.Msg) { m.Extra = append(m.Extra, m.Extra[0]) })
		}, told: self(verdict.DNSMalformed), c: own(verdict.DNSMalformed), code: 1, edns: true},
		{what: "not a question", do: func(b *bench) { c := fieldsClient; b.p.Query(&c, make([]byte, headerLen), b.now) },
			told: Result{Outcome: verdict.DNSMalformed}, c: own(verdict.DNSMalformed), code: 1},
		{what: "too often", edit: func(p *ruleset.Policy) { p.Settings.DNSRate = 1 }, do: func(b *bench) {
			b.p.rates = make([]rateEntry, clientSlots)
			b.p.withinRate(b.p.rateOf(client1), b.now)
			asks(b, "a.example", dns.TypeA)
		}, told: self(verdict.DNSRateLimited), c: own(verdict.DNSRateLimited), code: 2, edns: true},
	} {
		t.Run(strings.ReplaceAll(e.what, " ", "_"), func(t *testing.T) {
			b := newBench(t, e.edit)
			b.p.lookup = 41
			e.do(b)
			want := e.told
			want.Client, want.Lookup = fieldsClient, 42
			switch e.what {
			case "not a question":
				want.Name = []byte{0}
			case "blocked":
				want.Name, want.Type = wire("ads.test"), dns.TypeA
			default:
				want.Name = []byte(askedName)
				if want.Type == 0 {
					want.Type = dns.TypeA
				}
			}
			if want.Upstream == 1 {
				want.Upstream, want.Duration = 0, 3e6
			}
			if len(b.done) != 1 || !reflect.DeepEqual(b.done[0], want) {
				t.Errorf("told %+v\nwant %+v", b.done, want)
			}
			if b.p.c != e.c {
				t.Errorf("counted %+v\nwant    %+v", b.p.c, e.c)
			}
			if len(b.got) != 1 {
				t.Fatalf("%d answers", len(b.got))
			}
			m := unpack(t, b.got[0])
			o := m.IsEdns0()
			if m.Rcode != e.code || !m.Response || (o != nil) != e.edns {
				t.Errorf("the client gets %v", m)
			}
			if o != nil && (len(o.Option) > 0 != e.ede || !o.Do() || o.UDPSize() != upstreamSize || o.Version() != 0) {
				t.Errorf("the client gets %v", o)
			}
			if g := b.got[0]; int(be16(g[4:])) != len(m.Question) || int(be16(g[6:])) != len(m.Answer) || int(be16(g[8:])) != len(m.Ns) || int(be16(g[10:])) != len(m.Extra) {
				t.Errorf("counts that are not those of what is there: %x", g)
			}
			if e.ede && string(b.got[0][len(b.got[0])-6:]) != "\x00\x0f\x00\x02\x00\x0f" {
				t.Errorf("the client gets %x", b.got[0])
			}
			if want.Bound == 0 && b.set.Len() != 0 || b.p.Outstanding() != 0 || len(b.ports) != 0 {
				t.Errorf("%d bound, %d under way, %d ports", b.set.Len(), b.p.Outstanding(), len(b.ports))
			}
		})
	}
}

func many(s string, n int) (all []string) {
	for range n {
		all = append(all, s)
	}
	return all
}

// TestReturnedOutcome: Query returns the outcome of queries to which the proxy
// responds itself, and 0 for others.
func TestReturnedOutcome(t *testing.T) {
	b := newBench(t, func(p *ruleset.Policy) { p.Blocked = []ruleset.Name{name(p, "ads.test")} })
	ask := func(change func(m *dns.Msg)) verdict.DNSOutcome {
		q := query("a.example", dns.TypeA)
		change(q)
		return b.p.Query(&Client{Addr: client1}, pack(t, q), b.now)
	}
	for i, c := range []struct {
		change func(m *dns.Msg)
		want   verdict.DNSOutcome
	}{
		{func(m *dns.Msg) {}, 0},
		{func(m *dns.Msg) { m.Question[0].Name = "x.ads.test." }, verdict.DNSBlockedList},
		{func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeIXFR }, verdict.DNSNotImplemented},
		{func(m *dns.Msg) { m.SetEdns0(1232, false); m.IsEdns0().SetVersion(2) }, verdict.DNSMalformed},
		{func(m *dns.Msg) { m.Question = nil }, verdict.DNSMalformed},
		{func(m *dns.Msg) { m.Response = true }, 0},
	} {
		if got := ask(c.change); got != c.want {
			t.Errorf("%d: %v, want %v", i, got, c.want)
		}
	}
	b.p.sources = newSourceSets(b.p.cfg.Policy)
	if got := ask(func(*dns.Msg) {}); got != verdict.DNSBlockedPolicy {
		t.Errorf("for no rule: %v", got)
	}
	b.p.sources = nil
	b.p.rate = 0
	if got := ask(func(*dns.Msg) {}); got != verdict.DNSRateLimited {
		t.Errorf("too often: %v", got)
	}
}

// TestHeaderOfRefusals: a refusal has the client's identifier, opcode, RD and CD,
// with QR and RA, and no other bits or counts.
func TestHeaderOfRefusals(t *testing.T) {
	for flags := range 1 << 15 { // all without QR
		b := [headerLen]byte{0: 1, 4: 5, 5: 6, 6: 7, 7: 8, 8: 9, 9: 10, 10: 11, 11: 12}
		(*Proxy).putHeader(nil, b[:], 0xabcd, uint16(flags), rcodeBadVers)
		want := uint16(0x8080) | uint16(flags)&0x7910
		if be16(b[:]) != 0xabcd || be16(b[2:]) != want || string(b[4:]) != strings.Repeat("\x00", 8) {
			t.Fatalf("flags %04x: %x, want %04x", flags, b, want)
		}
		(*Proxy).putHeader(nil, b[:], 1, uint16(flags), rcodeRefused)
		if be16(b[2:]) != want|5 {
			t.Fatalf("flags %04x, refused: %x", flags, b)
		}
	}
}

// TestLatencyBuckets: a query counts in the first bucket whose bound it does not
// exceed, or in the last.
func TestLatencyBuckets(t *testing.T) {
	sum := int64(0)
	b := newBench(t, nil)
	for k, bound := range Buckets {
		for _, took := range []int64{bound, bound + 1} {
			before := b.p.c.Latency
			b.p.finish(&pending{start: 7}, verdict.DNSAnswered, 0, 0, 0, 7+took)
			want := k
			if took > bound {
				want++
			}
			before[want]++
			if sum += took; b.p.c.Latency != before || b.p.c.LatencySum != sum || b.done[len(b.done)-1].Duration != took {
				t.Errorf("%d ns: %v, want one more in %d", took, b.p.c.Latency, want)
			}
		}
	}
	b.p.finish(&pending{}, verdict.DNSAnswered, 0, 0, 0, 0)
	if b.p.c.Latency[0] != 2 {
		t.Errorf("no time at all: %v", b.p.c.Latency)
	}
	for _, why := range []verdict.DNSOutcome{verdict.DNSTimeout, verdict.DNSBlockedPrivate} {
		b.p.privateAddr = [16]byte{15: 9}
		b.p.finish(&pending{}, why, 0, 0, 0, 0)
		if d := b.done[len(b.done)-1]; (d.Private != [16]byte{}) != (why == verdict.DNSBlockedPrivate) {
			t.Errorf("%v: %v", why, d.Private)
		}
	}
}
