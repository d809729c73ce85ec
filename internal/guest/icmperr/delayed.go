package icmperr

import (
	"math"
	"math/bits"

	"github.com/thurward/thurward/internal/guest/conntrack"
)

// Unsolicited SYNs from the WAN to an address of translation, which the policy
// rejects. Such a SYN may be one half of a simultaneous open, whose other half
// the host inside is about to send. So it is answered only after 6 seconds, not
// at all if the connection has come to be by then, and with ICMP 3/3 and not
// with a RST, which would end the attempt for good (RFC 5382 REQ-4).

const (
	MaxDelayed = 128
	Delay      = 6 * second
	quoteLen   = 60 + 8 // the longest IP header, and what ICMP errors quote at least
)

// A SYN is one whose answer waits.
type SYN struct {
	Key   conntrack.Key // as it arrived
	due   int64
	group uint8 // of its source
	len   uint8
	head  [quoteLen]byte
}

// Quote returns as much of the packet, from its IP header on, as its answer quotes.
func (s *SYN) Quote() []byte { return s.head[:s.len] }

// Delayed is the SYNs whose answers wait, in order of time. The zero Delayed is empty.
type Delayed struct {
	ring  [MaxDelayed]SYN
	first uint32
	n     uint32
	by    [256]uint8 // how many there are, by group of sources, of a keyed hash
}

func (d *Delayed) at(i uint32) *SYN { return &d.ring[(d.first+i)%MaxDelayed] }

// Len returns how many there are.
func (d *Delayed) Len() int { return int(d.n) }

// Due returns when the first is to be answered, math.MaxInt64 when there is none.
func (d *Delayed) Due() int64 {
	if d.n == 0 {
		return math.MaxInt64
	}
	return d.at(0).due
}

// Add takes a SYN, unless one of the same connection is there. ip is the packet, of
// which head bytes, its IP header and ports, are quoted; key is of hashes. When there
// is no room the source that has most loses one, or else this one is never answered:
// either is reported as lost.
func (d *Delayed) Add(k *conntrack.Key, ip []byte, head int, key uint64, now int64) (lost bool) {
	for j := range d.n {
		if d.at(j).Key == *k {
			return false
		}
	}
	hi, lo := bits.Mul64((uint64(k.Src)+1)*0x9e3779b97f4a7c15^key, key)
	g := uint8(hi ^ lo)
	if d.n == MaxDelayed {
		lost = true
		if !d.evict(g) {
			return lost
		}
	}
	s := d.at(d.n)
	d.n++
	d.by[g]++
	s.due, s.Key, s.group = now+Delay, *k, g
	s.len = uint8(copy(s.head[:min(head, quoteLen)], ip))
	return lost
}

// evict gives up the latest SYN of the group that has most, if that is not g.
func (d *Delayed) evict(g uint8) bool {
	most := g
	for i, n := range d.by {
		if n > d.by[most] {
			most = uint8(i)
		}
	}
	if most == g {
		return false
	}
	for j := d.n; j > 0; j-- {
		if d.at(j-1).group != most {
			continue
		}
		for ; j < d.n; j++ {
			*d.at(j - 1) = *d.at(j)
		}
		d.n--
		d.by[most]--
		return true
	}
	return false // not reached: the group has one
}

// Next takes the first SYN whose time has come, or returns nil. It is valid until the
// next Add.
func (d *Delayed) Next(now int64) *SYN {
	if d.n == 0 || d.at(0).due > now {
		return nil
	}
	s := d.at(0)
	d.first = (d.first + 1) % MaxDelayed
	d.n--
	d.by[s.group]--
	return s
}
