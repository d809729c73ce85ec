package main

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"github.com/thurward/thurward/internal/guest/sys"
	"github.com/thurward/thurward/internal/shared/abi"
)

// waiterChecks are those of several packet loops, each of which waits as a waiter of its own.
var waiterChecks = []struct {
	name string
	run  func() error
}{
	{"waiter-arguments", waiterArguments},
	{"waiter-wakes", waiterWakes},
	{"waiter-deadline", waiterDeadline},
	{"waiter-bits", waiterBits},
	{"waiter-turns", waiterTurns},
	{"waiter-homes", waiterHomes},
	{"waiter-vectors", waiterVectors},
}

// soon is a deadline that must not be reached.
func soon() int64 { return sys.Nanotime() + int64(20*time.Second) }

// here returns the number of the processor that the thread runs on, which the kernel keeps
// behind abi.Shared.
func here() int { return int(*(*uint32)(unsafe.Pointer(address(abi.SharedPage + 64)))) }

func address(a uintptr) *byte { return *(**byte)(unsafe.Pointer(&a)) }

// waiterArguments: what there is not is refused, and what is not kept is lost.
func waiterArguments() error {
	wait := func(n, bits uintptr) syscall.Errno {
		_, _, e := syscall.Syscall(abi.SysWait, 0, n, bits)
		return e
	}
	for _, n := range []uintptr{abi.MaxWaiters, 1 << 32, ^uintptr(0)} {
		if e := wait(n, 0); e != syscall.EINVAL {
			return fmt.Errorf("waiter %#x: %v", n, e)
		}
	}
	for _, set := range []uintptr{0, 1 << abi.MaxWaiters, ^uintptr(0), 1 << 63} {
		if _, _, e := syscall.RawSyscall(abi.SysWake, set, 0, 0); e != syscall.EINVAL {
			return fmt.Errorf("waking %#x: %v", set, e)
		}
	}
	done := beside(func() { sys.WaitAs(1, 0, soon()) })
	for range 1000 { // until it waits
		if _, _, e := syscall.Syscall(abi.SysWait, 0, 1, 0); e == syscall.EAGAIN {
			sys.Wake(1 << 1)
			done()
			return nil
		}
		time.Sleep(time.Millisecond)
	}
	return errors.New("a second thread waits as the same waiter")
}

// waiterWakes: exactly those that are named wake, and a wake-up that comes before the wait is
// not lost.
func waiterWakes() error {
	var woke [abi.MaxWaiters]atomic.Uint32
	var bad, end atomic.Bool
	var wg sync.WaitGroup
	for n := range abi.MaxWaiters {
		wg.Go(func() {
			runtime.LockOSThread()
			for !end.Load() {
				switch sys.WaitAs(n, sys.Woken, soon()) {
				case sys.Woken:
					woke[n].Add(1)
				default:
					bad.Store(true)
				}
			}
		})
	}
	want := [abi.MaxWaiters]uint32{}
	check := func() error {
		for t := time.Now(); ; time.Sleep(100 * time.Microsecond) {
			same := true
			for n := range woke {
				v := woke[n].Load()
				if v > want[n] {
					return fmt.Errorf("waiter %d woke %d times, was told %d times", n, v, want[n])
				}
				same = same && v == want[n]
			}
			if same {
				return nil
			}
			if time.Since(t) > 10*time.Second {
				return fmt.Errorf("waiter's wake-ups: %v", want)
			}
		}
	}
	var err error
	for i := uint64(1); i < 1<<abi.MaxWaiters && err == nil; i += 3 {
		for n := range want {
			want[n] += uint32(i >> n & 1)
		}
		sys.Wake(i)
		err = check()
	}
	end.Store(true)
	sys.Wake(1<<abi.MaxWaiters - 1)
	wg.Wait()
	if bad.Load() {
		err = errors.Join(err, errors.New("a wait ended without a wake-up"))
	}
	for n := range abi.MaxWaiters { // before the wait
		sys.Wake(1 << n)
		if b := sys.WaitAs(n, 0, soon()); b&sys.Woken == 0 {
			err = errors.Join(err, fmt.Errorf("waiter %d, woken before it waits: %#x", n, b))
		}
		if b := sys.WaitAs(n, sys.Woken, 0); b != 0 {
			err = errors.Join(err, fmt.Errorf("waiter %d, a second time: %#x", n, b))
		}
	}
	return err
}

