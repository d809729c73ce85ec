package replay

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"
	"time"

	"github.com/thurward/thurward/internal/host/policy/policytest"
)

const named = `
interfaces:
  lan0: { address: 10.0.0.1/24 }
  wan0: { address: 203.0.113.10/24, gateway: 203.0.113.1 }
defaults:
  default_action: deny
  upstream_dns: 198.51.100.53
nat:
  snat:
    - { out_interface: wan0, source: 10.0.0.0/24, masquerade: true }
rules:
  - { id: dns, action: accept, direction: egress, protocol: udp, destination: 10.0.0.1, destination_port: 53 }
  - { id: site, action: accept, direction: egress, protocol: udp, destination_port: 443, destination_fqdn: example.com }
`

// message is a DNS message about example.com with the given answer, an IPv4
// address, if any.
func message(id uint16, name string, answer []byte) string {
	b := make([]byte, 12)
	binary.BigEndian.PutUint16(b, id)
	b[2], b[5] = 1, 1
	for _, l := range strings.Split(name, ".") {
		b = append(append(b, byte(len(l))), l...)
	}
	b = append(b, 0, 0, 1, 0, 1)
	if answer != nil {
		b[2], b[3], b[7] = 0x81, 0x80, 1
		b = append(b, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4)
		b = append(b, answer...)
	}
	return string(b)
}

// TestReplayNames: a rule with a name accepts packets in a replay as it did when the
// captures were made, though the firewall's own query has another port and id.
func TestReplayNames(t *testing.T) {
	ask := udp(firewallLAN, hostMAC, "10.0.0.2:5000", "10.0.0.1:53", message(7, "eXample.com", nil))
	reply := udp(firewallWAN, routerMAC, "198.51.100.53:53", "203.0.113.10:33333", message(999, "exAmple.com", []byte{192, 0, 2, 80}))
	other := udp(firewallWAN, routerMAC, "198.51.100.53:53", "203.0.113.10:33333", message(999, "example.org", []byte{192, 0, 2, 80}))
	to := func(a string) []byte { return udp(firewallLAN, hostMAC, "10.0.0.2:6000", a+":443", "hello") }
	for _, c := range []struct {
		answer []byte
		open   bool
	}{{reply, true}, {other, false}} {
		var events bytes.Buffer
		s, err := Run(Options{Policy: policytest.Compile(t, named), Seed: 1, Drain: time.Second, Events: &events, In: [2]string{
			pcap(t, false, at{0, ask}, at{30 * ms, to("192.0.2.80")}, at{31 * ms, to("192.0.2.81")}),
			pcap(t, false, at{20 * ms, c.answer})}})
		if err != nil {
			t.Fatal(err)
		}
		accepted := uint64(0)
		for _, r := range s.Rules {
			if r.ID == "site" {
				accepted = r.Accepted
			}
		}
		if c.open && strings.Count(events.String(), `"destination.domain":"example.com"`) == 0 {
			t.Errorf("no event names the destination:\n%s", events.String())
		}
		if (accepted == 1) != c.open || (s.Answers == 1) != c.open || accepted > 1 {
			t.Errorf("open %v: %d packets accepted by the name's rule, %d answers paired\n%s", c.open, accepted, s.Answers, events.String())
		}
	}
}
