package main

import (
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"github.com/thurward/thurward/internal/guest/sys"
)

// Checks of several processors. Where there is one they have nothing to show, and pass.

// processors: Go sees those that the kernel uses.
func processors() error {
	used, listed := sys.Processors()
	fmt.Printf("guest: processors used=%d listed=%d\n", used, listed)
	if n := runtime.NumCPU(); n != used || runtime.GOMAXPROCS(0) != used {
		return fmt.Errorf("for Go there are %d processors, of %d, and uses %d", n, used, runtime.GOMAXPROCS(0))
	}
	return nil
}

func several() bool {
	n, _ := sys.Processors()
	return n > 1
}

// beside runs f on a thread of its own while the caller goes on, and returns what waits
// for its end.
func beside(f func()) (wait func()) {
	done := make(chan bool)
	go func() {
		runtime.LockOSThread()
		f()
		close(done)
	}()
	return func() { <-done }
}

// within is how long a check goes on at most that passes turns between spinning threads: on
// a busy host each turn may wait until the host runs the other processor.
const within = 3 * time.Second

// atOnce counts how often another thread makes progress between two looks of this one that
// are closer together than a slice. On one processor the other would have run for a slice,
// 10 ms, meanwhile.
func atOnce() error {
	if !several() {
		return nil
	}
	var count atomic.Uint64
	var stop atomic.Bool
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	wait := beside(func() {
		for !stop.Load() {
			count.Add(1)
		}
	})
	seen := 0
	began := sys.Nanotime()
	for t, c := began, uint64(0); seen < 100 && t-began < int64(10*within); {
		now, v := sys.Nanotime(), count.Load()
		if v != c && now-t < int64(2*time.Millisecond) {
			seen++
		}
		t, c = now, v
	}
	stop.Store(true)
	wait()
	if seen < 100 {
		return fmt.Errorf("another thread's progress was seen %d times", seen)
	}
	return nil
}

// clocks: time does not go back from one processor to the other.
func clocks() error {
	if !several() {
		return nil
	}
	var turn atomic.Uint32
	var last atomic.Int64
	var back atomic.Int64
	read := func() {
		before := last.Load()
		now := sys.Nanotime()
		if now < before {
			back.Store(before - now)
		}
		last.Store(now)
	}
	const end = 1 << 31
	wait := beside(func() {
		for i := uint32(0); ; i += 2 {
			for turn.Load() != i+1 {
				if turn.Load() == end {
					return
				}
			}
			read()
			turn.Store(i + 2)
		}
	})
	for t, i := time.Now(), uint32(0); i < 4000 && time.Since(t) < within; i += 2 {
		read()
		turn.Store(i + 1)
		for turn.Load() != i+2 {
		}
	}
	turn.Store(end)
	wait()
	if d := back.Load(); d != 0 {
		return fmt.Errorf("the clock went back by %d ns", d)
	}
	return nil
}

func futexWait(a *atomic.Uint32, v uint32, limit time.Duration) syscall.Errno {
	ts := syscall.NsecToTimespec(int64(limit))
	_, _, e := syscall.Syscall6(syscall.SYS_FUTEX, uintptr(unsafe.Pointer(a)), 128, uintptr(v), uintptr(unsafe.Pointer(&ts)), 0, 0)
	return e
}

func futexWake(a *atomic.Uint32) {
	syscall.RawSyscall6(syscall.SYS_FUTEX, uintptr(unsafe.Pointer(a)), 129, 1, 0, 0, 0)
}

// wakeAcross passes a turn by futexes: no wake-up is lost.
func wakeAcross() error {
	var turn atomic.Uint32
	var lost atomic.Bool
	await := func(v uint32) {
		for {
			w := turn.Load()
			if w == v || lost.Load() {
				return
			}
			if futexWait(&turn, w, 10*time.Second) == syscall.ETIMEDOUT && turn.Load() == w {
				lost.Store(true)
			}
		}
	}
	const turns = 2000
	wait := beside(func() {
		for i := uint32(0); i < turns; i += 2 {
			await(i + 1)
			turn.Store(i + 2)
			futexWake(&turn)
		}
	})
	for i := uint32(0); i < turns; i += 2 {
		turn.Store(i + 1)
		futexWake(&turn)
		await(i + 2)
	}
	wait()
	if lost.Load() {
		return errors.New("a wake-up was lost")
	}
	return nil
}

