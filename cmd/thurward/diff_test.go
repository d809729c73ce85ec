package main

import (
	"fmt"
	"strings"
	"testing"
)

func TestDiff(t *testing.T) {
	old := write(t, "old.yaml", office)
	edit := func(pairs ...string) string {
		return write(t, "new.yaml", strings.NewReplacer(pairs...).Replace(office))
	}
	for _, c := range []struct {
		name string
		new  string
		code int
		want []string
	}{
		{"same", old, 0, []string{"do the same"}},
		{"the name of a rule", edit("name: Mail", "name: No mail"), 0, []string{"do the same"}},
		{"a port", edit("destination_port: 25", "destination_port: [25, 465]"), 3, []string{
			"deny by default-deny -> reject by no-mail (", "\n  egress tcp any -> any :465\n", "example: tcp 10.0.0.2 to 198.51.100.1:465 from the lan"}},
		{"an action", edit("id: no-mail, name: Mail, action: reject", "id: no-mail, action: deny"), 3, []string{
			"reject by no-mail (", "-> deny by no-mail (", "egress tcp any -> any :25"}},
		{"a name", edit(`[example.com, "*.example.net"]`, `[example.com, "*.example.net", www.example.org]`), 4, []string{
			"deny by default-deny -> accept by by-name (", "egress new tcp any -> ", ":443 named www.example.org not named *.example.net or example.com",
			"accept by lan (", "known as www.example.org"}},
		{"a name that a wildcard implies", edit(`[example.com, "*.example.net"]`, `[example.com, "*.example.net", www.example.net]`), 0, []string{"do the same"}},
		{"the order", edit("id: no-mail, name: Mail, action: reject, direction: egress, protocol: tcp, destination_port: 25", "id: no-mail, action: reject, direction: egress, protocol: tcp, destination_port: 22",
			"  - { id: server", "  - { id: early, action: accept, direction: egress, protocol: tcp, destination_port: 22 }\n  - { id: server"), 4, []string{
			"reject by", "accept by early ("}},
		{"sni", edit(`"*.example.net"]`, `"*.example.net"], sni: require`), 3, []string{"accept by by-name with sni: require ("}},
		{"settings", edit("upstream_dns: 192.0.2.53", "upstream_dns: 192.0.2.54, max_flows: 4096, conntrack_timeouts: { icmp_echo: 61 }"), 4, []string{
			"defaults.max_flows: 65536 -> 4096", "defaults.conntrack_timeouts.icmp_echo: 60 -> 61", "dns.upstreams: 192.0.2.53:53 -> 192.0.2.54:53"}},
		{"nat", edit("masquerade: true", "masquerade: true, port_range: 3000-3999", `"10.0.0.5:443"`, `"10.0.0.5:444"`, ", hairpin: true", ""), 4, []string{
			"nat.snat[1]: removed: source any to masquerade, ports 1024-65535", "nat.snat[1]: added: source any to masquerade, ports 3000-3999",
			"nat.dnat[0]: removed: tcp 203.0.113.10:8443 to 10.0.0.5:443 from any, hairpin", "nat.dnat[0]: added: tcp 203.0.113.10:8443 to 10.0.0.5:444 from any"}},
		{"a shadow rule", edit("destination_port: 1-1023", "destination_port: 1-1024"), 3, []string{"shadow rules[0]: removed: try: deny egress tcp", "port 1-1024"}},
		{"enforcing it", edit("mode: shadow, ", ""), 3, []string{"accept by by-name (", "-> deny by try (", "shadow rules[0]: removed"}},
	} {
		code, out, errs := capture(t, "diff", old, c.new)
		if code != c.code {
			t.Errorf("%s: exit %d, want %d\n%s%s", c.name, code, c.code, out, errs)
		}
		for _, w := range c.want {
			if !strings.Contains(out+errs, w) {
				t.Errorf("%s: no %q in\n%s%s", c.name, w, out, errs)
			}
		}
	}
}

// TestDiffIsCapped: the text form counts what it leaves out, and --all shows it.
func TestDiffIsCapped(t *testing.T) {
	text := office
	for i := range 60 {
		text += fmt.Sprintf("  - { id: r%d, action: accept, direction: egress, protocol: udp, destination: 192.0.2.%d, destination_port: [%s] }\n", i, i,
			strings.TrimSuffix(strings.Repeat("1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, ", 1), ", "))
	}
	old, new := write(t, "old.yaml", office), write(t, "new.yaml", text)
	_, out, _ := capture(t, "diff", old, new)
	for _, w := range []string{"and 10 more changes (--all shows them)", "and 2 more sets of packets (--all shows them)"} {
		if !strings.Contains(out, w) {
			t.Errorf("no %q in\n%s", w, out)
		}
	}
	if _, out, _ = capture(t, "diff", "--all", old, new); strings.Contains(out, "more change") || strings.Contains(out, "more sets") || strings.Count(out, "example:") != 60 {
		t.Errorf("with --all:\n%s", out)
	}
}
