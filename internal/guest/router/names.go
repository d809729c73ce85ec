package router

import (
	"math"
	"math/rand/v2"
	"slices"

	"github.com/thurward/thurward/internal/guest/endpoint"
	"github.com/thurward/thurward/internal/guest/filter"
	"github.com/thurward/thurward/internal/guest/fqdn"
	"github.com/thurward/thurward/internal/guest/sni"
	"github.com/thurward/thurward/internal/shared/event"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// Names of destinations, for rules and events.

// sweepNames is how many bindings of names a tick examines.
const sweepNames = 64

// names is the state about names. Without upstreams in the policy set is nil.
type names struct {
	set   *fqdn.Set
	found fqdn.Found
	again fqdn.Found
	text  [4 * fqdn.MaxName]byte

	record event.Record // that is being written, where it has a name
}

// NameBytes returns the memory of a policy's name set and of server names, in bytes.
func NameBytes(p *ruleset.Policy) int {
	if len(p.Upstreams) == 0 {
		return 0
	}
	return fqdn.Bytes(nameCapacity(p)) + serverNameBytes(p)
}

func nameCapacity(p *ruleset.Policy) int {
	if n := int(p.Settings.DNSNames); n > 0 {
		return n
	}
	return ruleset.DefaultDNSNames
}

// wantsServerNames reports whether a rule of the policy requires the server name.
func wantsServerNames(p *ruleset.Policy) bool {
	for i := range p.Rules {
		if p.Rules[i].SNI != 0 {
			return true
		}
	}
	return false
}

func serverNameBytes(p *ruleset.Policy) int {
	if wantsServerNames(p) {
		return sni.Bytes
	}
	return 0
}

// newHost makes the name set and the endpoint, which fills it.
//
// Of several workers the first is the host. The others answer echo requests, and ask its
// name set.
func (e *Engine) newHost(c *Config, sh *shared) (err error) {
	p := c.Policy
	if e.w != nil && e.w.k != 0 {
		only := *p
		only.Upstreams = nil
		if e.names.set = sh.names; e.names.set != nil && wantsServerNames(p) {
			e.sni = sni.New()
		}
		e.host, err = endpoint.New(endpoint.Config{Policy: &only, Pool: c.Pool, Wire: uplink{e}, Ports: e.nat.Own(),
			MTU: [2]int{endpoint.LAN: e.inside.mtu, endpoint.WAN: e.outside.mtu}})
		return err
	}
	hc := endpoint.Config{Policy: p, Pool: c.Pool, Wire: uplink{e}, Ports: e.nat.Own(), Events: c.Events, ClockSet: c.ClockSet,
		MTU: [2]int{endpoint.LAN: e.inside.mtu, endpoint.WAN: e.outside.mtu}}
	if len(p.Upstreams) > 0 {
		e.dnsRng = rand.NewChaCha8(dnsSeed(&c.Secret))
		hc.Random = e.dnsRng
		if hc.Patterns, err = fqdn.NewPatterns(p, p.Names); err != nil {
			return err
		}
		s := &p.Settings
		nc := fqdn.Config{Capacity: nameCapacity(p), Floor: int64(s.DNSFloor) * second, Grace: int64(s.DNSGrace) * second,
			Patterns: hc.Patterns, Secret: [2]uint64{hc.Random.Uint64(), hc.Random.Uint64()}, Alloc: c.Alloc}
		if e.w != nil {
			nc.Changing = sh.gates
		}
		hc.Names = fqdn.New(nc)
		e.names.set = hc.Names
		if wantsServerNames(p) {
			e.sni = sni.New()
		}
	}
	e.host, err = endpoint.New(hc)
	return err
}

// Host returns the firewall as a host.
func (e *Engine) Host() *endpoint.Host { return e.host }

// Names returns the name set, nil without upstreams.
func (e *Engine) Names() *fqdn.Set { return e.names.set }

// findNames finds the names that the source of a packet from the LAN has resolved to dst,
// the packet's destination before translation. It sets e.names.found, and the patterns that
// match them in fp.
func (e *Engine) findNames(dst packet.Addr, fp *filter.Packet, now int64) {
	e.enter()
	e.names.set.Find(fp.Src, dst, now, &e.names.found)
	fp.Names = e.names.found.IDs
}

// nameDecided returns the naming of events about a packet that rule has decided: the newest
// of the names found with which alone the same rule would decide, or else the newest. name
// is the naming without names.
func (e *Engine) nameDecided(
	dst packet.Addr, fp *filter.Packet, name naming, action ruleset.Action, rule uint32, now int64,
) naming {
	n := &e.names
	if k := n.found.Names; len(k) > 0 {
		best := k[0]
		if len(k) > 1 && k[1].InPolicy {
			one := *fp
			for i := range k {
				n.set.Patterns(k[i].Name, &n.again)
				one.Names = n.again.IDs
				if v := e.filter.Decide(&one); v.Rule == rule {
					best = k[i]
					break
				}
			}
		}
		name.name, name.lookup = best.Name, best.Lookup
	}
	if action == ruleset.Accept || len(e.policy.Names) == 0 {
		return name
	}
	// Would an expired name of this client, or a name of another client, have been
	// accepted?
	n.set.FindExpired(fp.Src, dst, now, &n.again)
	if k, ok := e.wouldAccept(fp); ok {
		return naming{k.Name, k.Lookup, verdict.NameExpired, agoSeconds(now - k.Expires)}
	}
	n.set.FindAnyClient(dst, now, &n.again)
	if k, ok := e.wouldAccept(fp); ok {
		return naming{k.Name, k.Lookup, verdict.OtherClient, 0}
	}
	return name
}

// wouldAccept returns the newest of the names in e.names.again with which the policy would
// accept a packet.
func (e *Engine) wouldAccept(fp *filter.Packet) (k fqdn.Known, ok bool) {
	n := &e.names
	var names [fqdn.MaxKnown]fqdn.Known
	one := *fp
	for _, k := range names[:copy(names[:], n.again.Names)] {
		if !k.InPolicy {
			break // names that rules use come first
		}
		n.set.Patterns(k.Name, &n.again)
		one.Names = n.again.IDs
		if e.filter.Decide(&one).Action == ruleset.Accept {
			return k, true
		}
	}
	return k, false
}

// agoSeconds rounds nanoseconds up to seconds: a grace this long would have been enough.
func agoSeconds(ns int64) uint32 {
	return uint32(min((max(ns, 0)/second)+1, math.MaxUint32))
}

// bypassOf returns the protocol by which a packet of a LAN host may query another DNS
// server, 0 when it does not.
func bypassOf(p *received) verdict.Hint {
	switch p.DstPort {
	case 53, 853, 443:
		return bypass(p)
	}
	return 0
}

// bypass is bypassOf for the ports of such protocols.
func bypass(p *received) verdict.Hint {
	stream := p.Class == packet.ClassTCP
	if !stream && p.Class != packet.ClassUDP {
		return 0
	}
	switch p.DstPort {
	case 53:
		return verdict.BypassDNS
	case 853:
		if stream {
			return verdict.BypassDoT
		}
		return verdict.BypassDoQ
	case 443:
		if _, ok := slices.BinarySearch(resolvers[:], p.Dst); ok {
			return verdict.BypassDoH
		}
	}
	return 0
}

// resolvers are addresses of public resolvers with DNS over HTTPS, sorted.
var resolvers = sorted(
	0x01000001, 0x01000002, 0x01000003, 0x01010101, 0x01010102, 0x01010103, // Cloudflare
	0x6810f8f9, 0x6810f9f9, // cloudflare-dns.com, also as used by Firefox
	0x08080808, 0x08080404, // Google
	0x09090909, 0x0909090a, 0x0909090b, 0x9570700a, 0x9570700b, 0x95707009, 0x95707070, // Quad9
	0xd043dede, 0xd043dcdc, 0x92702902, // OpenDNS
	0x5e8c0e0e, 0x5e8c0f0f, 0x5e8c0e8c, 0x5e8c0e8d, // AdGuard
	0xb9e4a8a8, 0xb9e4a809, 0xb9e4a80a, 0xb9e4a9a8, 0xb9e4a909, 0xb9e4a90b, // CleanBrowsing
	0x4c4c0200, 0x4c4c0a00, 0x4c4c020b, // Control D
	0xc2f20202, 0xc2f20203, 0xc2f20204, 0xc2f20205, 0xc2f20206, 0xc2f20209, // Mullvad
	0xb9dedede, 0x2d0b2d0b, // DNS.SB
	0x65656565,             // Quad101
	0xdf050505, 0xdf060606, // AliDNS
	0x010c0c0c, 0x78353535, // DNSPod
	0x4d580808, 0x4d580801, // Yandex
	0xc16e5100, 0xb9fd0500, // dns0.eu
)

func sorted(a ...packet.Addr) []packet.Addr { slices.Sort(a); return a }