// preemptAcross collects garbage while every processor computes without a call: each is
// stopped by a signal.
func preemptAcross() (err error) {
	var stop atomic.Bool
	var wg sync.WaitGroup
	for range runtime.NumCPU() + 1 {
		wg.Go(func() {
			for x := 0; ; x++ {
				if x&0xfffff == 0 && stop.Load() {
					return
				}
			}
		})
	}
	defer wg.Wait()
	defer stop.Store(true)
	before := sys.Stats().Signals
	for range 10 {
		t := time.Now()
		runtime.GC()
		if d := time.Since(t); d > 10*time.Second {
			return fmt.Errorf("a collection took %v", d)
		}
	}
	if sys.Stats().Signals == before {
		return errors.New("no thread was interrupted")
	}
	return nil
}

const (
	mapAnon  = syscall.MAP_ANON | syscall.MAP_PRIVATE
	mapFixed = mapAnon | syscall.MAP_FIXED
)

func mmapAt(a, n uintptr, flags uintptr) (uintptr, error) {
	p, _, e := syscall.RawSyscall6(syscall.SYS_MMAP, a, n, syscall.PROT_READ|syscall.PROT_WRITE, flags, ^uintptr(0), 0)
	if e != 0 {
		return 0, e
	}
	return p, nil
}

func word(a uintptr) *atomic.Uint64 { return *(**atomic.Uint64)(unsafe.Pointer(&a)) }

// unmapAcross unmaps pages that another thread has read, gives their frames another content,
// and maps others there: the other thread must not see the old. It makes no call meanwhile,
// or sleeps, and its processor with it.
func unmapAcross() error {
	if !several() {
		return nil
	}
	if err := unmapBeside(false); err != nil {
		return err
	}
	if err := unmapBeside(true); err != nil {
		return fmt.Errorf("beside a processor that sleeps: %w", err)
	}
	return nil
}

func unmapBeside(sleeps bool) error {
	const pages, rounds, end = 4, 200, 1 << 33
	a, err := mmapAt(0, pages*page, mapAnon)
	if err != nil {
		return err
	}
	var turn, got atomic.Uint64
	var bell atomic.Uint32
	wait := beside(func() {
		for i := uint64(1); ; i++ {
			for turn.Load() != i {
				if sleeps {
					futexWait(&bell, uint32(i-1), time.Second)
				}
				if turn.Load() == end {
					return
				}
			}
			sum := uint64(0)
			for p := range uintptr(pages) {
				sum += word(a + p*page).Load()
			}
			got.Store(sum)
			turn.Store(i | 1<<32)
		}
	})
	ask := func(i uint64) uint64 {
		turn.Store(i)
		bell.Store(uint32(i))
		if sleeps {
			futexWake(&bell)
		}
		for turn.Load() != i|1<<32 {
		}
		return got.Load()
	}
	began := time.Now()
	for i := uint64(0); i < rounds && (i < 10 || time.Since(began) < within); i++ {
		for p := range uintptr(pages) {
			word(a + p*page).Store(i + 1)
		}
		if sum := ask(2*i + 1); sum != pages*(i+1) && err == nil {
			err = fmt.Errorf("round %d: the other thread reads %d", i, sum)
		}
		if _, e := mmapAt(a, pages*page, mapFixed); e != nil && err == nil {
			err = e
		}
		b, e := mmapAt(0, 64*page, mapAnon) // takes the frames that were given back
		if e != nil && err == nil {
			err = e
		}
		for p := range uintptr(64) {
			word(b + p*page).Store(1 << 40)
		}
		if sum := ask(2*i + 2); sum != 0 && err == nil {
			err = fmt.Errorf("round %d: the other thread reads %#x where nothing was written", i, sum)
		}
		syscall.RawSyscall(syscall.SYS_MUNMAP, b, 64*page, 0)
	}
	turn.Store(end)
	bell.Store(1 << 31)
	futexWake(&bell)
	wait()
	syscall.RawSyscall(syscall.SYS_MUNMAP, a, pages*page, 0)
	return err
}

