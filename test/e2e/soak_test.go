package e2e

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/thurward/thurward/internal/host/netlab"
	"github.com/thurward/thurward/internal/host/vmm"
)

var (
	soakFor   = flag.Duration("soak", 5*time.Second, "how long TestSoak keeps the image under load")
	soakStall = flag.Duration("soak-stall", 0, "the longest round trip that TestSoak allows; 0: half a second, for hosts that do other work")
)

// gcLine is what Go prints of a collection with GODEBUG=gctrace=1: its number,
// and the heap before, after, and live, in MB.
var gcLine = regexp.MustCompile(`^gc (\d+) @.* (\d+)->(\d+)->(\d+) MB`)

// gcBegun is the first part of such a line.
var gcBegun = regexp.MustCompile(`^gc \d+ @[0-9.]+s \d*%?:? ?$`)

// TestSoak keeps the image under load of every kind with the garbage collector
// at work, and looks for what only time shows: memory that is not given back,
// a goroutine or an interrupt that is not woken, a stall, a packet that is lost
// and not counted. Its limit is on what the firewall adds: time that the host
// gave to others than QEMU is told, and is not the firewall's.
func TestSoak(t *testing.T) {
	eachAlone(t, func(t *testing.T, kvm bool) {
		l, r := watched(t, kvm, func(c *vmm.Config) { c.Append += " GODEBUG=gctrace=1" })
		g := watchGaps(r)
		before := r.fresh()
		tr := follow(l)
		h := watchHost(t, *soakStall > 0)
		ctx, cancel := context.WithTimeout(t.Context(), *soakFor)
		defer cancel()
		s := &soak{t: t, lab: l, ctx: ctx, stop: cancel, began: time.Now()}
		defer s.explain(r, tr, before)
		s.load()
		// All is quiet, the machine sleeps: it must wake for each of these.
		for range 10 {
			time.Sleep(50 * time.Millisecond)
			if _, err := l.Bob.Ping(soon(t), l.Web.Addr); err != nil {
				t.Fatalf("after the load: %v", err)
			}
			s.pings.Add(1)
		}
		time.Sleep(time.Second) // whatever is still under way
		after := r.fresh()
		h.end()
		limit := *soakStall
		if limit == 0 {
			limit = time.Second / 2
		}
		s.stalls(tr, h, g, limit)
		s.losses(tr, before, after)
		if s.pages.Load() == 0 || s.dials.Load() == 0 || s.pings.Load() < 20 {
			t.Errorf("%d transfers, %d connections, %d pings", s.pages.Load(), s.dials.Load(), s.pings.Load())
		}
		first, last, n := l.heap()
		if n > 4 && last > first+4 {
			t.Errorf("the live heap grew from %d to %d MB", first, last)
		}
		if len(l.ready) > 0 {
			t.Error("the machine has started again")
		}
		slices.Sort(s.rtts)
		t.Logf("%v: %d transfers (%d MB), %d connections, %d pings: median %v, 99.9 %% %v, worst %v; %d collections, live heap %d MB, then %d MB",
			*soakFor, s.pages.Load(), s.bytes.Load()>>20, s.dials.Load(), s.pings.Load(), s.rtts[len(s.rtts)/2], s.rtts[len(s.rtts)*999/1000], s.rtts[len(s.rtts)-1], n, first, last)
	})
}

// A soak is the load of TestSoak.
type soak struct {
	*lab
	t     *testing.T
	ctx   context.Context
	stop  func()
	rtts  []time.Duration
	began time.Time

	pages, dials, pings, bytes atomic.Int64
}

func (s *soak) fail(what string, err error) {
	if s.ctx.Err() == nil {
		s.t.Errorf("after %v: %s: %v", time.Since(s.began).Round(time.Second), what, err)
		s.stop() // what stands still is looked at now, not at the end
	}
}

