package thurwardreceiver

import (
	"hash/maphash"
	"sync"
	"time"

	"github.com/thurward/thurward/internal/host/ingest"
)

// keeps is how long a series uses memory in exporters of metrics after its last value.
const keeps = 5 * time.Minute

// A ledger counts the series that the pipeline got lately. An honest firewall's series
// are those of its rules, and do not change. One that makes up new ones all the time
// would fill the memory of exporters, where firewalls have no shares.
type ledger struct {
	most int
	seed maphash.Seed

	mu    sync.Mutex
	all   map[string]*account
	total int
}

// An account has the hashes of one firewall's series, of this period and of the one
// before.
type account struct {
	now, before map[uint64]struct{}
	began       time.Time
}

func (a *account) len() int { return len(a.now) + len(a.before) }

func newLedger(most int) *ledger {
	return &ledger{most: most, seed: maphash.MakeSeed(), all: map[string]*account{}}
}

// of returns a function that decides for each sample of a firewall's snapshot, in order,
// whether it is sent.
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
