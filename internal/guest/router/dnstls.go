package router

import (
	"github.com/thurward/thurward/internal/guest/dot"
	"github.com/thurward/thurward/internal/guest/export"
	"github.com/thurward/thurward/internal/guest/tcp"
	"github.com/thurward/thurward/internal/shared/event"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// DNS over TLS: a link for each upstream that has it. Here the links get their
// TCP, their ports and their turn; whoever starts the engine starts a goroutine
// for the other side of each (Links).

// An UpstreamLink is a link and the number of its upstream in the policy.
type UpstreamLink struct {
	Up   int
	Pipe *dot.Pipe
}

// newLinks makes the links.
func (e *Engine) newLinks(p *ruleset.Policy, clockSet bool) {
	e.names.byUp = make([]*dot.Link, len(p.Upstreams))
	for i := range p.Upstreams {
		u := &p.Upstreams[i]
		if u.TLS == 0 {
			continue
		}
		a, _ := packet.AddrFrom16(u.Address) // IPv4: the proxy has looked
		l := dot.New(dot.Config{Up: i, Addr: a, Port: u.Port, User: linkUser{e}, TCP: e.names.tcp, ClockSet: clockSet}, dot.NewPipe())
		e.names.links = append(e.names.links, l)
		e.names.byUp[i] = l
	}
}

// Links returns the links of the upstreams that are asked over TLS.
func (e *Engine) Links() (ls []UpstreamLink) {
	for i, l := range e.names.byUp {
		if l != nil {
			ls = append(ls, UpstreamLink{i, l.Pipe()})
		}
	}
	return ls
}

// withTLS returns how many upstreams are asked over TLS.
func withTLS(p *ruleset.Policy) (n int) {
	for i := range p.Upstreams {
		n += int(p.Upstreams[i].TLS)
	}
	return n
}

// LinkBytes returns the memory that the links of a policy take, with that of
// their TCP connections.
func LinkBytes(p *ruleset.Policy) int {
	return withTLS(p) * (dot.Bytes + tcp.StreamBytes)
}

// LinksWork reports whether a goroutine that speaks TLS has something to do, or
// Poll something that it has done: the loop does not sleep then.
func (e *Engine) LinksWork() bool {
	for _, l := range e.names.links {
		if l.Working() {
			return true
		}
	}
	return false
}

// linksPoll moves what there is to move.
func (e *Engine) linksPoll(now int64) {
	for _, l := range e.names.links {
		l.Poll(now)
	}
}

func (e *Engine) linksTick(now int64) {
	for _, l := range e.names.links {
		l.Tick(now)
	}
}

// linksDue returns when a link has something to do, or d when that is earlier.
func (e *Engine) linksDue(d int64) int64 {
	for _, l := range e.names.links {
		if at, ok := l.Due(); ok {
			d = min(d, max(at, e.tick))
		}
	}
	return d
}

// SendTLS implements dnsproxy.Transport.
func (c carrier) SendTLS(up int, msg []byte) bool { return c.e.names.byUp[up].Send(msg, c.e.now) }

// linkUser is what the links tell the engine.
type linkUser struct{ e *Engine }

// AllocPort implements dot.User.
func (u linkUser) AllocPort() (packet.Addr, uint16, bool) { return u.e.takeTCPPort() }

// FreePort implements dot.User.
func (u linkUser) FreePort(p uint16) { u.e.GivePort(packet.TCP, p) }

// Response implements dot.User.
func (u linkUser) Response(up int, msg []byte) { u.e.names.proxy.TLSResponse(up, msg, u.e.now) }

// Lost implements dot.User.
func (u linkUser) Lost(up int, failed bool) { u.e.names.proxy.TLSLost(up, failed, u.e.now) }

// Failed implements dot.User.
func (u linkUser) Failed(up int, c dot.Class, reason []byte) {
	e := u.e
	if e.events == nil {
		return
	}
	to := &e.policy.Upstreams[up]
	r := event.Record{Time: e.now, Kind: event.UpstreamFailed, TLS: c, Direction: verdict.Egress, EtherType: packet.TypeIPv4, Proto: packet.TCP,
		Dst: to.Address, DstPort: to.Port}
	e.emitText(&r, reason)
}

// linkMetrics describes the counters of all links together.
func (e *Engine) linkMetrics() []export.Family {
	links := e.names.links
	sum := func(of func(c *dot.Counters) uint64) (n uint64) {
		for _, l := range links {
			n += of(l.Counters())
		}
		return n
	}
	return []export.Family{
		{Name: "thurward_dns_upstream_tls_connections_total", Help: "TLS connections to upstreams that were opened: the certificate was the right one.", Type: export.Counter,
			Fill: func(v []uint64) { v[0] = sum(func(c *dot.Counters) uint64 { return c.Connections }) }},
		{Name: "thurward_dns_upstream_tls_failures_total", Help: "TLS connections to upstreams that failed, by cause.", Type: export.Counter, N: int(verdict.NumTLSClasses) - 1,
			Labels: export.LabelOf("reason", func(i int) string { return verdict.TLSClass(i + 1).String() }),
			Fill: func(v []uint64) {
				for i := range v {
					v[i] = sum(func(c *dot.Counters) uint64 { return c.Failures[i+1] })
				}
			}},
		{Name: "thurward_dns_upstream_tls_unsent_total", Help: "Queries for which a TLS connection had no room.", Type: export.Counter,
			Fill: func(v []uint64) { v[0] = sum(func(c *dot.Counters) uint64 { return c.Unsent }) }},
		{Name: "thurward_dns_upstream_tls_open", Help: "Upstreams to which a TLS connection is open.", Type: export.Gauge, Fill: func(v []uint64) {
			v[0] = 0
			for _, l := range links {
				if l.State() == dot.Open {
					v[0]++
				}
			}
		}},
	}
}
