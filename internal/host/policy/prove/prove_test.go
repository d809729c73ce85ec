package prove

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/thurward/thurward/internal/host/policy"
	"github.com/thurward/thurward/internal/host/policy/compile"
	"github.com/thurward/thurward/internal/host/policy/explain"
	"github.com/thurward/thurward/internal/host/policy/policytest"
	"github.com/thurward/thurward/internal/shared/verdict"
)

const head = policytest.SmallWorld

func run(t *testing.T, src string) []Result {
	t.Helper()
	p, ds := policy.Load("p.yaml", []byte(src))
	if p == nil {
		t.Fatalf("%v\n%s", ds, src)
	}
	rs, err := compile.Compile(p)
	if err != nil {
		t.Fatal(err)
	}
	return Run(p, rs)
}

// TestStatements: what holds, what does not with the flow that shows it, and what says
// nothing; of each kind of step around the rules one.
func TestStatements(t *testing.T) {
	const policy = head + `defaults: { default_action: deny, upstream_dns: 9.9.9.9 }
nat:
  snat: [ { out_interface: wan0, source: 10.0.0.0/29, masquerade: true } ]
  dnat: [ { wan_ip: 203.0.113.10, wan_port: 8443, to: "10.0.0.5:443", proto: tcp, from: 198.51.100.0/24 } ]
rules:
  - { id: quiet, action: deny, direction: egress, source: 10.0.0.4 }
  - { id: dns, action: accept, direction: egress, destination: 10.0.0.1, destination_port: 53, protocol: [udp, tcp] }
  - { id: named, action: accept, direction: egress, source: 10.0.0.6, destination_fqdn: "*.example.com", destination_port: 443, protocol: tcp }
  - { id: web, action: accept, direction: egress, source: 10.0.0.0/29, destination_port: 443, protocol: tcp, mode: shadow }
  - { id: in, action: accept, direction: ingress, destination: [10.0.0.5, 10.0.0.9], destination_port: 443, protocol: tcp }
  - { id: back, action: accept, state: established }
`
	for _, c := range []struct{ statement, want string }{
		{"never: [ { from: lan, source: 10.0.0.4 } ]", ""},
		{"never: [ { from: lan, source: 10.0.0.4/31 } ]", `udp 10.0.0.5 to 10.0.0.1:53 from the lan: rule "dns"`},
		{"never: [ { from: lan, source: 10.0.0.2, destination: 198.51.100.0/24 } ]", ""}, // web is a shadow rule
		{"never: [ { from: lan, source: 10.0.0.6, destination: 198.51.100.0/24 } ]", `tcp 10.0.0.6 to 198.51.100.0:443 (host0.example.com) from the lan: rule "named"`},
		{"never: [ { from: lan, source: 10.0.0.6, destination: 198.51.100.0/24, destination_port: 1-442 } ]", ""},
		{"always: [ { from: lan, source: 10.0.0.6, destination: 198.51.100.7, destination_port: 443, protocol: tcp } ]", "no rule matches"},
		{"always: [ { from: lan, source: 10.0.0.2/31, destination: 10.0.0.1, destination_port: 53 } ]", ""},
		{"always: [ { from: lan, destination: 10.0.0.1, destination_port: 53 } ]", `rule "quiet" (line 9) denies`},
		{"always: [ { from: lan, source: 10.0.0.5, destination: 10.0.0.1, protocol: icmp } ]", "no rule matches"},
		// From the WAN: straight to a translated host, by its entry, from others.
		{"always: [ { from: wan, source: 198.51.100.0/24, destination: 10.0.0.5, destination_port: 443, protocol: tcp } ]", ""},
		{"always: [ { from: wan, source: 198.51.101.1, destination: 10.0.0.5, destination_port: 443, protocol: tcp } ]", "untranslated_destination"},
		{"always: [ { from: wan, destination: 10.0.0.5, destination_port: 443, protocol: tcp } ]", "untranslated_destination"},
		{"never: [ { from: wan, source: 198.51.101.0/24, destination: 10.0.0.5 } ]", ""},
		{"never: [ { from: wan, source: 198.51.100.128/25, destination: 10.0.0.0/28 } ]", `tcp 198.51.100.128 to 10.0.0.5:443 from the wan: rule "in"`},
		{"always: [ { from: wan, destination: 10.0.0.9, destination_port: 443, protocol: tcp } ]", ""}, // not translated, so routed
		{"never: [ { from: wan, destination: 10.0.0.8/30, destination_port: 444-65535 } ]", ""},
		{"never: [ { from: wan, destination: 10.0.0.8/30, destination_port: 443-65535 } ]", `to 10.0.0.9:443 from the wan: rule "in"`},
		// Nothing that can arrive.
		{"never: [ { from: lan, source: 192.168.0.0/16 } ]", "says nothing"},
		{"always: [ { from: lan, source: 192.168.0.0/16 } ]", "says nothing"},
		{"never: [ { from: lan, destination: 10.0.0.4 } ]", "says nothing"},
		{"never: [ { from: wan, source: 127.0.0.0/8 } ]", "says nothing"},
	} {
		r := run(t, policy+c.statement+"\n")
		if len(r) != 1 {
			t.Fatal(len(r))
		}
		got := r[0].Wrong
		if r[0].Flow != nil {
			got = r[0].Flow.String() + ": " + got
		}
		if (c.want == "") != (got == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s\n\tgot  %q\n\twant %q", c.statement, got, c.want)
		}
	}
}

