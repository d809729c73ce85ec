package evasions

import (
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"github.com/thurward/thurward/internal/shared/packet"
)

// evilMAC is the attacker's link-layer address on each side.
var evilMAC = [6]byte{2, 66, 66, 66, 66, 66}

var all = [6]byte{255, 255, 255, 255, 255, 255}

// moved has a neighbour known, then an ARP message, and reports whether frames
// for it go to the attacker. The gateway's frames are pings of alice's; bob's are
// answers to pings of his.
func moved(s side, host string, f func(a *arena) []byte) func(a *arena, legit bool) bool {
	return func(a *arena, legit bool) bool {
		probe := func() [6]byte {
			n := len(a.seen[s])
			if s == wan {
				a.put(lan, echo(alice, site, a.next()))
			} else {
				a.put(lan, echo(bob, fwLAN, a.next()))
			}
			if len(a.seen[s]) == n {
				return [6]byte{}
			}
			return a.seen[s][len(a.seen[s])-1].to
		}
		if legit { // the address of who answers first
			a.macs[host] = evilMAC
			return probe() == evilMAC
		}
		if probe() != a.macOf(host) {
			return true // it never worked
		}
		a.raw(s, f(a))
		return probe() == evilMAC
	}
}

var arps = []attack{
	{name: "arp/gateway-reply", trick: "an answer that nobody asked for: mallory is the gateway", source: "RFC 826; Whalen 2001 (ARP spoofing)", fate: "martian, ARPConflicts",
		run: moved(wan, gateway, func(a *arena) []byte {
			return arpFrame(packet.ARPReply, evilMAC, gateway, a.fw.mac(wan), fwWAN, a.fw.mac(wan))
		})},
	{name: "arp/gateway-request", trick: "a question in the gateway's name", source: "RFC 826; Whalen 2001", fate: "martian, ARPConflicts",
		run: moved(wan, gateway, func(a *arena) []byte {
			return arpFrame(packet.ARPRequest, evilMAC, gateway, [6]byte{}, fwWAN, all)
		})},
	{name: "arp/gateway-announcement", trick: "an announcement (gratuitous ARP) of the gateway's address", source: "RFC 5227; CVE-1999-0667", fate: "martian, ARPConflicts",
		run: moved(wan, gateway, func(a *arena) []byte {
			return arpFrame(packet.ARPRequest, evilMAC, gateway, [6]byte{}, gateway, all)
		})},
	{name: "arp/gateway-announcement-reply", trick: "the same as an answer to all", source: "RFC 5227", fate: "martian, ARPConflicts",
		run: moved(wan, gateway, func(a *arena) []byte {
			return arpFrame(packet.ARPReply, evilMAC, gateway, evilMAC, gateway, all)
		})},
	{name: "arp/gateway-first", trick: "a question in the gateway's name, before the firewall knows the gateway", source: "RFC 826", fate: "the gateway is learned from answers only",
		run: func(a *arena, legit bool) bool {
			if legit {
				a.macs[gateway] = evilMAC
			} else {
				a.raw(wan, arpFrame(packet.ARPRequest, evilMAC, gateway, [6]byte{}, fwWAN, all))
			}
			a.put(lan, echo(alice, site, a.next()))
			return len(a.seen[wan]) > 0 && a.seen[wan][len(a.seen[wan])-1].to == evilMAC
		}},
	{name: "arp/host-reply", trick: "an answer that nobody asked for, in bob's name", source: "RFC 826; Whalen 2001", fate: "martian, ARPConflicts",
		run: moved(lan, bob, func(a *arena) []byte {
			return arpFrame(packet.ARPReply, evilMAC, bob, a.fw.mac(lan), fwLAN, a.fw.mac(lan))
		})},
	{name: "arp/host-request", trick: "a question in bob's name", source: "RFC 826; Whalen 2001", fate: "martian, ARPConflicts; bob is asked whether he is still there",
		run: moved(lan, bob, func(a *arena) []byte {
			return arpFrame(packet.ARPRequest, evilMAC, bob, [6]byte{}, fwLAN, all)
		})},
	{name: "arp/own-address", trick: "the firewall's own LAN address is claimed", source: "RFC 5227 section 2.4", fate: "martian, and the firewall defends it",
		run: func(a *arena, legit bool) bool {
			n := len(a.arps[lan])
			if legit {
				a.raw(lan, arpFrame(packet.ARPRequest, a.macOf(alice), alice, [6]byte{}, fwLAN, all))
				return len(a.arps[lan]) > n && a.arps[lan][n].Op == packet.ARPReply // the question is answered
			}
			// It is defended once in 10 seconds (DEFEND_INTERVAL): an attempt before this
			// one may have come within them.
			for range 2 {
				n = len(a.arps[lan])
				a.raw(lan, arpFrame(packet.ARPReply, evilMAC, fwLAN, evilMAC, fwLAN, all))
				answered := a.ask(alice, "good.example", 1) != nil // or else it has given up its address
				if answered && slices.ContainsFunc(a.arps[lan][n:], func(m packet.ARPMessage) bool { return text(m.SenderAddr) == fwLAN && m.SenderMAC == a.fw.mac(lan) }) {
					return false
				}
				a.pass(11 * time.Second)
			}
			return true
		}},
	{name: "arp/lan-address-on-wan", trick: "mallory asks on the WAN for the firewall's LAN address", source: "Linux arp_ignore; weak host model", fate: "not answered",
		run: func(a *arena, legit bool) bool {
			target := fwLAN
			if legit {
				target = fwWAN
			}
			n := len(a.arps[wan])
			a.raw(wan, arpFrame(packet.ARPRequest, a.macOf(mallory), mallory, [6]byte{}, target, all))
			return slices.ContainsFunc(a.arps[wan][n:], func(m packet.ARPMessage) bool { return m.Op == packet.ARPReply })
		}},
	{name: "arp/multicast-sender", trick: "bob's address at a link-layer address of a group: what is for him goes to all", source: "RFC 1812 section 3.3.2; CVE-2010-4525", fate: "malformed or martian: not learned",
		run: func(a *arena, legit bool) bool {
			a.dead[bob] = true
			mac := [6]byte{3, 66, 66, 66, 66, 66}
			if legit {
				mac = evilMAC
			}
			a.raw(lan, arpFrame(packet.ARPRequest, mac, bob, [6]byte{}, fwLAN, a.fw.mac(lan)))
			a.put(lan, echo(bob, fwLAN, a.next()))
			return slices.ContainsFunc(a.seen[lan], func(v *view) bool { return v.to == mac })
		}},
	{name: "arp/other-sender", trick: "the frame comes from another link-layer address than the message says", source: "Whalen 2001", fate: "a known neighbour does not move",
		run: moved(lan, bob, func(a *arena) []byte {
			f := arpFrame(packet.ARPReply, evilMAC, bob, a.fw.mac(lan), fwLAN, a.fw.mac(lan))
			mac := a.macOf(bob)
			copy(f[6:12], mac[:])
			return f
		})},
	{name: "arp/pushed-out", trick: "a thousand hosts that are not there ask, until bob's entry gives way, and then in his name", source: "", fate: "a live entry is never given up for a learned one", prefix: "20",
		run: func(a *arena, legit bool) bool {
			probe := func() [6]byte {
				a.put(lan, echo(bob, fwLAN, a.next()))
				return a.seen[lan][len(a.seen[lan])-1].to
			}
			if legit {
				a.macs[bob] = evilMAC
				return probe() == evilMAC
			}
			if probe() != a.macOf(bob) {
				return true
			}
			for i := range 4000 {
				a.fw.put(lan, arpFrame(packet.ARPRequest, evilMAC, fmt.Sprintf("10.0.%d.%d", i>>8, i&255|8), [6]byte{}, fwLAN, a.fw.mac(lan)))
			}
			a.run()
			a.raw(lan, arpFrame(packet.ARPRequest, evilMAC, bob, [6]byte{}, fwLAN, all))
			return probe() == evilMAC
		}, local: "it needs a larger LAN"},
	{name: "arp/short", trick: "a message that ends in the middle", source: "RFC 826", fate: "malformed_packet",
		run: func(a *arena, legit bool) bool {
			f := arpFrame(packet.ARPRequest, a.macOf(bob), bob, [6]byte{}, fwLAN, all)
			if !legit {
				f = f[:36]
			}
			n := len(a.arps[lan])
			a.raw(lan, f)
			return slices.ContainsFunc(a.arps[lan][n:], func(m packet.ARPMessage) bool { return m.Op == packet.ARPReply })
		}},
	{name: "arp/other-hardware", trick: "a message that is not about Ethernet: its addresses have other lengths", source: "RFC 826", fate: "malformed_packet",
		run: func(a *arena, legit bool) bool {
			f := arpFrame(packet.ARPRequest, a.macOf(bob), bob, [6]byte{}, fwLAN, all)
			if !legit {
				binary.BigEndian.PutUint16(f[packet.EthLen:], 7)
				f[packet.EthLen+4] = 8
			}
			n := len(a.arps[lan])
			a.raw(lan, f)
			return slices.ContainsFunc(a.arps[lan][n:], func(m packet.ARPMessage) bool { return m.Op == packet.ARPReply })
		}},
}
