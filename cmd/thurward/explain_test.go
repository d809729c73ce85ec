package main

import (
	"fmt"
	"strings"
	"testing"
)

const office = `interfaces:
  lan0: { address: 10.0.0.1/24 }
  wan0: { address: 203.0.113.10/24, gateway: 203.0.113.1 }
defaults: { default_action: deny, upstream_dns: 192.0.2.53 }
nat:
  snat:
    - { out_interface: wan0, source: 10.0.0.0/28, external_ip: [203.0.113.20, 203.0.113.21], port_range: 2000-2999 }
    - { out_interface: wan0, masquerade: true }
  dnat:
    - { wan_ip: 203.0.113.10, wan_port: 8443, to: "10.0.0.5:443", proto: tcp, hairpin: true }
rules:
  - { id: try, action: deny, mode: shadow, direction: egress, protocol: tcp, destination_port: 1-1023 }
  - { id: server, action: accept, direction: ingress, protocol: tcp, destination: 10.0.0.5, destination_port: 443 }
  - { id: by-name, action: accept, direction: egress, protocol: tcp, destination_port: 443, destination_fqdn: [example.com, "*.example.net"] }
  - { id: no-mail, name: Mail, action: reject, direction: egress, protocol: tcp, destination_port: 25 }
  - { id: lan, action: accept, direction: egress, protocol: [tcp, udp], destination_port: [22, 8000-8999, 443], destination: [198.51.100.0/24, 10.0.0.5] }
  - { id: back, action: accept, direction: ingress, state: established }
`

