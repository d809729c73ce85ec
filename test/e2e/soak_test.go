package e2e

import (
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

	"github.com/thurward/thurward/internal/vmm"
	"github.com/thurward/thurward/internal/world"
)

var (
	soakFor   = flag.Duration("soak", 5*time.Second, "how long TestSoak keeps the image under load")
	soakStall = flag.Duration("soak-stall", 0, "the longest round trip that TestSoak allows; 0: half a second, for hosts that do other work")
)

// gcLine is what Go prints of a collection with GODEBUG=gctrace=1: its number,
// and the heap before, after, and live, in MB.
var gcLine = regexp.MustCompile(`^gc (\d+) @.* (\d+)->(\d+)->(\d+) MB`)

// TestSoak keeps the image under load of every kind with the garbage collector
// at work, and looks for what only time shows: memory that is not given back,
// a goroutine or an interrupt that is not woken, a stall.
func TestSoak(t *testing.T) {
	each(t, func(t *testing.T, kvm bool) {
		l := newLab(t, kvm, func(c *vmm.Config) { c.Append = "GODEBUG=gctrace=1" })
		l.awaitReady()
		ctx, cancel := context.WithTimeout(t.Context(), *soakFor)
		defer cancel()
		var wg sync.WaitGroup
		var pages, dials, answers, bytes atomic.Int64
		fail := func(what string, err error) {
			if ctx.Err() == nil {
				t.Errorf("%s: %v", what, err)
			}
		}
		// Whole transfers, all day.
		for _, h := range []*world.Host{l.Alice, l.Bob} {
			wg.Go(func() {
				for ctx.Err() == nil {
					body, err := l.get(ctx, h, "/bytes/1000000")
					if err != nil {
						fail("transfer", err)
						return
					}
					bytes.Add(int64(len(body)))
					pages.Add(1)
				}
			})
		}
		// New flows, allowed and not.
		wg.Go(func() {
			for ctx.Err() == nil {
				c, err := l.Bob.DialTCP(ctx, netip.AddrPortFrom(l.Web.Addr, 80))
				if err != nil {
					fail("connection", err)
					return
				}
				c.Close()
				dials.Add(1)
			}
		})
		wg.Go(func() {
			for n := uint16(1); ctx.Err() == nil; n++ {
				c, err := l.Alice.DialUDP(netip.AddrPortFrom(l.Web.Addr, 1000+n%100))
				if err == nil {
					c.Write([]byte("nobody answers")) //nolint:errcheck // it is dropped
					c.Close()
				}
				time.Sleep(5 * time.Millisecond)
			}
		})
		// Round trips. A wire drops what its end does not take (world.Port), a
		// ping too: one in three must come back.
		var rtts []time.Duration
		var missing atomic.Int64
		wg.Go(func() {
			for ctx.Err() == nil {
				var d time.Duration
				var err error
				for range 3 {
					c, cancel := context.WithTimeout(ctx, time.Second)
					d, err = l.Alice.Ping(c, l.Web.Addr)
					cancel()
					if err == nil || ctx.Err() != nil {
						break
					}
					missing.Add(1)
				}
				if err != nil {
					fail("three pings in a row", err)
					return
				}
				rtts = append(rtts, d)
				answers.Add(1)
				time.Sleep(10 * time.Millisecond)
			}
		})
		wg.Wait()
		// All is quiet, the machine sleeps: it must wake for each of these.
		for range 10 {
			time.Sleep(50 * time.Millisecond)
			d, err := l.Bob.Ping(soon(t), l.Web.Addr)
			if err != nil {
				t.Fatalf("after the load: %v", err)
			}
			rtts = append(rtts, d)
		}
		slices.Sort(rtts)
		stall := *soakStall
		if stall == 0 {
			stall = time.Second / 2
		}
		worst := rtts[len(rtts)-1]
		if worst > stall {
			t.Errorf("a round trip took %v, limit %v", worst, stall)
		}
		if pages.Load() == 0 || dials.Load() == 0 || answers.Load() == 0 {
			t.Errorf("%d transfers, %d connections, %d answers", pages.Load(), dials.Load(), answers.Load())
		}
		first, last, n := l.heap()
		if n > 4 && last > first+4 {
			t.Errorf("the live heap grew from %d to %d MB", first, last)
		}
		if len(l.ready) > 0 {
			t.Error("the machine has started again")
		}
		t.Logf("%v: %d transfers (%d MB), %d connections, %d pings (%d more lost): median %v, 99.9 %% %v, worst %v; %d collections, live heap %d MB, then %d MB",
			*soakFor, pages.Load(), bytes.Load()>>20, dials.Load(), answers.Load(), missing.Load(), rtts[len(rtts)/2], rtts[len(rtts)*999/1000], worst, n, first, last)
	})
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
