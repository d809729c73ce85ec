package router

import (
	"github.com/thurward/thurward/internal/guest/conntrack"
	"github.com/thurward/thurward/internal/guest/endpoint"
	"github.com/thurward/thurward/internal/guest/framebuf"
	"github.com/thurward/thurward/internal/guest/nat"
	"github.com/thurward/thurward/internal/shared/ruleset"
)

// Memory is the memory of the router's tables and buffers for a policy, in bytes. Each reports
// its own; only here they are added up, for the firewall, which checks the sum before it starts, and for thurward check, which prints it.
type Memory struct {
	Buffers int // of packets
	Flows   int // the flow table, and the table of sources where there are limits
	Ports   int // pools of external ports, and port forwards
	Names   int // names that clients have resolved, and server names being read; 0 without a DNS proxy
	Links   int // connections to upstreams with TLS
}

// MemoryOf returns the memory for a policy and packets of at most mtu bytes: see LargestMTU.
func MemoryOf(p *ruleset.Policy, mtu int) Memory {
	s := &p.Settings
	flows := int(s.MaxFlows)
	n, span := Buffers(mtu)
	return Memory{Buffers: n * span * framebuf.Size, Flows: conntrack.Bytes(flows) + conntrack.SourcesBytes(flows, s.SourceFlows, s.SourceRate),
		Ports: nat.Bytes(p), Names: NameBytes(p), Links: endpoint.LinkBytes(p)}
}

// Total returns the sum in bytes.
func (m Memory) Total() int { return m.Buffers + m.Flows + m.Ports + m.Names + m.Links }
