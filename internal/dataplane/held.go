package dataplane

import (
	"math"

	"github.com/thurward/thurward/internal/conntrack"
	"github.com/thurward/thurward/internal/packet"
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
	due  int64
	key  conntrack.Key // as it arrived
	len  uint8
	head [heldQuote]byte
}

// heldSYNs is a queue in order of time.
type heldSYNs struct {
	ring  [heldMax]heldSYN
	first uint32
	n     uint32
}

func (h *heldSYNs) at(i uint32) *heldSYN { return &h.ring[(h.first+i)%heldMax] }

// due returns when the first is to be answered.
func (h *heldSYNs) due() int64 {
	if h.n == 0 {
		return math.MaxInt64
	}
	return h.at(0).due
}

// hold remembers the SYN of packet i, unless one of the same connection is
// held already. What finds no room is never answered.
func (e *Engine) hold(in *port, i int, now int64) {
	p := &e.b.pk[i]
	k := conntrack.Key{Src: p.Src, Dst: p.Dst, SrcPort: p.SrcPort, DstPort: p.DstPort, Proto: uint32(p.Proto)}
	h := &e.held
	for j := range h.n {
		if h.at(j).key == k {
			return
		}
	}
	if h.n == heldMax {
		e.c.AnswersSuppressed++
		return
	}
	s := h.at(h.n)
	h.n++
	s.due, s.key = now+holdFor, k
	s.len = uint8(copy(s.head[:min(int(p.L4)-packet.EthLen+8, heldQuote)], e.pool.Bytes(e.b.frame[i])[packet.EthLen:]))
}

// heldTick answers the held SYNs whose time has come.
func (e *Engine) heldTick(now int64) {
	h := &e.held
	for h.n > 0 && h.at(0).due <= now {
		s := h.at(0)
		h.first = (h.first + 1) % heldMax
		h.n--
		in := &e.port[wan]
		if e.flows.Taken(&s.key) {
			continue // the host inside wanted it too
		}
		if !in.answers[aboutRule].take(now) {
			e.c.AnswersSuppressed++
			continue
		}
		e.putError(in, s.head[:s.len], s.key.Src, packet.Unreachable, packet.PortUnreachable, 0, now)
	}
}
