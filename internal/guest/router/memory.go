package router

import (
	"github.com/thurward/thurward/internal/guest/conntrack"
	"github.com/thurward/thurward/internal/guest/endpoint"
	"github.com/thurward/thurward/internal/guest/nat"
	"github.com/thurward/thurward/internal/shared/ruleset"
)

// Memory is what the router's tables take for a policy, in bytes. Each table
// says what it needs; their sum stands here alone, for the firewall, which
// checks it before it starts, and for thurward check, which prints it.
type Memory struct {
	Flows int // the flow table, with what is kept of each source where there are limits
	Ports int // pools of external ports, and port forwards
	Names int // names that clients have resolved, and server names being read; 0 without a DNS proxy
	Links int // connections to upstreams with TLS
}

// MemoryOf returns what the tables of a policy take.
func MemoryOf(p *ruleset.Policy) Memory {
	s := &p.Settings
	flows := int(s.MaxFlows)
	return Memory{Flows: conntrack.Bytes(flows) + conntrack.SourcesBytes(flows, s.SourceFlows, s.SourceRate),
		Ports: nat.Bytes(p), Names: NameBytes(p), Links: endpoint.LinkBytes(p)}
}

// Total returns the sum.
func (m Memory) Total() int { return m.Flows + m.Ports + m.Names + m.Links }