// explain shows what the firewall counted, and where pings were lost, when
// something went wrong.
func (s *soak) explain(r *receiver, tr *trail, before map[string]uint64) {
	if !s.t.Failed() {
		return
	}
	time.Sleep(11 * time.Second) // a snapshot that is later than what happened
	where, _ := tr.lost()
	s.t.Logf("lost pings by place: %v", where)
	r.mu.Lock()
	defer r.mu.Unlock()
	var changed []string
	for series, n := range r.metrics {
		if n != before[series] && !strings.Contains(series, "_bucket") {
			changed = append(changed, fmt.Sprintf("%s %d → %d", series, before[series], n))
		}
	}
	slices.Sort(changed)
	s.t.Logf("what the firewall counted, up to its last snapshot:\n%s", strings.Join(changed, "\n"))
}

// load keeps everything busy until the context ends.
func (s *soak) load() {
	var wg sync.WaitGroup
	defer wg.Wait()
	// Whole transfers, all day.
	for _, h := range []*netlab.Host{s.Alice, s.Bob} {
		wg.Go(func() {
			for s.ctx.Err() == nil {
				body, err := s.get(s.ctx, h, "/bytes/1000000")
				if err != nil {
					s.fail("transfer", err)
					return
				}
				s.bytes.Add(int64(len(body)))
				s.pages.Add(1)
			}
		})
	}
	// New flows, allowed and not.
	wg.Go(func() {
		for s.ctx.Err() == nil {
			c, err := s.Bob.DialTCP(s.ctx, netip.AddrPortFrom(s.Web.Addr, 80))
			if err != nil {
				s.fail("connection", err)
				return
			}
			c.Close()
			s.dials.Add(1)
		}
	})
	wg.Go(func() {
		for n := uint16(1); s.ctx.Err() == nil; n++ {
			c, err := s.Alice.DialUDP(netip.AddrPortFrom(s.Web.Addr, 1000+n%100))
			if err == nil {
				c.Write([]byte("nobody answers")) //nolint:errcheck // it is dropped
				c.Close()
			}
			time.Sleep(5 * time.Millisecond)
		}
	})
	// Round trips. A wire drops what its end does not take (netlab.Port), a
	// ping too: one in three must come back, and each lost one is accounted for.
	wg.Go(func() {
		for failed := 0; s.ctx.Err() == nil; time.Sleep(10 * time.Millisecond) {
			c, cancel := context.WithTimeout(s.ctx, time.Second)
			d, err := s.Alice.Ping(c, s.Web.Addr)
			cancel()
			if s.ctx.Err() != nil {
				return
			}
			s.pings.Add(1)
			if err == nil {
				s.rtts = append(s.rtts, d)
				failed = 0
			} else if failed++; failed == 3 {
				s.fail("three pings in a row", err)
				return
			}
		}
	})
}

// stalls says of each ping that was slow within the firewall, and of each time
// that its packet loop did not look, whether the host took the time. What the
// host does not explain must stay within limit.
func (s *soak) stalls(tr *trail, h *hostWatch, g *loopGaps, limit time.Duration) {
	slow := tr.slow(limit)
	slices.SortFunc(slow, func(a, b *passage) int { return cmp.Compare(b.firewall(), a.firewall()) })
	for i, p := range slow {
		host := h.took(p.at[atAsked], p.at[atOutside]) + h.took(p.at[atAnswered], p.at[atInside])
		if p.firewall()-host > limit {
			s.t.Errorf("stall, the guest's: %v; of that the host took %v", p, host)
		} else if i < 10 { // the worst
			s.t.Logf("stall, the host's: %v; of that the host took %v", p, host)
		}
	}
	for _, e := range g.longest {
		host := h.tookWithin(e.gap, e.since, e.until)
		if e.gap-host > limit {
			s.t.Errorf("the packet loop did not look for %v (%s), until %s; of that the host took at most %v", e.gap, e.during, e.until.Format("15:04:05.000"), host)
		} else if e.gap > limit {
			s.t.Logf("the packet loop did not look for %v (%s), until %s: the host took up to %v", e.gap, e.during, e.until.Format("15:04:05.000"), host)
		}
	}
	s.t.Logf("stalls: %d pings over %v within the firewall; longest time between two polls %v; QEMU waited %v for a processor, the test was late by up to %v; the host took %.0f %% of the run, of which nothing is said about the guest",
		len(slow), limit, g.worst(), h.delay, h.late, 100*h.share(s.began))
}

