package e2e

import (
	"encoding/binary"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/thurward/thurward/internal/host/netlab"
)

// The stations of a ping from the LAN, in order.
const (
	atAsked    = iota // the request enters the LAN
	atOutside         // the firewall puts it on the WAN
	atAnswered        // the router puts the reply on the WAN
	atInside          // the firewall puts it on the LAN
	stations
)

// A trail follows each echo request and reply over the wires of both sides, so
// that a lost one has a place and a slow one has parts.
type trail struct {
	mu    sync.Mutex
	pings map[uint64]*passage
}

// A passage is one ping: when it came by each station, and the wire that
// dropped it.
type passage struct {
	at      [stations]time.Time
	dropped string
}

// follow begins to follow pings; they are told apart by what netlab.Host.Ping
// sends in them.
func follow(l *lab) *trail {
	tr := &trail{pings: map[uint64]*passage{}}
	tap := func(request, reply int) func(string, []byte) {
		return func(from string, f []byte) {
			p, isReply, ok := tr.find(f)
			if !ok {
				return
			}
			defer tr.mu.Unlock()
			station, vm := request, request == atOutside
			if isReply {
				station, vm = reply, reply == atInside
			}
			if (from == "vm") == vm && p.at[station].IsZero() {
				p.at[station] = time.Now()
			}
		}
	}
	l.LANSwitch.Tap(tap(atAsked, atInside))
	l.WANSwitch.Tap(tap(atOutside, atAnswered))
	for _, sw := range []*netlab.Switch{l.LANSwitch, l.WANSwitch} {
		sw.OnDrop(func(at string, f []byte) {
			if p, _, ok := tr.find(f); ok {
				p.dropped = sw.Name + " wire, towards " + at
				tr.mu.Unlock()
			}
		})
	}
	return tr
}

// find returns the ping to which a frame belongs, with the lock held if ok.
func (tr *trail) find(f []byte) (p *passage, reply, ok bool) {
	const icmp = 14 + 20
	if len(f) < icmp+16 || f[12] != 8 || f[13] != 0 || f[14] != 0x45 || f[23] != 1 || f[icmp] != 8 && f[icmp] != 0 {
		return nil, false, false
	}
	key := binary.BigEndian.Uint64(f[icmp+8:])
	tr.mu.Lock()
	p = tr.pings[key]
	if p == nil {
		p = &passage{}
		tr.pings[key] = p
	}
	return p, f[icmp] == 0, true
}

// lost counts the pings whose reply did not come back to the LAN, by where
// they were lost; firewall is how many of them entered the firewall, or its
// machine, and did not leave it.
func (tr *trail) lost() (where map[string]int, firewall int) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	where = map[string]int{}
	for _, p := range tr.pings {
		switch {
		case !p.at[atInside].IsZero():
		case p.dropped != "":
			where[p.dropped]++
		case !p.at[atAnswered].IsZero():
			where["firewall, inwards"]++
			firewall++
		case !p.at[atOutside].IsZero():
			where["the simulated internet"]++
		default:
			where["firewall, outwards"]++
			firewall++
		}
	}
	return where, firewall
}

// slow returns the passages whose time within the firewall and on its wires was
// longer than limit.
func (tr *trail) slow(limit time.Duration) (ps []*passage) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	for _, p := range tr.pings {
		if !p.at[atInside].IsZero() && p.firewall() > limit {
			ps = append(ps, p)
		}
	}
	return ps
}

// firewall returns how long the firewall had the ping, both ways.
func (p *passage) firewall() time.Duration {
	return p.at[atOutside].Sub(p.at[atAsked]) + p.at[atInside].Sub(p.at[atAnswered])
}

func (p *passage) String() string {
	ms := func(a, b int) string { return fmt.Sprintf("%.1f ms", float64(p.at[b].Sub(p.at[a]))/1e6) }
	return fmt.Sprintf("sent %s: out through the firewall %s, the internet %s, back through the firewall %s",
		p.at[atAsked].Format("15:04:05.000"), ms(atAsked, atOutside), ms(atOutside, atAnswered), ms(atAnswered, atInside))
}

// TestTrail: each place where a ping can be lost is told apart.
func TestTrail(t *testing.T) {
	l := &lab{Network: &netlab.Network{LANSwitch: netlab.NewSwitch("lan"), WANSwitch: netlab.NewSwitch("wan")}}
	tr := follow(l)
	port := func(sw *netlab.Switch, name string) *netlab.Port { return sw.Attach(name, func([]byte) {}) }
	alice, inner := port(l.LANSwitch, "alice"), port(l.LANSwitch, "vm")
	router, outer := port(l.WANSwitch, "router"), port(l.WANSwitch, "vm")
	echo := func(key byte, reply bool) []byte {
		f := make([]byte, 60)
		f[5], f[11], f[12], f[14], f[23], f[34], f[49] = 1, 2, 8, 0x45, 1, 8, key
		if reply {
			f[34] = 0
		}
		return f
	}
	for key := range byte(4) { // pings 0 to 3 come so many stations far
		alice.Send(echo(key, false))
		if key > 0 {
			outer.Send(echo(key, false))
		}
		if key > 1 {
			router.Send(echo(key, true))
		}
		if key > 2 {
			inner.Send(echo(key, true))
		}
	}
	where, n := tr.lost()
	if n != 2 || where["firewall, outwards"] != 1 || where["the simulated internet"] != 1 || where["firewall, inwards"] != 1 || len(where) != 3 {
		t.Errorf("%v, %d in the firewall", where, n)
	}
	if len(tr.slow(-1)) != 1 || len(tr.slow(time.Hour)) != 0 {
		t.Error("the one that came back is not measured")
	}
}
