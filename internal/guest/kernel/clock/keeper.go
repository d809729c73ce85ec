package clock

// A Keeper keeps the time of day by a real-time clock that shows whole seconds. It bounds
// the base, which is the time of day at which monotonic time was zero: that a reading shows
// second s at monotonic time t says that the base is between s-t and s+1s-t. All times are
// in nanoseconds. The zero Keeper knows nothing.
type Keeper struct {
	lo, hi int64 // bounds of the base
	last   int64 // monotonic time of the last reading
	probe  int   // what the next reading is for
	known  bool  // there was a reading
	close  bool  // the bounds have been close since the last jump
}

const (
	second = int64(1e9)
	// settled is the distance of the bounds from which on the base is known.
	settled = int64(80e6)
	// searchEvery is the interval of readings until then.
	searchEvery = int64(40e6)
	// guard is how far beyond the bounds readings look for a clock that has jumped.
	guard = int64(40e6)
	// pause is the least time between two readings when the base is known. The three readings by
	// which a jump is noticed are at most settled+2*guard apart in their second: with this
	// pause they take three seconds, and the search after a jump one.
	pause = second - settled - 3*guard
	// drift is how far the two clocks may part in a millisecond, in nanoseconds: 1000 ppm.
	drift = 1000
)

// Add takes a reading: the clock showed sec, in seconds since 1970, at some time between
// before and after. It returns when the next one is due.
func (k *Keeper) Add(before, after, sec int64) (next int64) {
	lo, hi := sec*second-after, (sec+1)*second-before
	if k.known {
		slack := max(after-k.last, 0) / 1e6 * drift
		k.lo, k.hi = k.lo-slack, k.hi+slack
	}
	if !k.known || lo > k.hi || hi < k.lo { // it has jumped
		k.lo, k.hi, k.known, k.close = lo, hi, true, false
	} else {
		k.lo, k.hi = max(k.lo, lo), min(k.hi, hi)
	}
	k.last = after
	if k.close = k.close || k.hi-k.lo <= settled; !k.close {
		return after + searchEvery
	}
	// A reading between the bounds halves their distance; one just beyond either of them
	// notices a jump of less than a second.
	k.probe = (k.probe + 1) % 3
	at := [...]int64{k.lo + (k.hi-k.lo)/2, k.hi + guard, k.lo - guard}[k.probe]
	next = after + pause
	return next + (second-(next+at)%second)%second // the second changes then if at is the base
}

// Base returns the base, with an error of about half of 80 ms at most, and whether it is
// known.
func (k *Keeper) Base() (base int64, ok bool) {
	return k.lo + (k.hi-k.lo)/2, k.close
}