// protectAcross takes the permission to write from a page that another thread has written
// to: its next write must fail.
func protectAcross() error {
	if !several() {
		return nil
	}
	a, err := mmapAt(0, page, mapAnon)
	if err != nil {
		return err
	}
	var turn atomic.Uint64
	var wrote atomic.Bool
	wait := beside(func() {
		debug.SetPanicOnFault(true)
		for i := uint64(1); i <= 40; i++ {
			for turn.Load() != i {
			}
			e := try(func() { word(a).Store(i) })
			wrote.Store(e == nil)
			turn.Store(i | 1<<32)
		}
	})
	for i := uint64(1); i <= 40; i++ {
		turn.Store(i)
		for turn.Load() != i|1<<32 {
		}
		may := i%2 == 1
		if wrote.Load() != may && err == nil {
			err = fmt.Errorf("round %d: wrote %v, may %v", i, wrote.Load(), may)
		}
		prot := uintptr(syscall.PROT_READ)
		if i%2 == 0 {
			prot |= syscall.PROT_WRITE
		}
		syscall.RawSyscall(syscall.SYS_MPROTECT, a, page, prot)
	}
	wait()
	syscall.RawSyscall(syscall.SYS_MUNMAP, a, page, 0)
	return err
}

// mappingStorm maps, fills, protects, gives back and unmaps memory on all processors at
// once, and checks that nobody sees what another wrote.
func mappingStorm() error {
	var bad atomic.Uint64
	var wg sync.WaitGroup
	n := 2 * runtime.NumCPU()
	for k := range n {
		wg.Go(func() {
			runtime.LockOSThread()
			for i := range 30 {
				pages := uintptr(1 + (i*7+k*3)%40)
				a, err := mmapAt(0, pages*page, mapAnon)
				if err != nil {
					bad.Store(1)
					return
				}
				mine := uint64(k)<<32 | uint64(i) | 1<<62
				for p := range pages {
					if word(a+p*page).Load() != 0 {
						bad.Store(2)
					}
					word(a + p*page).Store(mine + uint64(p))
				}
				for p := range pages {
					if word(a+p*page).Load() != mine+uint64(p) {
						bad.Store(3)
					}
				}
				if i%3 == 0 {
					syscall.RawSyscall(syscall.SYS_MADVISE, a, pages*page, syscall.MADV_DONTNEED)
					if word(a).Load() != 0 {
						bad.Store(4)
					}
				}
				syscall.RawSyscall(syscall.SYS_MUNMAP, a, pages*page, 0)
			}
		})
	}
	wg.Wait()
	if b := bad.Load(); b != 0 {
		return fmt.Errorf("problem %d", b)
	}
	return nil
}

// gcAcross allocates on all processors while garbage is collected, and checks what is kept.
func gcAcross() error {
	var bad atomic.Bool
	var wg sync.WaitGroup
	for k := range runtime.NumCPU() {
		wg.Go(func() {
			keep := make([][]uint64, 50)
			for i := range 2000 {
				b := make([]uint64, 1+i%200)
				for j := range b {
					b[j] = uint64(k)<<40 | uint64(i)
				}
				if old := keep[i%50]; old != nil && (old[0] != old[len(old)-1] || old[0]>>40 != uint64(k)) {
					bad.Store(true)
				}
				keep[i%50] = b
			}
		})
	}
	for range 5 {
		runtime.GC()
	}
	wg.Wait()
	if bad.Load() {
		return errors.New("memory in use was changed")
	}
	return nil
}

// twoCrashes has two threads end by a signal at the same time.
func twoCrashes() {
	var ready atomic.Int32
	crash := func() {
		ready.Add(1)
		for ready.Load() != 2 {
		}
		unhandledSignal()
	}
	go func() {
		runtime.LockOSThread()
		crash()
	}()
	runtime.LockOSThread()
	crash()
}

// kernelCrash has the kernel report a crash while other threads run.
func kernelCrash() {
	for range runtime.NumCPU() {
		go func() {
			//lint:ignore SA5002 that is what it is for
			for {
			}
		}()
	}
	time.Sleep(50 * time.Millisecond)
	unhandledSignal()
}