// waiterDeadline: a wait without events ends when its time has come, and not before.
func waiterDeadline() error {
	for n := range 3 {
		until := sys.Nanotime() + int64(20*time.Millisecond)
		if b := sys.WaitAs(n, sys.Woken, until); b != 0 {
			return fmt.Errorf("waiter %d: %#x", n, b)
		}
		if late := sys.Nanotime() - until; late < 0 || late > int64(5*time.Second) {
			return fmt.Errorf("waiter %d went on %v after its deadline", n, time.Duration(late))
		}
	}
	return nil
}

// waiterBits: what a waiter does not wait for stays for later.
func waiterBits() error {
	sys.Wake(1 << 2)
	if b := sys.WaitAs(2, sys.ConfigChanged, sys.Nanotime()+int64(10*time.Millisecond)); b != 0 {
		return fmt.Errorf("not waited for, and got: %#x", b)
	}
	if b := sys.WaitAs(2, sys.Woken|sys.ConfigChanged, soon()); b != sys.Woken {
		return fmt.Errorf("what came before: %#x", b)
	}
	return nil
}

// waiterTurns has two loops wake each other in turn, with no time-out.
func waiterTurns() error {
	const turns = 1000
	wait := beside(func() {
		for range turns {
			sys.WaitAs(1, sys.Woken, soon())
			sys.Wake(1 << 2)
		}
	})
	lost := 0
	for range turns {
		sys.Wake(1 << 1)
		if sys.WaitAs(2, sys.Woken, soon()) == 0 {
			lost++
		}
	}
	wait()
	if lost != 0 {
		return fmt.Errorf("%d wake-ups were lost", lost)
	}
	return nil
}

// waiterHomes: a loop's thread goes on on the processor of its waiter. Waiter 0 wakes the
// others, as the first of several packet loops does. On a busy host a processor may come too
// late, so that another takes its thread.
func waiterHomes() error {
	used, _ := sys.Processors()
	var rounds, home [abi.MaxWaiters]atomic.Uint32
	var end atomic.Bool
	var wg sync.WaitGroup
	loop := func(n int, deadline func() int64) {
		sys.WaitAs(n, sys.Woken, deadline())
		rounds[n].Add(1)
		if here() == n {
			home[n].Add(1)
		}
	}
	wake := func() {
		if others := uint64(1)<<used - 2; others != 0 {
			sys.Wake(others)
		}
	}
	for n := 1; n < used; n++ {
		wg.Go(func() {
			runtime.LockOSThread()
			for !end.Load() {
				loop(n, soon)
			}
		})
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for range 200 {
		loop(0, func() int64 { return sys.Nanotime() + int64(time.Millisecond) })
		wake()
	}
	end.Store(true)
	wake()
	wg.Wait()
	for n := range used {
		r, h := rounds[n].Load(), home[n].Load()
		fmt.Printf("guest: waiter %d was at home %d of %d times\n", n, h, r)
		if h < r/2 {
			return fmt.Errorf("waiter %d was at home %d of %d times", n, h, r)
		}
	}
	return nil
}

// waiterVectors: an interrupt by each vector of a device comes to the waiters that it is for,
// and to no other. The device gives random numbers.
func waiterVectors() error {
	const all = 4 // waiters
	ds := sys.Devices(4)
	if len(ds) != 1 {
		return fmt.Errorf("%d devices of random numbers", len(ds))
	}
	d := ds[0]
	used, _ := sys.Processors()
	fmt.Printf("guest: vectors=%d pci=%v\n", d.Vectors, d.Notify != nil)
	if d.Vectors < 1 || int(d.Vectors) > used {
		return fmt.Errorf("%d vectors, %d processors", d.Vectors, used)
	}
	bit := uint64(1) << d.Bit
	for n := range all {
		sys.WaitAs(n, 0, 0) // what comes is kept from now on
	}
	for v := range d.Vectors {
		r, err := newRandom(d, v)
		if err != nil {
			return err
		}
		for range 20 {
			r.ask()
			for n := range all {
				mine := uint32(n)%d.Vectors == v
				until := int64(0)
				if mine {
					until = soon()
				} else if n == 0 {
					until = sys.Nanotime() + int64(time.Millisecond) // until it came for the others
				}
				if b := sys.WaitAs(n, bit, until); b == bit != mine {
					return fmt.Errorf("vector %d of %d: waiter %d got %#x", v, d.Vectors, n, b)
				}
			}
			r.acknowledge()
		}
	}
	return nil
}
