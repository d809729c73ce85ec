package export

import "strconv"

// A Limiter limits the lines per second of a sink, and counts the suppressed ones. Time is
// an argument, in monotonic nanoseconds.
type Limiter struct {
	Rate     int64 // lines per second
	Burst    int64
	Held     uint64 // lines suppressed since the start
	reported uint64 // of these and of the ring's losses, reported
	tokens   int64  // in nanoseconds
	last     int64
	begun    bool
}

// Allow reports whether a line may be written now.
func (l *Limiter) Allow(now int64) bool {
	cost := 1_000_000_000 / l.Rate
	if !l.begun {
		l.begun, l.tokens, l.last = true, l.Burst*cost, now
	}
	l.tokens = min(l.tokens+now-l.last, l.Burst*cost)
	l.last = now
	if l.tokens < cost {
		l.Held++
		return false
	}
	l.tokens -= cost
	return true
}

// AppendLost appends a line with the number of events lost since the last such line:
// suppressed by the limiter, or dropped because the ring was full. It appends nothing when
// there were none.
func (l *Limiter) AppendLost(dst []byte, ringLost uint64) []byte {
	n := l.Held + ringLost
	if n == l.reported {
		return dst
	}
	dst = append(dst, `{"event.kind":"metric","event.action":"events-lost","thurward.lost":`...)
	dst = strconv.AppendUint(dst, n-l.reported, 10)
	l.reported = n
	return append(dst, '}')
}
