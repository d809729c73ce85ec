package router

import (
	"github.com/thurward/thurward/internal/guest/conntrack"
	"github.com/thurward/thurward/internal/guest/endpoint"
	"github.com/thurward/thurward/internal/guest/framebuf"
	"github.com/thurward/thurward/internal/guest/handover"
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
	Workers int // what workers beside the first have otherwise
}

// furtherWorker is the memory of an engine beside its tables and rings, in bytes: neighbours,
// fragments, counters.
const furtherWorker = 512 << 10

// MemoryOf returns the memory for a policy and packets of at most mtu bytes (see LargestMTU),
// of a number of workers. Each has buffers and a pool of ports as the only one would have; they
// divide the flows.
func MemoryOf(p *ruleset.Policy, mtu, workers int) Memory {
	s := &p.Settings
	flows := flowsOf(int(s.MaxFlows), workers)
	n, span := Buffers(mtu)
	m := Memory{Buffers: workers * n * span * framebuf.Size,
		Flows: workers*conntrack.Bytes(flows) + conntrack.SourcesBytes(workers*flows, s.SourceFlows, s.SourceRate),
		Ports: workers*nat.Bytes(p) + nat.SharedBytes(p, workers), Names: NameBytes(p), Links: endpoint.LinkBytes(p)}
	if m.Names > 0 {
		m.Names += (workers - 1) * serverNameBytes(p)
	}
	m.Workers = (workers - 1) * (furtherWorker + workers*handover.Bytes(ringItems))
	return m
}

// Total returns the sum in bytes.
func (m Memory) Total() int {
	return m.Buffers + m.Flows + m.Ports + m.Names + m.Links + m.Workers
}
