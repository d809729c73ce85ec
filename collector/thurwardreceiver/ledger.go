package thurwardreceiver

import (
	"hash/maphash"
	"sync"
	"time"

	"github.com/thurward/thurward/internal/host/ingest"
)

// keeps is for how long a series takes up memory behind the receiver after its
// last value: exporters of metrics keep each that they have seen for a while.
const keeps = 5 * time.Minute

// A ledger knows which series were given to the pipeline lately. A firewall's
// series are those of its rules, and stay; one that invents new ones all the
// time fills what is behind the receiver, where firewalls have no shares.
type ledger struct {
	most int
	seed maphash.Seed

	mu    sync.Mutex
	all   map[string]*account
	total int
}

// An account is one firewall's series, by their hashes: those of this period
// and of the one before.
type account struct {
	now, before map[uint64]struct{}
	began       time.Time
}

func (a *account) len() int { return len(a.now) + len(a.before) }

func newLedger(most int) *ledger {
	return &ledger{most: most, seed: maphash.MakeSeed(), all: map[string]*account{}}
}

// of returns what decides for each sample of a firewall's snapshot, in order,
// whether it may pass.
func (l *ledger) of(firewall string, at time.Time) func(*ingest.Sample) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for name, a := range l.all {
		if at.Sub(a.began) >= keeps {
			l.total -= len(a.before)
			a.before, a.now, a.began = a.now, map[uint64]struct{}{}, at
			if a.len() == 0 && name != firewall {
				delete(l.all, name)
			}
		}
	}
	a := l.all[firewall]
	if a == nil {
		a = &account{now: map[uint64]struct{}{}, began: at}
		l.all[firewall] = a
	}
	return func(s *ingest.Sample) bool {
		h := maphash.String(l.seed, s.Key())
		l.mu.Lock()
		defer l.mu.Unlock()
		if _, ok := a.now[h]; ok {
			return true
		}
		if _, ok := a.before[h]; ok {
			delete(a.before, h)
			a.now[h] = struct{}{}
			return true
		}
		if l.total >= l.most && a.len() >= l.most/max(len(l.all), 1) {
			return false
		}
		a.now[h] = struct{}{}
		l.total++
		return true
	}
}
