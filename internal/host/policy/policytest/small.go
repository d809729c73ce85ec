package policytest

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

// SmallWorld are the interfaces of a policy in which tests can try every flow.
const SmallWorld = `interfaces:
  lan0: { address: 10.0.0.1/28 }
  wan0: { address: 203.0.113.10/29, gateway: 203.0.113.9 }
`

// Small returns a random policy in the small world: rules by address, port and name,
// translation, a forward, and a DNS proxy that may intercept and block.
func Small(r *rand.Rand) string {
	pick := func(words ...string) string { return words[r.IntN(len(words))] }
	var b strings.Builder
	b.WriteString(SmallWorld)
	fmt.Fprintf(&b, "defaults: { default_action: %s, upstream_dns: 9.9.9.9 }\n", pick("accept", "deny", "deny", "reject"))
	if r.IntN(3) == 0 {
		b.WriteString("dns: { intercept: true, block: [b.example.com] }\n")
	}
	b.WriteString("nat:\n")
	if r.IntN(3) > 0 {
		fmt.Fprintf(&b, "  snat: [ { out_interface: wan0, source: %s, masquerade: true } ]\n", pick("10.0.0.0/28", "10.0.0.0/29", "10.0.0.4/31"))
	}
	b.WriteString("  dnat:\n")
	if r.IntN(3) == 0 { // one that comes before the other
		fmt.Fprintf(&b, "    - { wan_ip: 203.0.113.10, wan_port: %s, to: \"10.0.0.6:1\", proto: tcp, from: 198.51.100.1, hairpin: true }\n", pick("4", "4-5"))
	}
	fmt.Fprintf(&b, "    - { wan_ip: %s, wan_port: %s, to: \"10.0.0.5:2\", proto: %s, from: %s, hairpin: %s }\n",
		pick("203.0.113.10", "203.0.113.11"), pick("2", "1-3", "53-54"), pick("tcp", "[tcp, udp]"), pick("any", "198.51.100.0/31", "0.0.0.0/0"), pick("true", "false"))
	b.WriteString("rules:\n")
	for i := range 1 + r.IntN(6) {
		fmt.Fprintf(&b, "  - { id: r%d", i)
		field := func(odds int, key string, words ...string) {
			if r.IntN(odds) > 0 {
				fmt.Fprintf(&b, ", %s: %s", key, pick(words...))
			}
		}
		if r.IntN(4) == 0 {
			fmt.Fprintf(&b, ", action: accept, direction: egress, destination_fqdn: %s", pick("a.example.com", "b.example.com", "\"*.example.com\""))
		} else {
			fmt.Fprintf(&b, ", action: %s", pick("accept", "accept", "deny"))
			field(2, "direction", "egress", "ingress")
		}
		field(2, "source", "10.0.0.0/30", "10.0.0.4/30", "198.51.100.0/31", "10.0.0.0/28")
		field(2, "destination", "198.51.100.0/31", "10.0.0.5", "10.0.0.1", "203.0.113.10", "10.0.0.0/28")
		field(2, "protocol", "tcp", "udp", "[tcp, udp]")
		if r.IntN(2) == 0 && strings.Contains(b.String()[strings.LastIndex(b.String(), "{"):], "protocol") {
			field(3, "destination_port", "1-3", "2", "[53, 54]", "3-65535")
		}
		field(3, "state", "new", "established")
		if r.IntN(8) == 0 {
			b.WriteString(", mode: shadow")
		}
		b.WriteString(" }\n")
	}
	return b.String()
}