// losses accounts for each lost ping.
func (s *soak) losses(tr *trail, before, after map[string]uint64) {
	where, firewall := tr.lost()
	counted, reasons := uint64(0), map[string]uint64{}
	for series, n := range after {
		reason, ok := strings.CutPrefix(series, "thurward_drops_total{drop_reason=")
		if n -= before[series]; !ok || n == 0 {
			continue
		}
		reasons[strings.Trim(reason, "\"}")] = n
		if !strings.Contains(reason, "no_matching_allow_rule") { // what the load has dropped on purpose
			counted += n
		}
	}
	if uint64(firewall) > counted {
		s.t.Errorf("%d pings were lost within the firewall, and it counted %d drops: %v", firewall, counted, reasons)
	}
	tr.mu.Lock()
	seen := int64(len(tr.pings))
	tr.mu.Unlock()
	// The last one may have been sent though its sender did not wait for it.
	if unsent := s.pings.Load() - seen; unsent > 0 {
		where["the sender's own queue"] = int(unsent)
	}
	s.t.Logf("lost pings by place: %v; drops by the firewall: %v", where, reasons)
}

// loopGaps are the longest times between two polls of the packet loop, as the
// firewall's metrics tell them.
type loopGaps struct {
	mu      sync.Mutex
	longest []loopGap
	since   map[string]time.Time
}

// A loopGap is the longest one between two snapshots.
type loopGap struct {
	during       string
	gap          time.Duration
	since, until time.Time
}

// watchGaps also keeps the receiver from keeping all events of a long run.
func watchGaps(r *receiver) *loopGaps {
	g := &loopGaps{since: map[string]time.Time{}}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.keep = func(string) bool { return false }
	r.saw = func(series string, v float64) {
		kind, ok := strings.CutPrefix(series, "thurward_packet_loop_gap_longest_seconds{during=")
		kind = strings.Trim(kind, `"}`)
		if !ok {
			return
		}
		g.mu.Lock()
		defer g.mu.Unlock()
		now := time.Now()
		if from, ok := g.since[kind]; ok { // before the first is the boot
			g.longest = append(g.longest, loopGap{kind, time.Duration(v * 1e9), from, now})
		}
		g.since[kind] = now
	}
	return g
}

func (g *loopGaps) worst() (d time.Duration) {
	for _, e := range g.longest {
		d = max(d, e.gap)
	}
	return d
}

// heap returns the live heap in MB after the first and after the last
// collection that the console shows, and how many there were.
func (l *lab) heap() (first, last, n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.lines {
		m := gcLine.FindStringSubmatch(s)
		if m == nil {
			continue
		}
		live, err := strconv.Atoi(m[4])
		if err != nil {
			continue
		}
		if n == 0 {
			first = live
		}
		last = live
		n++
	}
	return first, last, n
}

// TestGCLine: the pattern fits what Go prints.
func TestGCLine(t *testing.T) {
	const s = "gc 3 @0.412s 1%: 0.011+0.42+0.003 ms clock, 0.011+0.10/0.2/0+0.003 ms cpu, 4->5->2 MB, 4 MB goal, 0 MB stacks, 0 MB globals, 1 P"
	if m := gcLine.FindStringSubmatch(s); m == nil || strings.Join(m[2:], " ") != "4 5 2" {
		t.Errorf("%q", fmt.Sprint(m))
	}
}
