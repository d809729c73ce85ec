package main

import (
	"fmt"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/thurward/thurward/internal/guest/sys"
	"github.com/thurward/thurward/internal/shared/abi"
)

func callMonitor(at, ax, bx, cx, dx, si uint64) uint64

// together runs f on as many threads as there are processors, at once, and returns when
// all are done. Each gets its number. Who waits for the others lets Go's runtime stop it now
// and then: nothing else does here, and to start a thread the runtime may have to.
func together(f func(n int)) {
	used, _ := sys.Processors()
	var arrived, done atomic.Int32
	body := func(n int) {
		arrived.Add(1)
		for i := 1; int(arrived.Load()) < used; i++ {
			if i&0xfffff == 0 {
				runtime.Gosched()
			}
		}
		f(n)
		done.Add(1)
	}
	for n := 1; n < used; n++ {
		go func() {
			runtime.LockOSThread()
			body(n)
		}()
	}
	body(0)
	for int(done.Load()) < used {
		sys.Yield()
		runtime.Gosched() // a collection that another thread began waits for this one
	}
}

// mon calls the monitor on any thread.
func mon(ax, bx, cx, dx, si uint64) uint64 { return callMonitor(monitorCall, ax, bx, cx, dx, si) }

// raceRounds is how often a race is run.
const raceRounds = 20_000