func TestExplain(t *testing.T) {
	file := write(t, "rules.yaml", office)
	for _, c := range []struct {
		args string
		code int
		want []string // in the output
	}{
		{"--from lan --proto tcp --src 10.0.0.5:40000 --dst 198.51.100.7:22", 0, []string{
			"accept, by rule lan (", "rules.yaml:16)", "10.0.0.5 becomes 203.0.113.20 or 203.0.113.21, by nat.snat[0], with its own port if that is free and in 2000-2999",
			"rule try (", ":12) would have decided: deny", "answers accept, by rule back (",
			"rule server (", "direction is ingress, the packet has egress", "destination_port is 443, the packet has 22"}},
		{"--from lan --proto tcp --src 10.0.0.77 --dst 198.51.100.7:22", 0, []string{"10.0.0.77 becomes 203.0.113.10, by nat.snat[1]"}},
		{"--from lan --proto tcp --src 10.0.0.5 --dst 198.51.100.7:25", 3, []string{"reject, by rule no-mail ("}},
		{"--from lan --proto udp --src 10.0.0.5 --dst 192.0.2.9:22", 3, []string{"deny, by the default action", "destination is 198.51.100.0/24, 10.0.0.5/32, the packet has 192.0.2.9"}},
		{"--from lan --proto tcp --src 10.0.0.5 --fqdn www.example.net:443", 0, []string{"by rule by-name (", "names   *.example.net"}},
		{"--from lan --proto tcp --src 10.0.0.5 --dst 192.0.2.1:443 --fqdn a.b.example.net", 3, []string{"destination_fqdn is example.com, *.example.net, the packet has a.b.example.net"}},
		// S08: rules see the address after destination NAT.
		{"--from wan --proto tcp --src 198.51.100.7:9 --dst 203.0.113.10:8443", 0, []string{"by rule server (", "203.0.113.10:8443 becomes 10.0.0.5:443 before the rules see it, by nat.dnat[0]", "rules.yaml:10)"}},
		{"--from lan --proto tcp --src 10.0.0.9:9 --dst 203.0.113.10:8443", 0, []string{"by rule lan (", "10.0.0.9 becomes 203.0.113.20 or 203.0.113.21, by nat.snat[0]"}},
		{"--from wan --proto udp --src 198.51.100.7:53 --dst 10.0.0.5:40000 --state established", 0, []string{"by rule back ("}},
		{"--from wan --proto tcp --src 198.51.100.7:53 --dst 203.0.113.10:22", 3, []string{"deny, by the default action"}},
		{"--from lan --proto tcp --src 192.0.2.1 --dst 198.51.100.7:22", 3, []string{"drop, before the rules are asked: 192.0.2.1 is not in the network of lan0", "(martian)"}},
		{"--from lan --proto 47 --src 10.0.0.5 --dst 198.51.100.7", 3, []string{"gre 10.0.0.5 to 198.51.100.7", "drop, before the rules are asked: only TCP, UDP and ICMP echoes pass the firewall (conntrack_invalid)"}},
		// A point in time.
		{"--from lan --proto tcp --src 10.0.0.5 --fqdn www.example.net:443 --resolved-ago 59s --ttl 1m", 0, []string{"by rule by-name ("}},
		{"--from lan --proto tcp --src 10.0.0.5 --fqdn www.example.net:443 --resolved-ago 72 --ttl 60", 3, []string{"(www.example.net, expired 12s ago)", "hint    a rule would accept it, had the name not expired", "the packet has www.example.net (it expired 12s ago)"}},
		{"--from lan --proto tcp --src 10.0.0.5 --fqdn www.example.net:443 --expired 12s", 3, []string{"hint    a rule would accept it, had the name not expired"}},
		{"--from lan --proto tcp --src 10.0.0.5 --fqdn www.example.org:443 --expired 12s", 3, []string{"(www.example.org, expired 12s ago) from the lan\ndeny, by the default action\n  shadow"}},
		{"--from lan --proto tcp --src 10.0.0.5 --fqdn www.example.net:443 --by-other", 3, []string{"hint    a rule would accept it, had this host resolved the name"}},
		{"--from lan --proto tcp --src 10.0.0.5 --fqdn www.example.net:443 --by-other --format json", 3, []string{`"hint": "name_resolved_by_other_client"`}},
		{"--from lan --proto tcp --src 10.0.0.5 --dst 192.168.1.1:443 --fqdn www.example.net", 3, []string{"a name that dns.private_names does not have"}},
	} {
		code, out, errs := capture(t, append([]string{"explain", "-f", file}, strings.Fields(c.args)...)...)
		if code != c.code {
			t.Errorf("%s: exit %d, want %d\n%s%s", c.args, code, c.code, out, errs)
		}
		for _, w := range c.want {
			if !strings.Contains(out+errs, w) {
				t.Errorf("%s: no %q in\n%s%s", c.args, w, out, errs)
			}
		}
	}
}

// TestExplainLargePolicy: of many rules the nearest are shown, in the order of
// the policy, and the others are counted.
func TestExplainLargePolicy(t *testing.T) {
	text := office
	for i := range 500 {
		text += fmt.Sprintf("  - { id: r%d, action: accept, direction: egress, protocol: udp, destination: 192.0.2.%d, destination_port: 99 }\n", i, i%250)
	}
	file := write(t, "rules.yaml", text)
	args := []string{"explain", "-f", file, "--from", "lan", "--proto", "udp", "--src", "10.0.0.5", "--dst", "192.0.2.3:7"}
	_, out, _ := capture(t, args...)
	for _, w := range []string{"506 rules before that do not match; the nearest:", "rule r3 (", "rule r253 (", "destination_port is 99, the packet has 7", "and 501 more (--all shows them): 2 by direction, 3 by protocol, 496 by destination"} {
		if !strings.Contains(out, w) {
			t.Errorf("no %q in\n%s", w, out)
		}
	}
	if n := strings.Count(out, "\n"); n > 10 {
		t.Errorf("%d lines", n)
	}
	if _, out, _ = capture(t, append(args, "--all")...); strings.Count(out, "\n") != 509 {
		t.Errorf("%d lines with --all", strings.Count(out, "\n"))
	}
}
