package router

import "github.com/thurward/thurward/internal/guest/neigh"

// gatewayAsk is whether the gateway is still asked for, and when next.
type gatewayAsk struct {
	due bool
	at  int64
}

// askEvery is the interval of requests for the gateway.
const askEvery = second

// gatewayTick asks for the gateway: so its address is known before the first packet, and
// who watches the firewall knows that it reaches its gateway, even without traffic.
func (e *Engine) gatewayTick(now int64) {
	p := e.outside
	switch n := p.neigh.Find(p.gateway); {
	case n != nil && n.State != neigh.Incomplete:
		e.gate.due = false
	case now >= e.gate.at:
		e.gate.at = now + askEvery
		if n == nil { // frames that wait for it have it asked for
			p.neigh.Expect(now)
			e.ask(p, p.gateway, &broadcastMAC)
		}
	}
}

// Gateway returns the link-layer address of the gateway, if it is known.
func (e *Engine) Gateway() (mac [6]byte, ok bool) {
	n := e.outside.neigh.Find(e.outside.gateway)
	if n == nil || n.State == neigh.Incomplete {
		return mac, false
	}
	return n.MAC, true
}
