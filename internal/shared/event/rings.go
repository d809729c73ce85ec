package event

import "math"

// Rings are those of several producers, with one consumer.
type Rings []*Ring

// GetNamed moves the oldest of the records that are first in their rings to r, appends its name
// to name, and reports whether there was one. Records of one producer keep their order.
func (q Rings) GetNamed(r *Record, name []byte) ([]byte, bool) {
	if len(q) == 1 {
		return q[0].GetNamed(r, name)
	}
	var first *Ring
	least := int64(math.MaxInt64)
	for _, x := range q {
		if at, ok := x.oldest(); ok && (first == nil || at < least) {
			first, least = x, at
		}
	}
	if first == nil {
		return name, false
	}
	return first.GetNamed(r, name)
}

// Len returns the number of records in all rings.
func (q Rings) Len() (n int) {
	for _, x := range q {
		n += x.Len()
	}
	return n
}

// Full reports whether some ring is more than half full.
func (q Rings) Full() bool {
	for _, x := range q {
		if x.Len() > x.Cap()/2 {
			return true
		}
	}
	return false
}

// Lost returns the number of records dropped because a ring was full.
func (q Rings) Lost() (n uint64) {
	for _, x := range q {
		n += x.Lost()
	}
	return n
}
