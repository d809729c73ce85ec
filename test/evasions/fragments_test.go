package evasions

import (
	"slices"

	"github.com/thurward/thurward/internal/shared/packet"
)

// The policy has fragments put together; where it does not, which is the
// default, none passes at all. Datagrams are alice's to the site, UDP 4000.

// pieces sends a datagram of alice's in pieces which f has altered, and reports
// whether a datagram reaches the site. The pieces have 64 bytes.
func pieces(f func(ps []piece) []piece) func(a *arena, legit bool) bool {
	return func(a *arena, legit bool) bool {
		p := udp(alice, a.next(), site, 4000, string(make([]byte, 200)))
		ps := p.cut(64)
		if !legit {
			ps = f(ps)
		}
		a.raw(lan, a.fragments(lan, p, ps...)...)
		return a.reached(wan, site, packet.UDP)
	}
}

var fragments = []attack{
	{name: "fragments/tiny", trick: "the first fragment is so small that the port lies in the second", source: "RFC 1858 section 3", fate: "fragmented_ipv4: the header lies in the first fragment whole",
		run: func(a *arena, legit bool) bool {
			p := tcp(alice, a.next(), site, 80, packet.SYN, 1000, 0)
			n := 8
			p.opts, p.data = make([]byte, 20), make([]byte, 24)
			if legit {
				n = 40
			}
			a.raw(lan, a.fragments(lan, p, p.cut(n)...)...)
			return a.reached(wan, site, packet.TCP)
		}},
	{name: "fragments/rewritten-header", trick: "the second fragment begins 8 bytes into the header and writes other flags over those that were judged", source: "RFC 3128; RFC 1858 section 4", fate: "fragmented_ipv4: an overlap poisons the datagram",
		run: func(a *arena, legit bool) bool {
			p := tcp(alice, a.next(), site, 80, packet.SYN, 1000, 0)
			p.data = make([]byte, 20)
			ps := p.cut(24)
			if !legit {
				b := p.transport()
				ps = []piece{ps[0], {8, b[8:], false}}
			}
			a.raw(lan, a.fragments(lan, p, ps...)...)
			return a.reached(wan, site, packet.TCP)
		}},
	{name: "fragments/overlap", trick: "a fragment reaches into the next, with other bytes there", source: "Ptacek, Newsham 1998; Novak 2005; RFC 5722", fate: "fragmented_ipv4: the datagram is poisoned",
		run: pieces(func(ps []piece) []piece {
			ps[1].data = append(ps[1].data, "XXXXXXXX"...)
			return ps
		})},
	{name: "fragments/overlap-backwards", trick: "a fragment reaches into the one before", source: "Novak 2005; RFC 5722", fate: "fragmented_ipv4: the datagram is poisoned",
		run: pieces(func(ps []piece) []piece {
			ps[2].at -= 8
			ps[2].data = append([]byte("XXXXXXXX"), ps[2].data...)
			return ps
		})},
	{name: "fragments/twice-otherwise", trick: "the same place twice, with other bytes: who keeps the first reads one thing, who keeps the last another", source: "Ptacek, Newsham 1998; Novak 2005", fate: "fragmented_ipv4: it waits in vain, or the datagram is poisoned",
		run: func(a *arena, legit bool) bool {
			p := udp(alice, a.next(), site, 4000, "name=good "+string(make([]byte, 200)))
			q := p
			q.data = slices.Clone(p.data)
			copy(q.data, "name=evil ")
			ps := p.cut(64)
			if !legit {
				ps = slices.Concat(ps[:1], q.cut(64)[:1], ps[1:])
			}
			a.raw(lan, a.fragments(lan, p, ps...)...)
			if legit {
				return a.reached(wan, site, packet.UDP)
			}
			// The trick works where both versions leave, for the server to choose.
			return slices.ContainsFunc(a.seen[wan], func(v *view) bool { return string(v.data[:9]) == "name=evil" })
		}},
	{name: "fragments/teardrop", trick: "a fragment that lies wholly inside another", source: "CVE-1999-0015 (teardrop)", fate: "fragmented_ipv4: the datagram is poisoned",
		run: pieces(func(ps []piece) []piece {
			return slices.Insert(ps, 1, piece{8, ps[0].data[8:40], true})
		})},
	{name: "fragments/ping-of-death", trick: "a fragment that ends beyond 65,535 bytes", source: "CVE-1999-0128 (ping of death)", fate: "malformed_packet",
		run: pieces(func(ps []piece) []piece {
			last := &ps[len(ps)-1]
			last.at = 65528
			last.data = make([]byte, 64)
			return ps
		})},
	{name: "fragments/gap", trick: "a fragment is left out", source: "CVE-1999-0431; \"rose\" 2004", fate: "fragmented_ipv4 after 30 seconds",
		run: pieces(func(ps []piece) []piece { return slices.Delete(ps, 1, 2) })},
	{name: "fragments/no-first", trick: "only what is not the first: no header to be judged", source: "RFC 1858 section 2", fate: "fragmented_ipv4 after 30 seconds",
		run: pieces(func(ps []piece) []piece { return ps[1:] })},
	{name: "fragments/two-ends", trick: "two last fragments, of which the second makes the datagram longer", source: "RFC 5722; jolt2, CVE-2000-0305", fate: "fragmented_ipv4: the datagram is poisoned",
		run: pieces(func(ps []piece) []piece {
			ps[1].more = false
			return ps
		})},
	{name: "fragments/behind-end", trick: "a fragment behind the last one", source: "RFC 5722", fate: "fragmented_ipv4: the datagram is poisoned",
		run: pieces(func(ps []piece) []piece {
			return slices.Insert(ps, 1, piece{4096, make([]byte, 64), true}, ps[len(ps)-1])
		})},
	{name: "fragments/odd-length", trick: "a fragment that is not the last has a length that is no multiple of 8", source: "RFC 791 section 3.2", fate: "malformed_packet",
		run: pieces(func(ps []piece) []piece {
			ps[1].data = ps[1].data[:63]
			return ps
		})},
	{name: "fragments/empty", trick: "a fragment without data", source: "CVE-1999-0431", fate: "malformed_packet; it delays nothing",
		run: func(a *arena, legit bool) bool {
			p := udp(alice, a.next(), site, 4000, "x")
			ps := []piece{{0, p.transport(), false}}
			if !legit {
				ps = []piece{{0, nil, true}, {8, nil, false}}
			}
			a.raw(lan, a.fragments(lan, p, ps...)...)
			return len(a.seen[wan]) > 0
		}},
	{name: "fragments/checksum", trick: "a wrong checksum, which only who has all fragments can see", source: "Ptacek, Newsham 1998", fate: "malformed_packet",
		run: pieces(func(ps []piece) []piece {
			ps[2].data[5] ^= 1
			return ps
		})},
	{name: "fragments/denied-port", trick: "a datagram to a port that is not open, in fragments, so that later ones have no port", source: "RFC 1858 section 2", fate: "no_matching_allow_rule, with all its fragments",
		run: func(a *arena, legit bool) bool {
			port := uint16(5353)
			if legit {
				port = 4001
			}
			p := udp(alice, a.next(), site, port, string(make([]byte, 200)))
			a.raw(lan, a.fragments(lan, p, p.cut(64)...)...)
			return len(a.seen[wan]) > 0
		}},
	{name: "fragments/mixed-sources", trick: "the last fragment comes from another host", source: "RFC 791 section 3.2", fate: "fragments belong to the addresses, the protocol and the identification",
		run: func(a *arena, legit bool) bool {
			p := udp(alice, a.next(), site, 4000, string(make([]byte, 200)))
			fs := a.fragments(lan, p, p.cut(64)...)
			if !legit {
				last := fs[len(fs)-1]
				last[29] = 3 // bob
				last[24], last[25] = 0, 0
				s := ^packet.Sum(last[14:34], 0)
				last[24], last[25] = byte(s>>8), byte(s)
			}
			a.raw(lan, fs...)
			return a.reached(wan, site, packet.UDP)
		}},
	{name: "fragments/icmp-error", trick: "an ICMP error in fragments, the quoted packet in the second", source: "RFC 5508; RFC 1812 section 4.3.2.7", fate: "fragmented_ipv4",
		run: func(a *arena, legit bool) bool {
			c := a.dial(lan, alice, site, 80)
			if c == nil {
				return false
			}
			p := quoting(c, nil)
			n := len(a.seen[lan])
			if legit {
				a.put(wan, p)
			} else {
				a.raw(wan, a.fragments(wan, p, p.cut(8)...)...)
			}
			return len(a.seen[lan]) > n
		}},
}
