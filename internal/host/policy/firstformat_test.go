package policy_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/thurward/thurward/internal/host/policy"
	"github.com/thurward/thurward/internal/host/policy/check"
	"github.com/thurward/thurward/internal/host/policy/compile"
	"github.com/thurward/thurward/internal/host/policy/explain"
	"github.com/thurward/thurward/internal/shared/ruleset"
)

// A firstDoc is a document as the schema first published allows it.
type firstDoc map[string]any

// firstRandom makes one. What it draws from has the edges of each field, and values on
// all sides of the interfaces that the format implies.
func firstRandom(r *rand.Rand) firstDoc {
	pick := func(vs ...any) any { return vs[r.IntN(len(vs))] }
	maybe := func(m map[string]any, odds int, key string, v any) {
		if r.IntN(odds) == 0 {
			m[key] = v
		}
	}
	address := func() any {
		return pick("10.0.0.1", "10.0.0.5", "10.0.0.0", "10.0.0.255", "10.0.1.5", "192.168.7.7", "203.0.113.10", "203.0.113.11", "203.0.113.1", "203.0.113.2", "198.51.100.7", "1.1.1.1", "9.9.9.9")
	}
	cidr := func() any {
		return pick("0.0.0.0/0", "10.0.0.0/24", "10.0.0.0/8", "10.0.0.5/32", "10.0.0.128/25", "10.0.0.7/24", "192.168.0.0/16", "198.51.100.0/24", "203.0.113.0/24", "198.51.100.9/28")
	}
	doc := firstDoc{}
	if r.IntN(5) > 0 {
		d := map[string]any{}
		maybe(d, 2, "default_action", pick("accept", "deny", "deny"))
		maybe(d, 2, "upstream_dns", pick("1.1.1.1", "9.9.9.9", "203.0.113.1", "192.168.7.7"))
		maybe(d, 3, "flow_trace_sample_accept", pick(0, 0.01, 0.5, 1))
		maybe(d, 3, "flow_trace_sample_drop", pick(0, 1, 1.0))
		maybe(d, 3, "dns_qps_per_client", pick(1, 100, 1_000_000, 1_000_001, json.Number("99999999999999999999")))
		if r.IntN(2) == 0 {
			t := map[string]any{}
			for _, k := range []string{"tcp_syn_sent", "tcp_established", "tcp_time_wait", "udp_idle", "icmp_echo"} {
				maybe(t, 2, k, pick(1, 30, 3600, 2592000, 2592001, json.Number("12345678901234567890")))
			}
			d["conntrack_timeouts"] = t
		}
		doc["defaults"] = d
	}
	if r.IntN(2) == 0 {
		nat := map[string]any{}
		if r.IntN(3) > 0 {
			var all []any
			for range 1 + r.IntN(3) {
				s := map[string]any{"out_interface": pick("wan0", "wan0", "wan1"), "source": cidr()}
				if r.IntN(2) == 0 {
					s["masquerade"] = true
				} else {
					s["external_ip"] = address()
				}
				maybe(s, 2, "port_range", map[string]any{"min": pick(1, 1024, 16384), "max": pick(16384, 60999, 65535)})
				all = append(all, s)
			}
			nat["snat"] = all
		}
		if r.IntN(3) > 0 {
			all := []any{}
			for range r.IntN(4) {
				d := map[string]any{"wan_ip": address(), "wan_port": pick(1, 443, 443, 65535), "to": fmt.Sprint(address(), ":", pick(1, 443, 65535)), "proto": pick("tcp", "udp")}
				maybe(d, 2, "from", cidr())
				all = append(all, d)
			}
			nat["dnat"] = all
		}
		doc["nat"] = nat
	}
	rules := []any{}
	for i := range r.IntN(7) {
		v := map[string]any{"id": pick(fmt.Sprint("r", i), fmt.Sprint("default-", i), fmt.Sprint("a", strings.Repeat("-", 61), 10+i)), "action": pick("accept", "accept", "deny")}
		maybe(v, 3, "name", pick("LAN can reach the DNS proxy", "", "a: b # c \"'\n\t\u00fc", strings.Repeat("long ", 60)))
		maybe(v, 2, "direction", pick("egress", "ingress"))
		maybe(v, 2, "source", pick(cidr(), cidr(), address()))
		maybe(v, 2, "destination_port", pick(1, 53, 443, "443", "1024-65535", "80-80"))
		maybe(v, 2, "protocol", pick("tcp", "udp", "icmp"))
		maybe(v, 4, "state", "established")
		if r.IntN(3) == 0 {
			v["destination_fqdn"] = []any{pick("github.com", "*.githubusercontent.com", "intranet", "*.com", "a.b.c.d.example")}
		} else {
			maybe(v, 2, "destination", pick(cidr(), address()))
		}
		rules = append(rules, v)
	}
	doc["rules"] = rules
	return doc
}

