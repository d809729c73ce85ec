package export

import (
	"github.com/thurward/thurward/internal/shared/event"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// window is how long identical drops are aggregated, in nanoseconds.
const window = int64(1e9)

// places is how many different drops are aggregated at a time.
const places = 1024

// An aggregator merges identical drops: those of one window become one record with a Count.
type aggregator struct {
	start  [places]int64 // of the window; 0: free. An array of its own, which is fast to search
	place  [places]counted
	live   int
	due    int64 // no window ends earlier
	emit   func(r *event.Record, name []byte)
	Merged uint64 // records merged into another's line
}

// A counted is a drop, and the number of identical ones.
type counted struct {
	r    event.Record
	name [event.MaxName]byte
}

// aggregates reports whether a record is aggregated.
func aggregates(r *event.Record) bool { return r.Kind == event.Verdict && r.Action == verdict.Drop }

// same reports whether two drops are identical.
func same(a, b *event.Record) bool {
	return a.Reason == b.Reason && a.Rule == b.Rule && a.Src == b.Src && a.Dst == b.Dst && a.DstPort == b.DstPort &&
		a.Proto == b.Proto && a.Direction == b.Direction && a.EtherType == b.EtherType && a.Truncated == b.Truncated
}

func slot(r *event.Record) int {
	h := uint64(14695981039346656037)
	mix := func(v uint64) { h = (h ^ v) * 0x9e3779b97f4a7c15; h ^= h >> 29 }
	mix(uint64(r.Src[12])<<24 | uint64(r.Src[13])<<16 | uint64(r.Src[14])<<8 | uint64(r.Src[15]))
	mix(uint64(r.Dst[12])<<24 | uint64(r.Dst[13])<<16 | uint64(r.Dst[14])<<8 | uint64(r.Dst[15]))
	mix(uint64(r.DstPort)<<48 | uint64(r.Proto)<<40 | uint64(r.Reason)<<32 | uint64(r.Rule)<<1 | uint64(r.Direction)&1)
	return int(h>>32) % places
}

// add adds a drop.
func (a *aggregator) add(r *event.Record, name []byte) {
	i := slot(r)
	p := &a.place[i]
	if a.start[i] != 0 {
		if r.Time-p.r.Time < window && same(&p.r, r) {
			p.r.Count = max(p.r.Count, 1) + max(r.Count, 1)
			p.r.Duration = r.Time - p.r.Time
			a.Merged++
			return
		}
		a.flush(i)
	}
	p.r = *r
	p.r.NameLen = uint8(copy(p.name[:], name))
	a.start[i] = max(r.Time, 1)
	if a.live == 0 {
		a.due = a.start[i] + window
	}
	a.live++
}

func (a *aggregator) flush(i int) {
	p := &a.place[i]
	a.start[i] = 0
	a.live--
	a.emit(&p.r, p.name[:p.r.NameLen])
}

// expire enqueues the records of windows that have ended.
func (a *aggregator) expire(now int64) {
	if a.live == 0 || now < a.due {
		return
	}
	a.due = now + window
	for i := range a.start {
		s := a.start[i]
		if s == 0 {
			continue
		}
		if now-s >= window {
			a.flush(i)
		} else {
			a.due = min(a.due, s+window)
		}
	}
}
