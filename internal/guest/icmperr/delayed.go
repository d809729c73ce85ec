package icmperr

import (
	"math"

	"github.com/thurward/thurward/internal/guest/conntrack"
)

// Unsolicited SYNs from the WAN to an address of translation, which the policy rejects.
// Such a SYN may be one half of a simultaneous open, whose other half the host inside is
// about to send. So it is answered after 6 seconds, unless the connection exists by then,
// and with ICMP 3/3 rather than a RST, which would abort the attempt (RFC 5382 REQ-4).

const (
	MaxDelayed = 128
	Delay      = 6 * second
	quoteLen   = 60 + 8 // the longest IP header, and the 8 bytes that ICMP errors quote at least
)

// A SYN is a SYN whose answer is delayed.
type SYN struct {
	Key   conntrack.Key // as it arrived
	due   int64
	group uint8 // hash of its source
	len   uint8
	head  [quoteLen]byte
}

// Quote returns the beginning of the packet, from its IP header on, that the answer quotes.
func (s *SYN) Quote() []byte { return s.head[:s.len] }

// Delayed is a queue of SYNs whose answers are delayed, in order of time. The zero Delayed
// is empty.
type Delayed struct {
	ring  [MaxDelayed]SYN
	first uint32
	n     uint32
	by    [groups]uint8 // number of SYNs by group, a keyed hash of the source
}

func (d *Delayed) at(i uint32) *SYN { return &d.ring[(d.first+i)%MaxDelayed] }

// Len returns the number of SYNs.
func (d *Delayed) Len() int { return int(d.n) }

// Due returns when the first SYN is to be answered, in monotonic nanoseconds, or
// math.MaxInt64 when there is none.
func (d *Delayed) Due() int64 {
	if d.n == 0 {
		return math.MaxInt64
	}
	return d.at(0).due
}

// Add adds a SYN, unless there is one of the same connection. ip is the packet, of which
// the first head bytes, its IP header and ports, are quoted; key is that of hashes. When
// there is no room, the group of sources with the most SYNs loses its latest one; if that
// is the SYN's own, the SYN is not added. Either is reported as lost.
func (d *Delayed) Add(k *conntrack.Key, ip []byte, head int, key uint64, now int64) (lost bool) {
	for j := range d.n {
		if d.at(j).Key == *k {
			return false
		}
	}
	g := groupOf(k.Src, key)
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

// evict removes the latest SYN of the group that has the most, unless that is g.
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

// Next removes and returns the first SYN if its answer is due, or returns nil. The result
// is valid until the next Add.
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