// refusals returns the codes of what is refused on purpose in a document, in the words
// of docs/policy.md: a deny by name, ports of ICMP, and a pool whose range is reversed
// do not occur together with anything that could hold.
func (d firstDoc) refusals() (codes []string) {
	for _, v := range d["rules"].([]any) {
		r := v.(map[string]any)
		if r["destination_fqdn"] != nil && r["action"] == "deny" {
			codes = append(codes, "deny-by-name")
		}
		if r["destination_port"] != nil && r["protocol"] == "icmp" {
			codes = append(codes, "port-without-protocol")
		}
	}
	return codes
}

// TestFirstFormat: what the schema first published allows is accepted as it is, in
// block and flow style and as JSON, but for what docs/policy.md lists; each rule is
// kept, and decides what first match says it does.
func TestFirstFormat(t *testing.T) {
	r := rand.New(rand.NewPCG(20261129, 21))
	schema := policy.CompileSchema(t)
	accepted, refused, decided := 0, 0, map[bool]int{}
	for i := range 3000 {
		doc := firstRandom(r)
		src, err := json.MarshalIndent(doc, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		p, ds := check.Load("first.yaml", src)
		var got []string
		for _, d := range ds {
			if d.Severity == policy.Error {
				got = append(got, d.Code)
			}
		}
		want := doc.refusals()
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Fatalf("%d: refused for %v, want %v\n%s\n%v", i, got, want, src, ds)
		}
		if p == nil {
			refused++
			continue
		}
		accepted++
		if err := policy.Validate(schema, src); err != nil {
			t.Fatalf("today's schema underlines it: %v\n%s", err, src)
		}
		rs, err := compile.Compile(p)
		if err != nil {
			t.Fatalf("%v\n%s", err, src)
		}
		rules := doc["rules"].([]any)
		if len(p.Rules) != len(rules) {
			t.Fatalf("%d rules of %d\n%s", len(p.Rules), len(rules), src)
		}
		for range 20 {
			f := policy.Flow{FromLAN: true, Protocol: []policy.Protocol{policy.TCP, policy.UDP}[r.IntN(2)],
				Src: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(2 + r.IntN(200))}), 40000),
				Dst: netip.AddrPortFrom([]netip.Addr{netip.MustParseAddr("198.51.100.7"), netip.MustParseAddr("8.8.4.4")}[r.IntN(2)], []uint16{1, 53, 80, 443, 1023, 1024, 65535}[r.IntN(7)])}
			accept := firstMatch(doc, f)
			o := explain.Decide(p, rs, f)
			if o.Accept != accept && !p.IsExternal(f.Dst.Addr()) { // the firewall's own is no host beyond it
				t.Fatalf("%v: accepted %v, want %v\n%s", f, o.Accept, accept, src)
			}
			decided[accept]++
		}
	}
	if accepted < 500 || refused < 200 || decided[true] < 500 || decided[false] < 500 {
		t.Errorf("%d accepted, %d refused, %v: too few to say anything", accepted, refused, decided)
	}
}