// races are attempts by which two processors are in the monitor at once. With one processor
// they are the same calls one after the other.
func races() []attempt {
	rounds := uint64(raceRounds)
	if sys.Native() {
		rounds = 500
	}
	va, pa := free()
	far := va + 1<<40 // where nothing is mapped
	audited := func(how string) outcome {
		flush()
		wrong, ok := audit()
		if wrong != "" || !ok {
			return succeeded("%s", wrong)
		}
		return refused("%s, and the tables are as they should be", how)
	}
	return []attempt{
		{"race: map, protect and unmap one page", func() outcome {
			var odd atomic.Uint64
			how := []uint64{abi.SetWrite, abi.SetRead, abi.SetNothing}
			together(func(n int) {
				for i := range rounds {
					if r := mon(abi.MonSet, va, pa+page*((i+uint64(n))&1), 1, how[(i+uint64(n))%3]); r != 0 {
						odd.Store(r)
					}
				}
			})
			e := uint64(0)
			if at, _, ok := entryOf(va, 1); ok {
				e, _ = read(at)
			}
			if f := e & pAddr; e&pPresent != 0 && (f != pa && f != pa+page || e&pNX == 0 || e&pUser == 0) {
				return succeeded("the entry is %#x", e)
			}
			mon(abi.MonSet, va, 0, 1, abi.SetNothing)
			return audited("results " + hex(odd.Load()))
		}},
		{"race: take page tables for one address", func() outcome {
			together(func(n int) {
				for i := range uint64(12) {
					mon(abi.MonSet, far+i<<39, pa+page*uint64(n), 1, abi.SetWrite)
				}
			})
			return audited("three tables for each of 12 addresses")
		}},
		{"race: take page tables for neighbours", func() outcome {
			together(func(n int) {
				for i := range uint64(6) {
					mon(abi.MonSet, far+20<<39+i<<30+uint64(n)<<21, pa+page*uint64(n), 1, abi.SetWrite)
				}
			})
			return audited("tables for 6 addresses on each")
		}},
		{"race: each processor sees what another mapped", func() outcome {
			a := far + 30<<39 // a new entry of the root table, of which each has its own
			if r := mon(abi.MonSet, a, pa, 1, abi.SetWrite); r != 0 {
				return succeeded("result %d", r)
			}
			var blind atomic.Int32
			*at(a) = 77
			together(func(int) {
				if *at(a) != 77 { // a fault ends the machine
					blind.Add(1)
				}
			})
			mon(abi.MonSet, a, 0, 1, abi.SetNothing)
			if blind.Load() != 0 {
				return succeeded("%d see another page", blind.Load())
			}
			return audited("all see it")
		}},
		{"race: hostile frames beside honest ones", func() outcome {
			policyFrame, _ := physical(policy())
			var done atomic.Uint64
			together(func(n int) {
				for i := range rounds {
					if (i+uint64(n))&1 == 0 {
						mon(abi.MonSet, va, pa, 1, abi.SetWrite)
						continue
					}
					for _, f := range []uint64{policyFrame &^ (page - 1), abi.Tables, state().PoolNext, abi.MonitorPage} {
						if r := mon(abi.MonSet, va, f, 1, abi.SetWrite); r == 0 {
							done.Add(1)
						}
					}
				}
			})
			mon(abi.MonSet, va, 0, 1, abi.SetNothing)
			if n := done.Load(); n != 0 {
				return succeeded("%d times", n)
			}
			return audited("all were refused")
		}},
		{"race: map while another seals", func() outcome {
			policyFrame, _ := physical(policy())
			var done atomic.Uint64
			together(func(n int) {
				for i := range rounds {
					if n == 0 {
						mon(abi.MonClose+i&1, 0, 0, 0, 0)
					} else if r := mon(abi.MonSet, policy()&^(page-1), policyFrame&^(page-1), 1, abi.SetWrite); r == 0 {
						done.Add(1)
					}
				}
			})
			if n := done.Load(); n != 0 {
				return succeeded("%d times", n)
			}
			return audited("all were refused")
		}},
		{"race: interrupts from all to all", func() outcome {
			used, _ := sys.Processors()
			together(func(n int) {
				for i := range rounds / 10 {
					mon(abi.MonSend, i%uint64(used), i&1, 0, 0)
				}
			})
			return audited("the machine goes on")
		}},
		{"race: write by a translation that was not forgotten", func() outcome {
			// The page is unmapped and nobody is told, while others write there. Its
			// frame is general memory for good, so that what they change is only that.
			mon(abi.MonSet, va, pa, 1, abi.SetWrite)
			var turn atomic.Int32
			*at(va) = 1
			written := 0
			together(func(n int) {
				if n == 1 {
					for turn.Load() != 2 {
						r := regs{di: va}
						if do(doWrite, &r) == 0 && turn.Load() == 1 {
							written++
						}
					}
				}
				if n != 0 {
					return
				}
				mon(abi.MonSet, va, 0, 1, abi.SetNothing)
				turn.Store(1)
				for i := range uint64(8) {
					mon(abi.MonSet, far+40<<39+i<<21, pa+page, 1, abi.SetWrite) // tables come and go nowhere else
				}
				turn.Store(2)
			})
			return audited(fmt.Sprintf("written %d times, nothing but the page changed", written))
		}},
		{"the PIT after sealing, on every processor", func() outcome {
			mon(abi.MonSeal, 0, 0, 0, 0)
			used, _ := sys.Processors()
			seen := map[uint64]bool{}
			for range 2000 {
				var r regs
				r.di, r.si = 0x43, 0xb4
				if do(doOUT, &r) == 0 {
					return succeeded("on processor %d", here())
				}
				seen[here()] = true
				if len(seen) == used {
					break
				}
				elsewhere()
			}
			return refused("on %d of %d processors", len(seen), used)
		}},
		{"write the window, on every processor", func() outcome {
			used, _ := sys.Processors()
			seen := map[uint64]bool{}
			for range 2000 {
				if o := faults(doWrite, regs{di: abi.TableWindow + abi.Tables + 8*abi.RootWindow}); o.succeeded {
					return o
				}
				seen[here()] = true
				if len(seen) == used {
					break
				}
				elsewhere()
			}
			return refused("on %d of %d processors", len(seen), used)
		}},
	}
}

// here returns the number of the processor that the thread runs on, which the kernel keeps
// behind abi.Shared.
func here() uint64 { return *at(abi.SharedPage + 64) & 0xffffffff }

// elsewhere makes it likely that the thread goes on on another processor: it sleeps while
// others spin.
func elsewhere() {
	var stop atomic.Bool
	go func() {
		runtime.LockOSThread()
		for !stop.Load() {
		}
	}()
	for range 3 {
		time.Sleep(200 * time.Microsecond)
	}
	stop.Store(true)
}
