package importing

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/thurward/thurward/internal/host/policy"
	"github.com/thurward/thurward/internal/host/policy/exportnft"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// exported is a policy with all that an export has to translate.
const exported = `
interfaces:
  lan0: { address: 10.0.0.1/24 }
  wan0: { address: 203.0.113.10/24, gateway: 203.0.113.1 }
defaults: { default_action: reject, upstream_dns: 9.9.9.9 }
dns: { intercept: true }
nat:
  snat:
    - { out_interface: wan0, source: 10.0.0.0/26, external_ip: [203.0.113.11, 203.0.113.12] }
    - { out_interface: wan0, source: 10.0.0.64/26, masquerade: true }
  dnat:
    - { wan_ip: 203.0.113.10, wan_port: 80, to: "10.0.0.5:8080", proto: tcp, hairpin: true }
    - { wan_ip: 203.0.113.13, wan_port: 7000-7003, to: "10.0.0.6:9000", proto: [tcp, udp], from: 198.51.100.0/24 }
rules:
  - { id: answers-from-outside, action: accept, direction: ingress, state: established }
  - { id: no-answers, action: deny, direction: egress, state: established, source: 10.0.0.6, protocol: udp }
  - { id: answers, action: accept, direction: egress, state: established }
  - { id: dns, action: accept, direction: egress, destination: 10.0.0.1, destination_port: 53 }
  - { id: tried, action: deny, mode: shadow, protocol: tcp }
  - { id: no-mail, action: reject, destination_port: 25, protocol: tcp }
  - { id: silent, action: deny, destination: [192.0.2.0/24, 192.0.2.7], protocol: [tcp, icmp] }
  - { id: web, action: accept, direction: egress, source: [10.0.0.0/27, 10.0.0.64/27], destination_port: [80, 443, 8080-8089], protocol: [tcp, udp] }
  - { id: ping, action: accept, protocol: icmp }
  - { id: server, action: accept, direction: ingress, destination: 10.0.0.5, destination_port: 8080, protocol: tcp }
  - { id: game, action: accept, direction: ingress, destination: 10.0.0.6, destination_port: 9000-9003 }
  - { id: straight, action: accept, direction: ingress, destination: 10.0.0.200, destination_port: 22, protocol: tcp }
`

// TestExport loads what export nft writes of policies into the kernel, and compares it
// packet by packet with the data plane that has the policy itself: nothing is announced here, so
// that each packet that differs fails, unless it is of one of exportExcuses, none of which is for nothing.
func TestExport(t *testing.T) {
	needsRoot(t)
	used := map[string]int{}
	policies := map[string][]byte{"all": []byte(exported)}
	for _, name := range []string{"branch", "egress", "home", "lab"} {
		src, err := os.ReadFile("../../examples/" + name + ".yaml")
		if err != nil {
			t.Fatal(err)
		}
		policies[name] = src
	}
	for name, src := range policies {
		t.Run(name, func(t *testing.T) {
			p, ds := policy.Load(name, src)
			if p == nil {
				t.Fatal(ds)
			}
			if name != "all" {
				p.Rules = withoutNames(p.Rules)
			}
			dir := t.TempDir()
			a := &about{Software: "thurward", Made: "export", LAN: "lan0", WAN: "wan0", Gateway: p.WAN().Gateway,
				name: name, dir: dir,
				Interfaces: []aboutInterface{{"lan0", []netip.Prefix{p.LAN().Prefix}},
					{"wan0", []netip.Prefix{p.WAN().Prefix}}}}
			a.Routes = []string{"default via " + a.Gateway.String() + " dev wan0"}
			text, lacks := exportnft.Write(p, exportnft.Options{LAN: "lan0", WAN: "wan0"})
			for _, l := range lacks {
				t.Log("not in it:", l)
			}
			// Addresses that are routed to the firewall are its own in the kernel, too.
			for _, x := range externals(p) {
				a.Interfaces[1].Addresses = append(a.Interfaces[1].Addresses,
					netip.PrefixFrom(x, p.WAN().Prefix.Bits()))
			}
			if err := os.WriteFile(filepath.Join(dir, "rules.nft"), text, 0o600); err != nil {
				t.Fatal(err)
			}
			k := newKernel(t, a)
			k.watch()
			c := &comparison{a: a, k: k, found: map[string]*step{}, excuses: exportExcuses}
			c.tally = tally{announced: map[string]int{}, silent: map[string]int{}, byDesign: map[string]int{}}
			var err error
			if c.g, err = guardOf(a, src); err != nil {
				t.Fatal(err)
			}
			for _, p := range probesOf(a, strings.Split(string(k.list("-n")), "\n")) {
				if err := c.probe(&p); err != nil {
					t.Fatal(err)
				}
			}
			t.Logf("%d packets, %d equal, by design %v, silent %v", c.tally.packets, c.tally.equal, c.tally.byDesign,
				c.tally.silent)
			if c.tally.equal < 100 {
				t.Errorf("only %d packets were equal", c.tally.equal)
			}
			for sig, s := range c.found {
				t.Errorf("%s%s", sig, c.example(s, nil))
			}
			for k, n := range c.tally.byDesign {
				used[k] += n
			}
		})
	}
	for _, x := range exportExcuses {
		for _, p := range x.pairs {
			if used[x.row(p)] == 0 && !t.Failed() {
				t.Errorf("no packet is in the class %q", x.row(p))
			}
		}
	}
	t.Log(used)
}

// exportExcuses are what an export does otherwise than the policy, packet by packet.
var exportExcuses = []class{
	{"what Linux does not tell", "a rule that rejects what the kernel's export drops: other protocols, ICMP and segments of no flow",
		[]pair{{dropped, refused}},
		func(c *comparison, s *step) bool {
			p := s.sent.proto
			return s.loose && (p != packet.UDP || s.sent.more)
		}},
	{"martians to itself", "a source that nobody has asks the firewall itself: the export tells it",
		[]pair{{refused, dropped}, {arrived, dropped}},
		func(c *comparison, s *step) bool { return c.a.own(s.sent.dst) && s.t.reason == verdict.Martian }},
	{"addresses of a pool", "which of several external addresses a host gets is the choice of each",
		[]pair{{forwarded, forwarded}},
		func(c *comparison, s *step) bool {
			other := s.k.d
			other.src, other.sport = s.t.d.src, s.t.d.sport
			return s.k.out == s.t.out && other.String() == s.t.d.String() && c.g.sameEntry(s.sent.src, s.k.d.src, s.t.d.src)
		}},
	{"the DNS proxy", "a question of the LAN's arrives at the export's router, which has no name server; the proxy has answered it",
		[]pair{{arrived, forwarded}},
		func(c *comparison, s *step) bool {
			return s.in == c.g.lan && s.k.port == 53 && s.sent.dport == 53 && s.t.d.sport == 53 && s.t.out == s.in
		}},
}

func withoutNames(rs []policy.Rule) (out []policy.Rule) {
	for _, r := range rs {
		if len(r.Names) == 0 {
			out = append(out, r)
		}
	}
	return out
}

// externals returns the firewall's addresses on the WAN beside the interface's.
func externals(p *policy.Policy) (as []netip.Addr) {
	see := func(a netip.Addr) {
		if a != p.WAN().Prefix.Addr() && !slices.Contains(as, a) {
			as = append(as, a)
		}
	}
	for _, s := range p.SNAT {
		for _, a := range s.External {
			see(a)
		}
	}
	for _, d := range p.DNAT {
		see(d.WAN)
	}
	return as
}