// TestFirstFormatMadeToday: a document of the first format to which is added what the
// warnings say to copy compiles to the same image.
func TestFirstFormatMadeToday(t *testing.T) {
	const rules = "rules:\n  - { id: web, action: accept, direction: egress, destination_port: 443, protocol: tcp }\n"
	for _, c := range []struct{ defaults, spans string }{
		{"", "flow_trace_sample_accept: 0.01, flow_trace_sample_drop: 1"},
		{"flow_trace_sample_accept: 0, ", "flow_trace_sample_drop: 1"},
		{"flow_trace_sample_drop: 0.25, ", "flow_trace_sample_accept: 0.01"},
		{"flow_trace_sample_accept: 0.5, flow_trace_sample_drop: 0, ", ""},
	} {
		doc := "defaults: { " + c.defaults + "default_action: deny, upstream_dns: 9.9.9.9 }\n" + rules
		p, ds := check.Load("first.yaml", []byte(doc))
		if p == nil {
			t.Fatal(ds)
		}
		block, spans := "", ""
		for _, d := range ds {
			switch {
			case d.Code == "assumed" && d.Path == "interfaces":
				_, block, _ = strings.Cut(d.Hint, "put your addresses in: ")
			case d.Code == "assumed" && d.Path == "defaults":
				_, spans, _ = strings.Cut(d.Message, "published: ")
			}
		}
		if spans != c.spans || block == "" {
			t.Errorf("%q: to be copied are %q and %q, want %q", c.defaults, block, spans, c.spans)
		}
		first, err := compile.Compile(p)
		if err != nil {
			t.Fatal(err)
		}
		same := func(spans string) bool {
			if spans != "" {
				spans += ", "
			}
			p, ds := check.Load("own.yaml", []byte(block+"\ndefaults: { "+c.defaults+spans+"default_action: deny, upstream_dns: 9.9.9.9 }\n"+rules))
			if p == nil || slices.ContainsFunc(ds, func(d policy.Diagnostic) bool { return d.Code == "assumed" }) {
				t.Fatal(ds)
			}
			own, err := compile.Compile(p)
			if err != nil {
				t.Fatal(err)
			}
			return first.Settings.SampleAccept == own.Settings.SampleAccept && first.Settings.SampleDrop == own.Settings.SampleDrop
		}
		if !same(c.spans) {
			t.Errorf("%q with %q: other spans than before", c.defaults, c.spans)
		}
		if c.spans != "" && same("") {
			t.Errorf("%q: the warning is about nothing", c.defaults)
		}
	}
}

// firstMatch decides a flow that begins on the LAN, as the format was described.
func firstMatch(doc firstDoc, f policy.Flow) bool {
	in := func(v any, a netip.Addr) bool {
		s, _ := v.(string)
		if s == "" {
			return true
		}
		if p, err := netip.ParsePrefix(s); err == nil {
			return p.Contains(a)
		}
		return s == a.String()
	}
	for _, v := range doc["rules"].([]any) {
		r := v.(map[string]any)
		if r["destination_fqdn"] != nil || r["state"] != nil || r["direction"] == "ingress" || r["protocol"] != nil && r["protocol"] != f.Protocol.String() {
			continue
		}
		if ports := r["destination_port"]; ports != nil {
			lo, hi, isRange := strings.Cut(fmt.Sprint(ports), "-")
			if !isRange {
				hi = lo
			}
			a, _ := strconv.Atoi(lo)
			z, _ := strconv.Atoi(hi)
			if n := int(f.Dst.Port()); n < a || n > z {
				continue
			}
		}
		if in(r["source"], f.Src.Addr()) && in(r["destination"], f.Dst.Addr()) {
			return r["action"] == "accept"
		}
	}
	d, _ := doc["defaults"].(map[string]any)
	return d["default_action"] == "accept"
}

