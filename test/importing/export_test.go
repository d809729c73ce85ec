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
// that whatever differs, but for what the classes allow, fails.
func TestExport(t *testing.T) {
	needsRoot(t)
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
			c := &comparison{a: a, k: k, found: map[string]*step{}}
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
				pool := append(externals(p), p.WAN().Prefix.Addr())
				if s.kind == differs && s.k.d.dst == s.t.d.dst && slices.Contains(pool, s.k.d.src) &&
					slices.Contains(pool, s.t.d.src) {
					continue // which address of several a host gets is each one's own choice
				}
				if s.kind == answer && s.sent.proto == 4 {
					continue // the kernel's reject does not tell senders of IP in IP
				}
				if s.k.fate == dropped && s.t.fate == refused && a.own(s.sent.dst) && !c.service(s) {
					continue // the export drops what is for no service, thurward tells the sender where rules reject
				}
				if s.kind == answer && s.t.reason == verdict.Martian && a.own(s.sent.dst) {
					continue // a source that nobody has, as 192.0.0.8, about which the export has no rule
				}
				if s.k.fate == arrived && s.k.port == 53 && s.t.d.sport == 53 {
					continue // the proxy has answered
				}
				t.Errorf("%s%s", sig, c.example(s, nil))
			}
		})
	}
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