// TestProofsAreExact: on random policies over a small world, a statement holds when, and
// only when, no flow of it that could be sent shows otherwise; a flow that is shown does.
func TestProofsAreExact(t *testing.T) {
	r := rand.New(rand.NewPCG(20261129, 213))
	pick := func(words ...string) string { return words[r.IntN(len(words))] }
	holds, fails := map[bool]int{}, map[bool]int{}
	for range 600 {
		var b strings.Builder
		b.WriteString(policytest.Small(r))
		var from string
		s := policy.Statement{Always: r.IntN(2) == 0, FromLAN: r.IntN(2) == 0}
		if from = "wan"; s.FromLAN {
			from = "lan"
		}
		fmt.Fprintf(&b, "%s: [ { from: %s, source: %s, destination: %s, destination_port: %s, protocol: %s } ]\n", s.Word(), from,
			pick("10.0.0.0/28", "10.0.0.4/30", "198.51.100.0/30", "10.0.0.6"), pick("198.51.100.0/30", "10.0.0.0/28", "10.0.0.5", "203.0.113.8/29", "10.0.0.1"), pick("1-4", "2", "53", "52-54"), pick("tcp", "udp", "[tcp, udp]"))
		p, ds := policy.Load("random.yaml", []byte(b.String()))
		if p == nil {
			t.Fatalf("%v\n%s", ds, b.String())
		}
		rs, err := compile.Compile(p)
		if err != nil {
			t.Fatal(err)
		}
		got := Run(p, rs)[0]
		st := &p.Statements[0]
		var against *policy.Flow
		arrives := false
		for _, f := range flowsOf(st) {
			var accepted, there bool
			for _, o := range explain.Ways(p, rs, f) {
				accepted = accepted || o.Accept
				there = there || o.Reason != verdict.Martian
			}
			arrives = arrives || there
			if there && accepted != st.Always {
				against = &f
			}
		}
		switch {
		case got.Flow != nil:
			accepted := false
			for _, o := range explain.Ways(p, rs, *got.Flow) {
				accepted = accepted || o.Accept
			}
			if accepted == st.Always || against == nil {
				t.Fatalf("shown is %v (%s), which is no example; by hand: %v\n%s", got.Flow, got.Wrong, against, b.String())
			}
			fails[st.Always]++
		case against != nil:
			t.Fatalf("holds (%q), but not for %v\n%s", got.Wrong, against, b.String())
		case (got.Wrong == "") != arrives:
			t.Fatalf("%q, but packets of it can arrive: %v\n%s", got.Wrong, arrives, b.String())
		case arrives:
			holds[st.Always]++
		}
	}
	for _, always := range []bool{false, true} {
		if holds[always] < 5 || fails[always] < 15 {
			t.Errorf("hold %v, fail %v: too few to say anything", holds, fails)
		}
	}
}

// flowsOf returns every flow that a statement over the small world is about.
func flowsOf(s *policy.Statement) (all []policy.Flow) {
	hosts := func(ps []netip.Prefix) (as []netip.Addr) {
		for _, p := range ps {
			for a := p.Addr(); p.Contains(a); a = a.Next() {
				as = append(as, a)
			}
		}
		return as
	}
	for _, proto := range s.Protocols {
		for _, src := range hosts(s.Source) {
			for _, dst := range hosts(s.Destination) {
				for _, q := range s.Ports {
					for port := q.Lo; port <= q.Hi; port++ {
						for _, name := range []string{"", "a.example.com", "b.example.com", "c.example.com"} {
							all = append(all, policy.Flow{FromLAN: s.FromLAN, Protocol: proto, FQDN: name,
								Src: netip.AddrPortFrom(src, 0), Dst: netip.AddrPortFrom(dst, uint16(port))})
						}
					}
				}
			}
		}
	}
	return all
}

// TestBoundIsDocumented: docs/policy.md says from how many parts on a statement is not
// decided.
func TestBoundIsDocumented(t *testing.T) {
	b, err := os.ReadFile("../../../../docs/policy.md")
	if err != nil {
		t.Fatal(err)
	}
	n := fmt.Sprintf("%d,%03d", maxParts/1000, maxParts%1000)
	if !strings.Contains(string(b), "more than "+n+" parts") {
		t.Errorf("docs/policy.md does not say %s parts", n)
	}
}

// TestTooMuchIsNotDecided: a statement whose search would not end soon does not hold, and
// says why; ten thousand rules are no reason.
func TestTooMuchIsNotDecided(t *testing.T) {
	var b strings.Builder
	b.WriteString("interfaces:\n  lan0: { address: 10.0.0.1/8 }\n  wan0: { address: 203.0.113.10/24, gateway: 203.0.113.1 }\ndefaults: { default_action: deny }\nrules:\n")
	for i := range 10000 {
		fmt.Fprintf(&b, "  - { id: r%d, action: %s, direction: egress, source: 10.%d.%d.0/24, destination_port: %d, protocol: tcp }\n", i, []string{"accept", "deny"}[i%2], i/250, i%250, 1+i%1000)
	}
	src := b.String()
	begin := time.Now()
	if r := run(t, src+"never: [ { from: lan, source: 10.1.1.0/24, destination_port: 5000 } ]\nalways: [ { from: lan, source: 10.1.0.0/24, destination: 192.0.2.1, destination_port: 251, protocol: tcp } ]\n"); r[0].Wrong != "" || r[1].Wrong != "" {
		t.Errorf("%+v %+v", r[0], r[1])
	}
	r := run(t, src+"never: [ { from: lan, destination_port: 5000-6000 } ]\nalways: [ { from: lan } ]\n")
	if !strings.Contains(r[0].Wrong, "was not decided") && r[0].Wrong != "" || r[1].Wrong == "" {
		t.Errorf("%+v\n%+v", r[0], r[1])
	}
	if d := time.Since(begin); d > time.Minute {
		t.Errorf("took %v", d)
	}
}
