package clock

// An Away notices time that the monotonic clock did not count, because the machine stood
// still: the time of day is then further from it than before. The zero Away has seen
// nothing.
type Away struct {
	base  int64 // up to which time was accounted for
	known bool
}

// least is the least time that Passed returns: what differs less is the error of a
// real-time clock.
const least = second

// Passed takes a new base, the time of day at which monotonic time was zero, in
// nanoseconds, and returns the time that passed uncounted since the last call, 0 where that
// is below a second. Several stops add up, so that none is lost. A host that sets its clock
// forward looks like a stop, one that sets it back like nothing.
func (a *Away) Passed(base int64) int64 {
	if !a.known || base < a.base {
		a.base, a.known = base, true
		return 0
	}
	d := base - a.base
	if d < least {
		return 0
	}
	a.base = base
	return d
}
