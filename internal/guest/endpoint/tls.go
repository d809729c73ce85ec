package endpoint

import (
	"github.com/thurward/thurward/internal/guest/dot"
	"github.com/thurward/thurward/internal/guest/export"
	"github.com/thurward/thurward/internal/guest/tcp"
	"github.com/thurward/thurward/internal/shared/event"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// DNS over TLS: a link for each upstream with TLS. The host gives the links TCP connections
// and ports, and polls them; the program that starts the router also starts a goroutine for
// the TLS side of each (Links).

// An UpstreamLink is the link to an upstream, by the upstream's number in the policy: the
// router's half of the connection, and the pipe to the goroutine that implements TLS.
type UpstreamLink struct {
	Up   int
	Link *dot.Link
	Pipe *dot.Pipe
}

// newLinks makes the links.
func (h *Host) newLinks() {
	p := h.c.Policy
	h.byUp = make([]*dot.Link, len(p.Upstreams))
	for i := range p.Upstreams {
		u := &p.Upstreams[i]
		if u.TLS == 0 {
			continue
		}
		a, _ := packet.AddrFrom16(u.Address) // IPv4: the proxy has checked
		l := dot.New(dot.Config{
			Up: i, Addr: a, Port: u.Port, User: linkUser{h}, TCP: h.tcp, ClockSet: h.c.ClockSet,
		}, dot.NewPipe())
		h.links = append(h.links, l)
		h.byUp[i] = l
	}
}

// Links returns the links of the upstreams with TLS.
func (h *Host) Links() (ls []UpstreamLink) {
	for i, l := range h.byUp {
		if l != nil {
			ls = append(ls, UpstreamLink{i, l, l.Pipe()})
		}
	}
	return ls
}

// withTLS returns the number of upstreams with TLS.
func withTLS(p *ruleset.Policy) (n int) {
	for i := range p.Upstreams {
		n += int(p.Upstreams[i].TLS)
	}
	return n
}

// LinkBytes returns the memory of a policy's links and their TCP connections in bytes.
func LinkBytes(p *ruleset.Policy) int {
	return withTLS(p) * (dot.Bytes + tcp.StreamBytes)
}

// Working reports whether a TLS goroutine has work, or results for Poll: the packet loop
// must not sleep then.
func (h *Host) Working() bool {
	for _, l := range h.links {
		if l.Working() {
			return true
		}
	}
	return false
}

// DropLinks resets the TLS connections to upstreams: see dot.Link.Drop.
func (h *Host) DropLinks() {
	for _, l := range h.links {
		l.Drop()
	}
}

// SendTLS implements dnsproxy.Transport.
func (c carrier) SendTLS(up int, msg []byte) bool { return c.h.byUp[up].Send(msg, c.h.now) }

// linkUser handles the links' events.
type linkUser struct{ h *Host }

// AllocPort implements dot.User.
func (u linkUser) AllocPort() (packet.Addr, uint16, bool) { return u.h.takeTCPPort() }

// FreePort implements dot.User.
func (u linkUser) FreePort(p uint16) { u.h.c.Ports.Give(packet.TCP, p) }

// Response implements dot.User.
func (u linkUser) Response(up int, msg []byte) { u.h.proxy.TLSResponse(up, msg, u.h.now) }

// Lost implements dot.User.
func (u linkUser) Lost(up int, failed bool) { u.h.proxy.TLSLost(up, failed, u.h.now) }

// Failed implements dot.User.
func (u linkUser) Failed(up int, c dot.Class, reason []byte) {
	h := u.h
	if h.c.Events == nil {
		return
	}
	to := &h.c.Policy.Upstreams[up]
	r := event.Record{Time: h.now, Kind: event.UpstreamFailed, TLS: c, Direction: verdict.Egress, EtherType: packet.TypeIPv4, Proto: packet.TCP,
		Dst: to.Address, DstPort: to.Port}
	h.c.Events.PutText(&r, reason)
}

// linkMetrics returns the metrics of all links together.
func (h *Host) linkMetrics() []export.Family {
	links := h.links
	sum := func(of func(c *dot.Counters) uint64) (n uint64) {
		for _, l := range links {
			n += of(l.Counters())
		}
		return n
	}
	return []export.Family{
		{Name: "thurward_dns_upstream_tls_connections_total",
			Help: "TLS connections to upstreams that were opened: the certificate was verified.",
			Type: export.Counter,
			Fill: func(v []uint64) { v[0] = sum(func(c *dot.Counters) uint64 { return c.Connections }) }},
		{Name: "thurward_dns_upstream_tls_failures_total",
			Help: "TLS connections to upstreams that failed, by cause.",
			Type: export.Counter, N: int(verdict.NumTLSClasses) - 1,
			Labels: export.LabelOf("reason", func(i int) string { return verdict.TLSClass(i + 1).String() }),
			Fill: func(v []uint64) {
				for i := range v {
					v[i] = sum(func(c *dot.Counters) uint64 { return c.Failures[i+1] })
				}
			}},
		{Name: "thurward_dns_upstream_tls_unsent_total",
			Help: "Queries for which a TLS connection had no room.",
			Type: export.Counter,
			Fill: func(v []uint64) { v[0] = sum(func(c *dot.Counters) uint64 { return c.Unsent }) }},
		{Name: "thurward_dns_upstream_tls_open",
			Help: "Upstreams to which a TLS connection is open.",
			Type: export.Gauge, Fill: func(v []uint64) {
				v[0] = 0
				for _, l := range links {
					if l.State() == dot.Open {
						v[0]++
					}
				}
			}},
	}
}
