package router

import (
	"errors"
	"math/bits"
	"sync"

	"github.com/thurward/thurward/internal/guest/conntrack"
	"github.com/thurward/thurward/internal/guest/fqdn"
	"github.com/thurward/thurward/internal/guest/framebuf"
	"github.com/thurward/thurward/internal/guest/handover"
	"github.com/thurward/thurward/internal/guest/icmperr"
	"github.com/thurward/thurward/internal/guest/nat"
	"github.com/thurward/thurward/internal/shared/event"
	"github.com/thurward/thurward/internal/shared/sha256"
)

// Several workers (ADR 0044): each is an Engine with a pair of queues of its own, in a
// goroutine of its own, and shares with the others nothing that is written per packet.
//
//	worker.go     what they share, and how they are made
//	handover.go   a packet at the wrong worker goes to its own
//	neighbours.go worker 0 asks for neighbours, for all
//	lend.go       external ports go where they are needed

// A Worker is what one of several workers has for itself.
type Worker struct {
	Pool   *framebuf.Pool // of those that Pool.Split has made of one
	Ports  []PortConfig   // its queues of both devices
	Events *event.Ring    // nil: no events
}

// worker is the part of an Engine that is one of several workers.
type worker struct {
	k, n  int
	steer *nat.Steer
	out   []*handover.Ring // to each other worker; nil to itself
	in    []*handover.Ring // from each
	owes  []int            // free buffers, to each, for those that came with frames
	long  []int            // of them, long ones
	told  uint64           // bit k: something was published for worker k
	item  [Batch]handover.Item

	gate   *gate
	inside bool // the gate is closed

	// Of the packet in hand.
	again  bool // it was decided about before: it is not counted and reported again
	tries  uint8
	asked  uint8 // of the other workers, for ports
	settle bool  // no other flow can give way to it
	travel travel

	borrowing
}

// A gate is closed by its worker while that reads names. Worker 0, which alone changes
// them, closes those of all others for a change.
type gate struct {
	sync.Mutex
	_ [56]byte
}

// gates implements sync.Locker for changes of names.
type gates []*gate

func (g gates) Lock() {
	for _, x := range g[1:] {
		x.Lock()
	}
}

func (g gates) Unlock() {
	for _, x := range g[1:] {
		x.Unlock()
	}
}

// enter is called before names are read, leave after the batch.
func (e *Engine) enter() {
	if w := e.w; w != nil && w.k != 0 && !w.inside {
		w.gate.Lock()
		w.inside = true
	}
}

func (e *Engine) leave() {
	if w := e.w; w.inside {
		w.inside = false
		w.gate.Unlock()
	}
}

// shared is what worker 0 has made and the others use as well.
type shared struct {
	gates   gates
	sources *conntrack.Sources
	nat     *nat.NAT // worker 0's
	answers [maxPorts]*icmperr.Limit
	names   *fqdn.Set
}

// ringItems is the length of the ring between two workers. Frames, and buffers in return, leave
// ringWords of it for what workers tell each other.
const (
	ringItems = 1024
	ringWords = 128
)

// NewWorkers makes the engines of several workers: 1, 2, 4 or 8. Their configuration is c,
// and what each has for itself. Worker 0 is the firewall as a host, and asks for
// neighbours: Announce, Host, Names, Gateway and Slept are its; Reseed and Moved are for
// each.
func NewWorkers(c Config, each []Worker) ([]*Engine, error) {
	n := len(each)
	if n == 0 || n > nat.MaxParts || n&(n-1) != 0 {
		return nil, errors.New("router: the number of workers is not 1, 2, 4 or 8")
	}
	if n == 1 {
		c.Pool, c.Ports, c.Events = each[0].Pool, each[0].Ports, each[0].Events
		e, err := New(c)
		return []*Engine{e}, err
	}
	s := &shared{}
	for range n {
		s.gates = append(s.gates, new(gate))
	}
	engines := make([]*Engine, n)
	for k := range engines {
		c.Pool, c.Ports, c.Events = each[k].Pool, each[k].Ports, each[k].Events
		w := &worker{k: k, n: n, gate: s.gates[k], out: make([]*handover.Ring, n), in: make([]*handover.Ring, n), owes: make([]int, n), long: make([]int, n)}
		e, err := newEngine(c, w, s)
		if err != nil {
			return nil, err
		}
		engines[k] = e
	}
	for i, a := range engines {
		for j, b := range engines {
			if i != j {
				r := handover.New(ringItems)
				a.w.out[j], b.w.in[i] = r, r
			}
		}
	}
	return engines, nil
}

// Told returns to which workers something was handed over since the last call, as a set of bits:
// one that sleeps is to be woken.
func (e *Engine) Told() (set uint64) {
	if e.w != nil {
		set, e.w.told = e.w.told, 0
	}
	return set
}

// Waiting reports whether other workers have handed over what was not taken yet: who sleeps with
// it would not be woken.
func (e *Engine) Waiting() bool {
	if e.w != nil {
		for _, r := range e.w.in {
			if r != nil && !r.Empty() {
				return true
			}
		}
	}
	return false
}

// part returns the part of the ports that is the engine's.
func (e *Engine) part() nat.Part {
	if e.w == nil {
		return nat.Part{}
	}
	return nat.Part{K: e.w.k, N: e.w.n}
}

// join has the engine share what is not its own, and makes the rest its own: flows with
// other numbers than those of other workers, and a generator whose numbers say nothing about
// theirs.
func (e *Engine) join(c *Config, s *shared) {
	w := e.w
	w.steer = e.nat.Steer(c.Policy)
	e.flows.Number(w.k, w.n)
	w.dry = make([]int64, 2*len(e.nat.Pools())*len(nat.Protocols))
	if w.k == 0 {
		s.nat = e.nat
		s.sources = e.sources
		s.sources.Share()
		s.names = e.names.set
	}
	e.sources = s.sources
	e.nat.Join(s.nat)
	for i := range e.port {
		p := &e.port[i]
		p.neigh.Limit(c.Pool.Free() / 2)
		if w.k == 0 {
			p.answers.Share()
			s.answers[i] = p.answers
		}
		p.answers = s.answers[i]
	}
	e.seed(&c.Secret)
}

// flowsOf returns how many flows one of n workers has room for.
func flowsOf(most, n int) int { return (most + n - 1) / n }

// number returns the number of flow i among those of all workers.
func (e *Engine) number(i uint32) uint32 {
	if e.w == nil {
		return i
	}
	return i*uint32(e.w.n) + uint32(e.w.k)
}

// nextIDs of one of several workers: its identifications have its number in their highest
// bits, so that no two workers' are the same. They begin anew where the n would not follow
// each other.
func (w *worker) nextIDs(id *uint16, n uint16) uint16 {
	free := 16 - bits.Len(uint(w.n-1))
	mask := uint16(1)<<free - 1
	first := *id&mask + 1
	if first > mask || mask-first < n-1 {
		first = 0
	}
	*id = first + n - 1
	return uint16(w.k)<<free | first
}

// newIDs begins identifications at random.
func (e *Engine) newIDs() {
	for i := range e.ids {
		e.ids[i] = uint16(e.random())
	}
}

// seed keys the generator of random numbers.
func (e *Engine) seed(secret *[32]byte) {
	b := append(make([]byte, 0, 64), secret[:]...)
	if e.w != nil {
		b = append(b, "worker"...)
		b = append(b, byte(e.w.k))
	}
	e.rng.Seed(sha256.Sum256(b))
	e.newIDs()
}
