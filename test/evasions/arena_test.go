package evasions

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/thurward/thurward/internal/shared/packet"
)

// The hosts. Behind the gateway are all addresses that are not on a link. The addresses of
// names are public ones: resolvers refuse those for documentation.
//
//	alice, bob, web ── 10.0.0.1 [firewall] 203.0.113.10 ── gateway, mallory, trent
const (
	alice   = "10.0.0.2"
	bob     = "10.0.0.3"
	web     = "10.0.0.4" // a server that is published: TCP 80 as 8080, for partners only; UDP 9000
	fwLAN   = "10.0.0.1"
	fwWAN   = "203.0.113.10"
	gateway = "203.0.113.1"
	mallory = "203.0.113.66"
	trent   = "203.0.113.67"
	dnsHost = "198.51.100.53"
	site    = "198.51.100.80" // TCP 80 is open to all of the LAN; UDP 4000-4999, too
	partner = "198.51.100.99" // may use what is published; others may not
	stolen  = "6.6.6.66"      // an address of the attacker's
	cdn     = "11.22.33.80"   // where several names lie
	other   = "11.22.33.81"
)

// policyText is the policy that the attacks are on. What the peers are set up
// to do is the same (peers_test.go).
const policyText = `
interfaces:
  lan0: { address: 10.0.0.1/PREFIX }
  wan0: { address: 203.0.113.10/24, gateway: 203.0.113.1 }
defaults:
  default_action: deny
  upstream_dns: 198.51.100.53
  fragments: reassemble
  SET
nat:
  snat:
    - { out_interface: wan0, source: 10.0.0.0/24, masquerade: true, port_range: PORTS }
  dnat:
    - { wan_ip: 203.0.113.10, wan_port: 8080, to: "10.0.0.4:80", proto: tcp, from: 198.51.100.0/24 }
    - { wan_ip: 203.0.113.10, wan_port: 9000, to: "10.0.0.4:9000", proto: udp }
rules:
  - { id: allow-dns, action: accept, direction: egress, destination: 10.0.0.1, destination_port: 53, protocol: [udp, tcp] }
  - { id: by-server-name, action: accept, direction: egress, destination_fqdn: [good.example, "*.pages.example"], destination_port: 443, protocol: tcp, sni: require }
  - { id: by-name, action: accept, direction: egress, destination_fqdn: [good.example, "*.pages.example"], destination_port: 8443, protocol: tcp }
  - { id: web, action: accept, direction: egress, destination: 198.51.100.80, destination_port: 80, protocol: tcp }
  - { id: games, action: accept, direction: egress, destination: 198.51.100.80, destination_port: 4000-4999, protocol: udp }
  - { id: ping, action: accept, direction: egress, protocol: icmp }
  - { id: published, action: accept, direction: ingress, destination: 10.0.0.4, destination_port: 80, protocol: tcp }
  - { id: published-udp, action: accept, direction: ingress, destination: 10.0.0.4, destination_port: 9000, protocol: udp }
  - { id: published-answers, action: accept, direction: egress, source: 10.0.0.4, state: established }
  - { id: allow-established, action: accept, direction: ingress, state: established }
`

type side int

const (
	lan side = iota
	wan
)

// A subject is a firewall between two wires.
type subject interface {
	// put puts a frame on a wire, towards the firewall.
	put(s side, frame []byte)
	// settle waits until the frames put have been processed, and returns the frames that
	// left on each side.
	settle() [2][][]byte
	// pass advances time.
	pass(d time.Duration)
	mac(s side) [6]byte
	// begin returns the first port and identification that hosts may use: a subject that is
	// used for several arenas may have state of an earlier one.
	begin() (port, id uint16)
	// note returns the subject's counters, for a failing test.
	note() string
}

// An arena is a subject with hosts around it. Those answer ARP; the upstream name server
// answers from zone; every address on the WAN, and web on the LAN, has a TCP that listens
// on all ports. Nothing else happens by itself.
type arena struct {
	t    testing.TB
	fw   subject
	seen [2][]*view // that left by each side, since clear; ARP is left out
	arps [2][]packet.ARPMessage
	ends [2]*end
	zone zone
	dead map[string]bool    // hosts that do not answer ARP
	away map[string]bool    // hosts without a TCP: nothing answers there by itself
	macs map[string][6]byte // hosts with another link-layer address than macOf
	part [2]wholes          // fragments on their way to a host
	port uint16
	id   uint16
}

