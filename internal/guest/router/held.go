package router

import (
	"math"
	"math/bits"

	"github.com/thurward/thurward/internal/guest/conntrack"
	"github.com/thurward/thurward/internal/shared/packet"
)

// Unsolicited SYNs from the WAN to an address of translation, which the policy
// rejects. Such a SYN may be one half of a simultaneous open, whose other half
// the host inside is about to send. So it is answered only after 6 seconds, not
// at all if the connection has come to be by then, and with ICMP 3/3 and not
// with a RST, which would end the attempt for good (RFC 5382 REQ-4).

const (
	heldMax   = 128
	holdFor   = 6 * second
	heldQuote = 60 + 8 // the longest IP header, and what ICMP errors quote at least
)

type heldSYN struct {
	due   int64
	key   conntrack.Key // as it arrived
	group uint8         // of its source
	len   uint8
	head  [heldQuote]byte
}

// heldSYNs is a queue in order of time.
type heldSYNs struct {
	ring  [heldMax]heldSYN
	first uint32
	n     uint32
	by    [256]uint8 // how many there are, by group of sources, of a keyed hash
}

func (h *heldSYNs) at(i uint32) *heldSYN { return &h.ring[(h.first+i)%heldMax] }

// due returns when the first is to be answered.
func (h *heldSYNs) due() int64 {
	if h.n == 0 {
		return math.MaxInt64
	}
	return h.at(0).due
}

// relieve gives up the latest SYN of the group that has most, if that is not g.
func (h *heldSYNs) relieve(g uint8) bool {
	most := g
	for i, n := range h.by {
		if n > h.by[most] {
			most = uint8(i)
		}
	}
	if most == g {
		return false
	}
	for j := h.n; j > 0; j-- {
		if h.at(j-1).group != most {
			continue
		}
		for ; j < h.n; j++ {
			*h.at(j - 1) = *h.at(j)
		}
		h.n--
		h.by[most]--
		return true
	}
	return false // not reached: the group has one
}

// hold remembers the SYN of packet i, unless one of the same connection is
// held already. When there is no room for it the source that has most held loses
// one, or else it is never answered.
func (e *Engine) hold(p *received, now int64) {
	k := conntrack.Key{Src: p.Src, Dst: p.Dst, SrcPort: p.SrcPort, DstPort: p.DstPort, Proto: uint32(p.Proto)}
	h := &e.held
	for j := range h.n {
		if h.at(j).key == k {
			return
		}
	}
	hi, lo := bits.Mul64((uint64(p.Src)+1)*0x9e3779b97f4a7c15^e.rndKey, e.rndKey)
	g := uint8(hi ^ lo)
	if h.n == heldMax {
		e.c.AnswersSuppressed++ // this one, or another
		if !h.relieve(g) {
			return
		}
	}
	s := h.at(h.n)
	h.n++
	h.by[g]++
	s.due, s.key, s.group = now+holdFor, k, g
	s.len = uint8(copy(s.head[:min(int(p.L4)-packet.EthLen+8, heldQuote)], e.bytes(p)[packet.EthLen:]))
}

// heldTick answers the held SYNs whose time has come.
func (e *Engine) heldTick(now int64) {
	h := &e.held
	for h.n > 0 && h.at(0).due <= now {
		s := h.at(0)
		h.first = (h.first + 1) % heldMax
		h.n--
		h.by[s.group]--
		in := e.outside
		if e.flows.Taken(&s.key) {
			continue // the host inside wanted it too
		}
		if !in.answers[aboutRule].take(s.key.Src, e.rndKey, now) {
			e.c.AnswersSuppressed++
			continue
		}
		e.putError(in, s.head[:s.len], s.key.Src, packet.Unreachable, packet.PortUnreachable, 0, now)
	}
}
