package prove

import (
	"math/bits"
	"net/netip"
	"slices"

	"github.com/thurward/thurward/internal/host/policy"
	"github.com/thurward/thurward/internal/host/policy/packetset"
	"github.com/thurward/thurward/internal/shared/packet"
)

// Edges returns, for source, destination and port, the first values of the stretches
// within which the data plane makes no difference beside that of the rules: the
// networks that have no hosts, those of the interfaces, the firewall's addresses, and
// what translation names.
func Edges(p *policy.Policy) (e [packetset.NumRanges][]uint32) {
	both := func(lo, hi uint32) {
		for _, d := range [...]int{packetset.Src, packetset.Dst} {
			e[d] = append(e[d], lo)
			if hi != ^uint32(0) {
				e[d] = append(e[d], hi+1)
			}
		}
	}
	network := func(n netip.Prefix) { both(span(n)) }
	one := func(a netip.Addr) { network(netip.PrefixFrom(a, 32)) }
	port := func(lo, hi int) { e[packetset.Port] = append(e[packetset.Port], uint32(lo), uint32(hi)+1) }
	for _, n := range packet.NotForwarded {
		both(uint32(n.Addr), uint32(n.Addr)|^uint32(n.Mask))
	}
	// Where Addr.IsHost and the private networks of the DNS proxy change.
	for _, n := range packet.NotGlobal {
		both(uint32(n.Addr), uint32(n.Addr)|^uint32(n.Mask))
	}
	for _, i := range []*policy.Interface{p.LAN(), p.WAN()} {
		network(i.Prefix.Masked())
		one(i.Prefix.Addr())
		one(i.Prefix.Masked().Addr())
		one(policy.Broadcast(i.Prefix))
	}
	for i := range p.SNAT {
		if s := &p.SNAT[i]; s.Source.IsValid() {
			network(s.Source)
		}
		for _, a := range p.SNAT[i].External {
			one(a)
		}
	}
	for i := range p.DNAT {
		d := &p.DNAT[i]
		one(d.WAN)
		one(d.To)
		for _, f := range d.From {
			network(f)
		}
		port(d.Ports.Lo, d.Ports.Hi)
		port(d.ToPort, d.ToPort+d.Ports.Hi-d.Ports.Lo)
	}
	port(policy.DNSPort, policy.DNSPort)
	for d := range e {
		slices.Sort(e[d])
		e[d] = slices.Compact(e[d])
	}
	return e
}

// each calls f with a flow of each cell of a region, until f returns false or there are
// too many.
func (w *prover) each(r *packetset.Region, f func(policy.Flow) bool) {
	kind := bits.TrailingZeros16(uint16(r.Kinds))
	flow := policy.Flow{FromLAN: kind/packetset.NumClasses%2 == 0, FQDN: w.name(r),
		Protocol: [...]policy.Protocol{packetset.TCP: policy.TCP, packetset.UDP: policy.UDP, packetset.ICMP: policy.ICMP}[kind%packetset.NumClasses]}
	var at [packetset.NumRanges][]uint32
	for d := range at {
		at[d] = w.within(d, r.Lo[d], r.Hi[d])
	}
	for _, src := range at[packetset.Src] {
		for _, dst := range at[packetset.Dst] {
			for _, port := range at[packetset.Port] {
				if w.cells++; w.cells > maxCells {
					return
				}
				flow.Src = netip.AddrPortFrom(address(src), 0)
				flow.Dst = netip.AddrPortFrom(address(dst), uint16(port))
				if !f(flow) {
					return
				}
			}
		}
	}
}

// within returns the first values of the stretches of a range.
func (w *prover) within(d int, lo, hi uint32) []uint32 {
	e := w.edges[d]
	i, _ := slices.BinarySearch(e, lo+1)
	all := []uint32{lo}
	if lo == ^uint32(0) {
		return all
	}
	for ; i < len(e) && e[i] <= hi; i++ {
		all = append(all, e[i])
	}
	return all
}