// TestFirstFormatSeparates: of two forwards with one address and port, the one that
// comes first has what both cover, as in the format; the firewall's own format asks
// its author to say who has it.
func TestFirstFormatSeparates(t *testing.T) {
	const src = `
nat:
  dnat:
    - { wan_ip: 203.0.113.10, wan_port: 443, to: "10.0.0.5:443", proto: tcp, from: 198.51.100.0/25 }
    - { wan_ip: 203.0.113.10, wan_port: 443, to: "10.0.0.6:443", proto: tcp, from: 198.51.100.0/24 }
    - { wan_ip: 203.0.113.10, wan_port: 443, to: "10.0.0.7:443", proto: tcp, from: 198.51.100.0/26 }
rules:
  - { id: in, action: accept, direction: ingress }
`
	p, ds := policy.Load("first.yaml", []byte(src))
	if p == nil || len(p.DNAT) != 2 || len(p.DNAT[1].From) != 1 || p.DNAT[1].From[0].String() != "198.51.100.128/25" {
		t.Fatalf("%+v %v", p, ds)
	}
	rs, err := compile.Compile(p)
	if err != nil {
		t.Fatal(err)
	}
	for from, to := range map[string]string{"198.51.100.1": "10.0.0.5", "198.51.100.127": "10.0.0.5", "198.51.100.128": "10.0.0.6", "198.51.100.255": "10.0.0.6", "198.51.101.0": ""} {
		o := explain.Decide(p, rs, policy.Flow{Protocol: policy.TCP, Src: netip.AddrPortFrom(netip.MustParseAddr(from), 4000), Dst: netip.MustParseAddrPort("203.0.113.10:443")})
		if o.Accept != (to != "") || to != "" && o.Seen.Dst.Addr().String() != to {
			t.Errorf("from %s: %+v, want %s", from, o, to)
		}
	}
	var many strings.Builder
	many.WriteString("nat:\n  dnat:\n")
	for i := range 300 {
		fmt.Fprintf(&many, "    - { wan_ip: 203.0.113.10, wan_port: 443, to: \"10.0.0.5:443\", proto: tcp, from: 198.51.%d.%d }\n", i/250, i%250)
	}
	if p, ds := policy.Load("first.yaml", []byte(many.String()+"    - { wan_ip: 203.0.113.10, wan_port: 443, to: \"10.0.0.6:443\", proto: tcp }\nrules: []\n")); p != nil || !strings.Contains(fmt.Sprint(ds), "at most 256") {
		t.Errorf("300 entries before one: %v", ds)
	}
}

// TestOwnFormatStaysStrict: what the first format may leave open is an error in a
// document with interfaces.
func TestOwnFormatStaysStrict(t *testing.T) {
	const interfaces = "interfaces: { lan0: { address: 10.0.0.1/24 }, wan0: { address: 203.0.113.10/24, gateway: 203.0.113.1 } }\n"
	const deny = "defaults: { default_action: deny }\n"
	for _, src := range []string{
		"rules: []\n",
		deny + "rules: [ { id: a, action: accept, source: 10.0.0.7/24 } ]\n",
		deny + "rules: [ { id: a, action: accept, direction: ingress, destination_fqdn: example.com } ]\n",
		deny + "rules: [ { id: a, action: accept, direction: egress, destination_fqdn: intranet } ]\n",
		deny + "nat: { snat: [ { out_interface: wan1, masquerade: true } ] }\nrules: []\n",
		deny + "nat: { snat: [ { out_interface: wan0, source: 192.168.0.0/16, masquerade: true } ] }\nrules: []\n",
		deny + "nat: { snat: [ { out_interface: wan0, external_ip: 10.0.0.9 } ] }\nrules: []\n",
		deny + "nat: { dnat: [ { wan_ip: 203.0.113.10, wan_port: 443, to: \"192.168.0.5:443\", proto: tcp } ] }\nrules: []\n",
	} {
		if p, ds := policy.Load("first.yaml", []byte(src)); p == nil {
			t.Errorf("without interfaces: %v\n%s", ds, src)
		}
		if p, _ := policy.Load("own.yaml", []byte(interfaces+src)); p != nil {
			t.Errorf("with interfaces it is accepted\n%s", src)
		}
	}
	p, ds := policy.Load("first.yaml", []byte("rules: [ { id: a, action: accept, direction: egress, destination_fqdn: [example.com] } ]\n"))
	if p == nil || p.Defaults.Action != ruleset.Deny || p.Defaults.SampleAccept != 0.01 || p.Defaults.SampleDrop != 1 || len(p.DNS.Upstreams) != 1 || p.DNS.Upstreams[0].Address.String() != "1.1.1.1" {
		t.Fatalf("%+v %v", p, ds)
	}
	if want := "interfaces: { lan0: { address: 10.0.0.1/24 }, wan0: { address: 203.0.113.10/24, gateway: 203.0.113.1 } }"; !strings.Contains(fmt.Sprint(ds), want) {
		t.Errorf("the block to copy is not shown: %v", ds)
	}
}
