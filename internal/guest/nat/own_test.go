package nat

import (
	"testing"

	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
)

func policyWith(snat ...ruleset.SNAT) *ruleset.Policy {
	return &ruleset.Policy{
		Interfaces: []ruleset.Interface{
			{Role: ruleset.LAN, Address: packet.Addr(0x0a000001).To16(), PrefixLen: 24},
			{Role: ruleset.WAN, Address: external.To16(), PrefixLen: 24},
		},
		SNAT: snat,
	}
}

func newNAT(t *testing.T, p *ruleset.Policy) *NAT {
	t.Helper()
	s, err := New(p, 7)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestOwnPorts: no host gets a port that the firewall uses, nor the reverse, and all of a
// pool can be used.
func TestOwnPorts(t *testing.T) {
	for name, p := range map[string]*ruleset.Policy{
		"masquerade":       policyWith(ruleset.SNAT{Interface: 1, PortLo: 2000, PortHi: 2099}),
		"no pool":          policyWith(),
		"another external": policyWith(ruleset.SNAT{Interface: 1, PortLo: 2000, PortHi: 2099, External: packet.Addr(0xcb00710b).To16()}),
	} {
		t.Run(name, func(t *testing.T) {
			s := newNAT(t, p)
			o := s.Own()
			if o.Addr() != external {
				t.Fatalf("address %x", o.Addr())
			}
			var pool *Pool
			for _, q := range s.Pools() {
				if q.Addr == external {
					pool = q
				}
			}
			taken := map[uint16]bool{}
			if pool != nil {
				for i := range packet.Addr(40) {
					port, ok := pool.Take(packet.UDP, 1+i, 5000, uint64(i)<<57)
					if !ok || taken[port] {
						t.Fatalf("port %d, %v", port, ok)
					}
					taken[port] = true
				}
			}
			near, last := 0, uint16(0)
			for i := range uint64(60) {
				port, ok := o.Take(packet.UDP, (i+1)*0xd1342543de82ef95)
				if !ok || taken[port] || port < 1024 {
					t.Fatalf("port %d, %v", port, ok)
				}
				if port-last < 3 {
					near++
				}
				taken[port], last = true, port
			}
			if pool != nil {
				if _, ok := o.Take(packet.UDP, 5); ok || pool.InUse(packet.UDP) != 100 {
					t.Fatalf("a port of a full pool; %d in use", pool.InUse(packet.UDP))
				}
			} else if near > 5 {
				t.Fatalf("%d of 60 ports follow the one before", near)
			}
			if _, ok := o.Take(packet.TCP, 5); !ok {
				t.Fatal("TCP has ports of its own")
			}
			if _, ok := o.Take(packet.ICMP, 5); ok {
				t.Fatal("a port for ICMP")
			}
			o.Give(packet.UDP, last)
			if pool != nil {
				if port, ok := o.Take(packet.UDP, 5); !ok || port != last {
					t.Fatalf("port %d, %v; want %d", port, ok, last)
				}
			}
		})
	}
}