func newArena(t testing.TB, fw subject) *arena {
	a := &arena{t: t, fw: fw, zone: zone{}, dead: map[string]bool{}, away: map[string]bool{}, macs: map[string][6]byte{}}
	a.port, a.id = fw.begin()
	for s := range a.ends {
		a.ends[s] = newEnd(a, side(s))
		a.part[s] = wholes{}
	}
	return a
}

func (a *arena) String() string {
	var b strings.Builder
	for s, vs := range a.seen {
		fmt.Fprintf(&b, "out of the %s: ", [...]string{"lan", "wan"}[s])
		for i, v := range vs {
			if i == 12 {
				fmt.Fprintf(&b, "and %d more", len(vs)-i)
				break
			}
			fmt.Fprintf(&b, "%v; ", v)
		}
	}
	return b.String() + a.fw.note()
}

// clear forgets what has left.
func (a *arena) clear() { a.seen, a.arps = [2][]*view{}, [2][]packet.ARPMessage{} }

// put sends packets from a side and returns what left by the other one.
func (a *arena) put(s side, ps ...pkt) []*view {
	fs := make([][]byte, len(ps))
	for i, p := range ps {
		fs[i] = a.frame(s, p)
	}
	return a.raw(s, fs...)
}

// frame is the frame of a packet as it comes from its host: by way of the
// gateway when that is behind it.
func (a *arena) frame(s side, p pkt) []byte {
	from := p.src
	if s == wan && !strings.HasPrefix(from, "203.0.113.") {
		from = gateway
	}
	to := a.fw.mac(s)
	if p.to != nil {
		to = *p.to
	}
	mac := a.macOf(from)
	if p.from != nil {
		mac = *p.from
	}
	if p.id == 0 {
		a.id++
		p.id = a.id
	}
	return p.frame(to, mac)
}

func (a *arena) macOf(host string) [6]byte {
	if m, ok := a.macs[host]; ok {
		return m
	}
	i := ip(host)
	return [6]byte{2, 9, byte(i >> 24), byte(i >> 16), byte(i >> 8), byte(i)}
}

func (a *arena) raw(s side, fs ...[]byte) []*view {
	n := len(a.seen[1-s])
	for _, f := range fs {
		a.fw.put(s, f)
	}
	a.run()
	return a.seen[1-s][n:]
}

// pass advances time.
func (a *arena) pass(d time.Duration) {
	a.fw.pass(d)
	a.run()
}

// run has the hosts answer until there are no more frames.
func (a *arena) run() {
	for range 20_000 { // on the image a thousand questions come in as many pieces
		out := a.fw.settle()
		if len(out[lan])+len(out[wan]) == 0 {
			return
		}
		for s := range out {
			for _, f := range out[s] {
				a.arrives(side(s), f)
			}
		}
	}
	a.t.Fatal("the hosts and the firewall do not come to rest")
}

// arrives handles a frame that the firewall sent.
func (a *arena) arrives(s side, f []byte) {
	if packet.Type(f) == packet.TypeARP {
		a.arp(s, f)
		return
	}
	v := a.part[s].add(f)
	if v == nil {
		return
	}
	v.to = [6]byte(f)
	a.seen[s] = append(a.seen[s], v)
	switch {
	case v.bad != "":
	case s == wan && v.dst == dnsHost && v.proto == packet.UDP && v.dport == 53:
		a.answerQuery(v)
	case v.proto == packet.TCP && (s == wan || v.dst == web) && !a.away[v.dst]:
		a.ends[s].segment(v)
	}
}

// arp answers a request of the firewall.
func (a *arena) arp(s side, f []byte) {
	var m packet.ARPMessage
	if !packet.ParseARP(f, &m) {
		return
	}
	a.arps[s] = append(a.arps[s], m)
	host := text(m.TargetAddr)
	onLink := strings.HasPrefix(host, [...]string{"10.0.0.", "203.0.113."}[s])
	if m.Op != packet.ARPRequest || m.TargetAddr == m.SenderAddr || a.dead[host] || !onLink || host == fwLAN || host == fwWAN {
		return
	}
	a.fw.put(s, arpFrame(packet.ARPReply, a.macOf(host), host, m.SenderMAC, text(m.SenderAddr), m.SenderMAC))
}

// arpFrame is an ARP message from a sender to a link-layer address.
func arpFrame(op uint16, mac [6]byte, addr string, targetMAC [6]byte, target string, to [6]byte) []byte {
	f := make([]byte, 60)
	packet.PutARP(f, &to, &packet.ARPMessage{Op: op, SenderMAC: mac, SenderAddr: ip(addr), TargetMAC: targetMAC, TargetAddr: ip(target)})
	return f
}

// next returns a port that no host has used.
func (a *arena) next() uint16 {
	a.port++
	return a.port
}
