package icmperr

// A bucket is a token bucket: rate tokens per second, up to burst.
type bucket struct {
	rate, burst int64
	tokens      int64 // in nanoseconds of rate
	last        int64
}

// take takes a token, and reports whether there was one.
func (b *bucket) take(now int64) bool {
	cost := second / b.rate
	if b.last == 0 {
		b.tokens = b.burst * cost
	}
	b.tokens = min(b.tokens+now-b.last, b.burst*cost)
	b.last = now
	if b.tokens < cost {
		return false
	}
	b.tokens -= cost
	return true
}
