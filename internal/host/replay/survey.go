package replay

import (
	"encoding/binary"
	"errors"
	"io"

	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
)

// A survey finds the firewall's link-layer address on one side in a capture. The
// router takes only frames that are addressed to its port, and a capture may have
// frames that the firewall sent, which must not be received.
type survey struct {
	side     Side
	addr     packet.Addr // the port's own
	net      packet.Addr
	mask     packet.Addr
	gateway  packet.Addr
	external map[packet.Addr]bool // other addresses of the firewall on this side
	claims   map[[6]byte]int      // senders of ARP messages for the port's address
	votes    map[[6]byte]int      // senders and receivers of packets that only the firewall sends or receives
	seen     map[[6]byte]bool
	hosts    map[packet.Addr][6]byte // on-link addresses, and the gateway's
	// Of the WAN's side, for frames whose link has no addresses: the LAN's network, and
	// whether packets from it are translated.
	inNet, inMask packet.Addr
	translates    bool
	// By clear frames of a cooked capture: its host is the firewall, or is not. atHome
	// says that it is, whatever the frames say.
	agree, disagree int
	atHome          bool
}

func newSurvey(s Side, p *ruleset.Policy) *survey {
	v := &survey{side: s, external: map[packet.Addr]bool{}, claims: map[[6]byte]int{}, votes: map[[6]byte]int{},
		seen: map[[6]byte]bool{}, hosts: map[packet.Addr][6]byte{}}
	f := p.Interface([...]ruleset.Role{ruleset.LAN, ruleset.WAN}[s])
	if f == nil {
		return v // the router will refuse the policy
	}
	v.addr, _ = packet.AddrFrom16(f.Address)
	v.mask = packet.Addr(uint32(uint64(0xffffffff) << (32 - f.PrefixLen)))
	v.net = v.addr & v.mask
	v.gateway, _ = packet.AddrFrom16(f.Gateway)
	if s == WAN {
		if l := p.Interface(ruleset.LAN); l != nil {
			in, _ := packet.AddrFrom16(l.Address)
			v.inMask = packet.Addr(uint32(uint64(0xffffffff) << (32 - l.PrefixLen)))
			v.inNet = in & v.inMask
		}
		v.translates = len(p.SNAT) > 0
		for i := range p.SNAT {
			if a, ok := packet.AddrFrom16(p.SNAT[i].External); ok {
				v.external[a] = true
			}
		}
		for i := range p.DNAT {
			if a, ok := packet.AddrFrom16(p.DNAT[i].External); ok {
				v.external[a] = true
			}
		}
	}
	return v
}

func (v *survey) own(a packet.Addr) bool { return a == v.addr || v.external[a] }

// scan reads a capture to its end.
func (v *survey) scan(r *reader) error {
	for {
		f, err := r.next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if r.link == linkEthernet {
			v.look(f.data)
		} else {
			v.lookCooked(&f)
		}
	}
}

// lookCooked is look for a frame without the receiver's link-layer address.
func (v *survey) lookCooked(f *frameIn) {
	v.vote(f)
	from, _, ok := ends(f.data)
	if c, clear := v.byAddresses(f.data); !ok || !clear || c == departs {
		return
	}
	switch src := [6]byte(f.data[6:]); {
	case from&v.mask == v.net:
		v.host(from, src)
	case v.side == WAN && v.gateway != 0:
		v.host(v.gateway, src)
	}
}

func (v *survey) look(f []byte) {
	typ := packet.Type(f)
	if typ == 0 {
		return
	}
	dst, src := [6]byte(f), [6]byte(f[6:])
	v.seen[dst], v.seen[src] = true, true
	switch typ {
	case packet.TypeARP:
		var m packet.ARPMessage
		if !packet.ParseARP(f, &m) || m.SenderAddr == 0 {
			return
		}
		if v.own(m.SenderAddr) {
			v.claims[m.SenderMAC]++
		} else {
			v.host(m.SenderAddr, m.SenderMAC)
		}
	case packet.TypeIPv4:
		if len(f) < packet.EthLen+packet.MinIPv4 || f[packet.EthLen]>>4 != 4 {
			return
		}
		// Only the addresses are needed; the rest may have been cut off.
		ip := f[packet.EthLen:]
		from, to := packet.Addr(binary.BigEndian.Uint32(ip[12:])), packet.Addr(binary.BigEndian.Uint32(ip[16:]))
		if dst[0]&1 == 0 && (v.own(to) || v.side == LAN && to&v.mask != v.net) {
			v.votes[dst]++
		}
		onLink := from&v.mask == v.net
		switch {
		case v.own(from) || v.side == LAN && !onLink:
			v.votes[src]++
		case onLink:
			v.host(from, src)
		case v.side == WAN && v.gateway != 0:
			v.host(v.gateway, src)
		}
	}
}

// host records the first link-layer address of an address.
func (v *survey) host(a packet.Addr, mac [6]byte) {
	if _, ok := v.hosts[a]; !ok && mac[0]&1 == 0 && mac != ([6]byte{}) {
		v.hosts[a] = mac
	}
}

// How the firewall's link-layer address on one side was found.
const (
	byFlag   = "given"
	byPolicy = "the policy's"
	byARP    = "found by ARP"
	byVotes  = "found by the packets' addresses"
	byNone   = "not found: frames to any host are taken as frames to the firewall"
	// Of links without link-layer addresses of both ends.
	byHost  = "not in this kind of capture, whose host is the firewall: it tells what arrived"
	byRoute = "not in this kind of capture: the packets' addresses tell what arrived"
)

// identify returns the link-layer address for the port, and how it was found. With
// byNone the address is not in the capture.
func (v *survey) identify(link int, flag [6]byte, p *ruleset.Policy) ([6]byte, string) {
	if link != linkEthernet {
		how := byRoute
		if v.atFirewall() {
			how = byHost
		}
		if flag == ([6]byte{}) {
			flag = DefaultMAC[v.side]
		}
		return flag, how
	}
	if flag != ([6]byte{}) {
		return flag, byFlag
	}
	if f := p.Interface([...]ruleset.Role{ruleset.LAN, ruleset.WAN}[v.side]); f != nil && f.HasMAC != 0 && v.seen[f.MAC] {
		return f.MAC, byPolicy
	}
	if m, ok := most(v.claims); ok {
		return m, byARP
	}
	if m, ok := most(v.votes); ok {
		return m, byVotes
	}
	return DefaultMAC[v.side], byNone
}

// most returns the address with the most votes, the smallest of several.
func most(m map[[6]byte]int) (best [6]byte, ok bool) {
	for a, n := range m {
		if !ok || n > m[best] || n == m[best] && string(a[:]) < string(best[:]) {
			best, ok = a, true
		}
	}
	return best, ok
}

// neighbour returns the link-layer address that answers ARP requests for a: that in
// the capture, or a made-up one.
func (v *survey) neighbour(a packet.Addr, own [6]byte) [6]byte {
	if m, ok := v.hosts[a]; ok && m != own {
		return m
	}
	return [6]byte{2, 0x54, byte(a >> 24), byte(a >> 16), byte(a >> 8), byte(a)}
}
