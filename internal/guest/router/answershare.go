package router

import (
	"math/bits"

	"github.com/thurward/thurward/internal/shared/packet"
)

// Who asks for many answers, by what is rejected or cannot go on, uses up the
// rate of their kind. Something is kept for those who have had few: a reserve,
// of which each group of hosts has a little.

const (
	answerGroups = 256 // hosts are counted by groups, of a keyed hash
	reserveRate  = 250 // answers a second beside answerRate
	reserveBurst = 50
	groupRate    = 10 // of these for one group
	groupBurst   = 4
)

// An answerLimit limits the answers of one kind to one side.
type answerLimit struct {
	all, reserve bucket
	group        [answerGroups]struct{ tokens, last int64 }
}

func newAnswerLimit() answerLimit {
	return answerLimit{all: bucket{rate: answerRate, burst: answerBurst}, reserve: bucket{rate: reserveRate, burst: reserveBurst}}
}

// take reports whether one more answer to a host is within the rate.
func (a *answerLimit) take(to packet.Addr, key uint64, now int64) bool {
	hi, lo := bits.Mul64((uint64(to)+1)*0x9e3779b97f4a7c15^key, key|1)
	g := &a.group[(hi^lo)%answerGroups]
	const cost = second / groupRate
	if g.last == 0 {
		g.tokens = groupBurst * cost
	}
	g.tokens = min(g.tokens+now-g.last, groupBurst*cost)
	g.last = now
	few := g.tokens >= cost
	if few {
		g.tokens -= cost
	}
	return a.all.take(now) || few && a.reserve.take(now)
}
