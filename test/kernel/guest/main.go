// Command guest is a program for the kernel's tests: it runs as the only
// program of an image, checks from inside what the kernel promises, and prints
// one line for each check. The boot argument CHECK=name selects checks that
// end the machine.
package main

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"github.com/thurward/thurward/internal/guest/sys"
	"github.com/thurward/thurward/internal/shared/abi"
)

var checks = []struct {
	name string
	run  func() error
}{
	{"policy", policy},
	{"recover", recovers},
	{"write-protection", writeProtection},
	{"null-page", nullPage},
	{"signal-stack", signalStack},
	{"munmap", munmap},
	{"madvise-zeroes", madviseZeroes},
	{"memory-returns", memoryReturns},
	{"bad-pointers", badPointers},
	{"goroutines", goroutines},
	{"preemption", preemption},
	{"vector-registers", vectorRegisters},
	{"threads", threads},
	{"many-threads", func() error { return lockThreads(200) }},
	{"timers", timers},
	{"clock", clock},
	{"random", random},
	{"random-later", randomLater},
	{"gc", gc},
	{"dma", dma},
	{"memory-limit", memoryLimit},
	{"no-files", noFiles},
	{"processors", processors},
	{"at-once", atOnce},
	{"clocks", clocks},
	{"wake-across", wakeAcross},
	{"preempt-across", preemptAcross},
	{"unmap-across", unmapAcross},
	{"protect-across", protectAcross},
	{"mapping-storm", mappingStorm},
	{"gc-across", gcAcross},
}

func main() {
	start := sys.Nanotime() - sys.EntryTime()
	fmt.Printf("guest: boot_us=%d memory=%d free=%d native=%v\n", start/1000, sys.MemoryBytes(), sys.FreeBytes(), sys.Native())
	switch os.Getenv("CHECK") {
	case "exec-data":
		execData()
	case "panic":
		panic("on purpose")
	case "oom":
		oom()
	case "stack":
		debug.SetMaxStack(1 << 20)
		deep(0)
	case "signal":
		unhandledSignal()
	case "threads":
		lockThreads(1000)
	case "deadlock":
		machineWaitForever()
	case "idle":
		before := sys.Stats()
		time.Sleep(2 * time.Second)
		s := sys.Stats()
		fmt.Printf("guest: idle slept_ms=%d interrupts=%d halts=%d\n",
			(s.IdleNS-before.IdleNS)/1e6, s.Interrupts-before.Interrupts, s.Halts-before.Halts)
		return // the checks would only take time
	case "soak":
		soak()
	case "two-crashes":
		twoCrashes()
	case "boot":
		if err := processors(); err != nil {
			fmt.Printf("guest: FAIL processors: %v\n", err)
		}
		fmt.Printf("guest: at-once %v\n", atOnce())
		fmt.Println("guest: done")
		return
	case "waiters":
		if sys.Native() {
			sys.Cooperate() // as the firewall does
		}
		for _, c := range waiterChecks {
			if err := c.run(); err != nil {
				fmt.Printf("guest: FAIL %s: %v\n", c.name, err)
				continue
			}
			fmt.Printf("guest: ok %s\n", c.name)
		}
		fmt.Println("guest: done")
		return
	case "kernel-crash":
		kernelCrash()
	}
	only := os.Getenv("ONLY") // the names of checks, with commas between; "": all
	for _, c := range checks {
		if only != "" && !slices.Contains(strings.Split(only, ","), c.name) {
			continue
		}
		if err := c.run(); err != nil {
			fmt.Printf("guest: FAIL %s: %v\n", c.name, err)
			continue
		}
		fmt.Printf("guest: ok %s\n", c.name)
	}
	s := sys.Stats()
	fmt.Printf("guest: stats faults=%d interrupts=%d halts=%d switches=%d syscalls=%d signals=%d tables=%d\n",
		s.Faults, s.Interrupts, s.Halts, s.Switches, s.Syscalls, s.Signals, s.TableFrames)
	fmt.Println("guest: done")
}

// signalStack takes a signal on a stack full of ones: XSAVE leaves bits there that XRSTOR
// refuses.
func signalStack() error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	type stack struct {
		sp    uintptr
		flags int32
		size  uintptr
	}
	mem, err := mmap(64 << 10)
	if err != nil {
		return err
	}
	for i := range mem {
		mem[i] = 0xff
	}
	var old stack
	mine := stack{sp: uintptr(unsafe.Pointer(&mem[0])), size: uintptr(len(mem))}
	if _, _, e := syscall.RawSyscall(syscall.SYS_SIGALTSTACK, uintptr(unsafe.Pointer(&mine)), uintptr(unsafe.Pointer(&old)), 0); e != 0 {
		return e
	}
	var p *int64
	err = try(func() { sink.Store(*p) })
	syscall.RawSyscall(syscall.SYS_SIGALTSTACK, uintptr(unsafe.Pointer(&old)), 0, 0)
	if err == nil {
		return errors.New("nil dereference did not panic")
	}
	return syscall.Munmap(mem)
}

func policy() error {
	if got := string(sys.Policy()); got != "test policy" {
		return fmt.Errorf("ruleset is %q", got)
	}
	return nil
}

// try runs f and returns the run-time error that it panics with.
func try(f func()) (err error) {
	defer func() {
		if e, ok := recover().(error); ok {
			err = e
		}
	}()
	debug.SetPanicOnFault(true)
	f()
	return nil
}

var sink atomic.Int64

func recovers() error {
	var p *int64
	var zero int64
	if err := try(func() { sink.Store(*p) }); err == nil {
		return errors.New("nil dereference did not panic")
	}
	if err := try(func() { sink.Store(1 / zero) }); err == nil {
		return errors.New("division by zero did not panic")
	}
	return nil
}

func at(a uintptr) *byte { return *(**byte)(unsafe.Pointer(&a)) }

func writeProtection() error {
	pc, _, _, _ := runtime.Caller(0)
	ro := "a constant in read-only data"
	for name, a := range map[string]*byte{
		"text":      at(pc),
		"constants": unsafe.StringData(ro),
		"policy":    unsafe.SliceData(sys.Policy()),
		"vdso":      at(abi.VDSOPage),
		"kernel":    at(abi.KernelBase + 0x1000),
	} {
		if err := try(func() { *a++ }); err == nil {
			return fmt.Errorf("%s is writable", name)
		}
	}
	for name, a := range map[string]uintptr{"entry": abi.EntryPage, "descriptors": abi.DescPage, "guard": abi.KernelStack - 8, "low": abi.DirectBase + 0x1000} {
		if err := try(func() { sink.Store(int64(*at(a))) }); err == nil {
			return fmt.Errorf("%s is readable", name)
		}
	}
	return nil
}

func nullPage() error {
	for a := uintptr(8); a < 1<<20; a += 4096 {
		if err := try(func() { sink.Store(int64(*at(a))) }); err == nil {
			return fmt.Errorf("%#x is mapped", a)
		}
	}
	return nil
}

const page = 4096

func mmap(n int) ([]byte, error) {
	return syscall.Mmap(-1, 0, n, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
}

func munmap() error {
	b, err := mmap(16 * page)
	if err != nil {
		return err
	}
	for i := range b {
		if b[i] != 0 {
			return fmt.Errorf("fresh memory holds %d", b[i])
		}
		b[i] = 0xaa
	}
	a := uintptr(unsafe.Pointer(&b[0]))
	if _, _, e := syscall.Syscall(syscall.SYS_MUNMAP, a+4*page, 4*page, 0); e != 0 {
		return e
	}
	if b[3*page] != 0xaa || b[8*page] != 0xaa {
		return errors.New("neighbours lost their contents")
	}
	if err := try(func() { sink.Store(int64(*at(a + 5*page))) }); err == nil {
		return errors.New("unmapped memory is readable")
	}
	if _, _, e := syscall.Syscall(syscall.SYS_MUNMAP, a, 16*page, 0); e != 0 {
		return e
	}
	c, err := mmap(16 * page)
	if err != nil {
		return err
	}
	if i := bytes.IndexByte(c, 0xaa); i >= 0 {
		return errors.New("recycled memory is not zero")
	}
	return syscall.Munmap(c)
}

func madviseZeroes() error {
	b, err := mmap(64 * page)
	if err != nil {
		return err
	}
	for i := range b {
		b[i] = 0x55
	}
	if err := syscall.Madvise(b[8*page:24*page], syscall.MADV_DONTNEED); err != nil {
		return err
	}
	for i := range b {
		want := byte(0x55)
		if i >= 8*page && i < 24*page {
			want = 0
		}
		if b[i] != want {
			return fmt.Errorf("byte %d is %#x, want %#x", i, b[i], want)
		}
	}
	return syscall.Munmap(b)
}

func memoryReturns() error {
	before := sys.Stats().FreeFrames
	for range 50 {
		b, err := mmap(4 << 20)
		if err != nil {
			return err
		}
		for i := 0; i < len(b); i += page {
			b[i] = 1
		}
		if err := syscall.Munmap(b); err != nil {
			return err
		}
	}
	if after := sys.Stats().FreeFrames; after+64 < before {
		return fmt.Errorf("%d frames were free, now %d", before, after)
	}
	return nil
}

func badPointers() error {
	for _, a := range []uintptr{8, abi.DescPage, 0x123456789000, 1 << 63, ^uintptr(0) - 4} {
		if _, _, e := syscall.RawSyscall(syscall.SYS_WRITE, 1, a, 8); e != syscall.EFAULT {
			return fmt.Errorf("write from %#x: %v, want EFAULT", a, e)
		}
		if _, _, e := syscall.RawSyscall(syscall.SYS_NANOSLEEP, a, 0, 0); e != syscall.EFAULT {
			return fmt.Errorf("nanosleep of %#x: %v, want EFAULT", a, e)
		}
	}
	pc, _, _, _ := runtime.Caller(0)
	if _, _, e := syscall.RawSyscall(318, pc, 8, 0); e != syscall.EFAULT {
		return fmt.Errorf("getrandom into text: %v, want EFAULT", e)
	}
	if _, _, e := syscall.RawSyscall(syscall.SYS_MUNMAP, abi.KernelEnd, 1<<20, 0); e == 0 {
		return errors.New("munmap of the program's text succeeded")
	}
	if _, err := syscall.Mmap(-1, 0, page, syscall.PROT_READ|syscall.PROT_EXEC, syscall.MAP_ANON|syscall.MAP_PRIVATE); err == nil {
		return errors.New("executable memory was given")
	}
	return nil
}

func goroutines() error {
	ch := make(chan int)
	var wg sync.WaitGroup
	for i := range 1000 {
		wg.Add(1)
		go func() { defer wg.Done(); ch <- i }()
	}
	go func() { wg.Wait(); close(ch) }()
	sum := 0
	for v := range ch {
		sum += v
	}
	if sum != 999*1000/2 {
		return fmt.Errorf("sum %d", sum)
	}
	return nil
}

// preemption: a goroutine that never calls anything lets others run. A host that
// takes the processor away may spoil a try, and hardly twenty.
func preemption() (err error) {
	var stop atomic.Bool
	go func() {
		for x := 0; ; x++ {
			if x&0xffffff == 0 && stop.Load() {
				return
			}
		}
	}()
	defer stop.Store(true)
	for range 20 {
		t := time.Now()
		time.Sleep(20 * time.Millisecond)
		runtime.GC()
		d := time.Since(t)
		if d <= 800*time.Millisecond {
			return nil
		}
		err = fmt.Errorf("sleep and GC beside a busy goroutine took %v", d)
	}
	return err
}

// vectorRegisters hashes with AVX code while threads are switched.
func vectorRegisters() error {
	want := sha256.Sum256(make([]byte, 1<<16))
	var bad atomic.Int32
	var wg sync.WaitGroup
	for range 4 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			runtime.LockOSThread()
			b := make([]byte, 1<<16)
			for range 60 {
				if sha256.Sum256(b) != want {
					bad.Add(1)
				}
			}
		}()
	}
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(3))
	wg.Wait()
	if n := bad.Load(); n != 0 {
		return fmt.Errorf("%d wrong hashes", n)
	}
	return nil
}

func threads() error {
	a, b := make(chan int), make(chan int)
	go func() {
		runtime.LockOSThread() // the thread ends with the goroutine
		for v := range a {
			b <- v + 1
		}
		close(b)
	}()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for i := range 500 {
		a <- i
		if v := <-b; v != i+1 {
			return fmt.Errorf("got %d", v)
		}
	}
	close(a)
	<-b
	return nil
}

// timers: as in preemption, a host may spoil a try.
func timers() (err error) {
	for range 20 {
		if err = timersOnce(); err == nil {
			break
		}
	}
	return err
}

func timersOnce() error {
	for _, d := range []time.Duration{time.Millisecond, 7 * time.Millisecond, 60 * time.Millisecond} {
		t := time.Now()
		time.Sleep(d)
		if got := time.Since(t); got < d || got > d+50*time.Millisecond {
			return fmt.Errorf("a sleep of %v took %v", d, got)
		}
	}
	n := 0
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for t := time.Now(); time.Since(t) < 100*time.Millisecond; n++ {
		<-tick.C
	}
	if n < 20 {
		return fmt.Errorf("%d ticks of 2 ms in 100 ms", n)
	}
	return nil
}

func clock() error {
	last := sys.Nanotime()
	t0, m0 := time.Now(), last
	for range 200000 {
		t := sys.Nanotime()
		if t < last {
			return fmt.Errorf("the clock went back by %d ns", last-t)
		}
		last = t
	}
	if d := time.Since(t0) - time.Duration(last-m0); d < -time.Millisecond || d > 20*time.Millisecond {
		return fmt.Errorf("time.Now and Nanotime disagree by %v", d)
	}
	base, source := sys.WallBase()
	fmt.Printf("guest: clock source=%s unix_ms=%d\n", source, (base+last)/1e6)
	return nil
}

func random() error {
	var a, b [32]byte
	if err := sys.Random(a[:]); err != nil {
		return err
	}
	if err := sys.Random(b[:]); err != nil {
		return err
	}
	if a == b || a == [32]byte{} {
		return errors.New("constant")
	}
	fmt.Printf("guest: random %x\n", a)
	return nil
}

// randomLater takes random numbers when the generator is due to be seeded again. It takes its
// time only where that is asked for.
func randomLater() error {
	if !strings.Contains(sys.Cmdline(), "random-later") {
		return nil
	}
	time.Sleep(1100 * time.Millisecond)
	var a, b [32]byte
	began := sys.Nanotime()
	if err := errors.Join(sys.Random(a[:]), sys.Random(b[:])); err != nil || a == b || a == [32]byte{} {
		return fmt.Errorf("%x, %x, %v", a, b, err)
	}
	took := time.Duration(sys.Nanotime() - began)
	_, err := sys.Fresh()
	fmt.Printf("guest: starved=%d took=%v fresh=%v\n", sys.Stats().Starved, took, err)
	return nil
}

func gc() error {
	keep := make([][]byte, 64)
	for i := range 20000 {
		b := make([]byte, 4096)
		b[i%4096] = byte(i)
		keep[i%64] = b
	}
	runtime.GC()
	debug.FreeOSMemory()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	if m.NumGC < 2 {
		return fmt.Errorf("only %d collections", m.NumGC)
	}
	return nil
}

func dma() error {
	mem, phys, err := sys.DMA(3<<20, true)
	if err != nil {
		return err
	}
	if phys%(2<<20) != 0 || len(mem) != 3<<20 {
		return fmt.Errorf("%d bytes at %#x", len(mem), phys)
	}
	for i := range mem {
		if mem[i] != 0 {
			return errors.New("not zero")
		}
	}
	mem[len(mem)-1] = 1
	if _, _, err := sys.DMA(1<<40, false); err == nil {
		return errors.New("a terabyte was given")
	}
	return nil
}

func memoryLimit() error {
	l := debug.SetMemoryLimit(-1)
	if l <= 0 || l > int64(sys.MemoryBytes()) {
		return fmt.Errorf("GOMEMLIMIT is %d of %d bytes", l, sys.MemoryBytes())
	}
	return nil
}

func noFiles() error {
	if _, err := os.ReadFile("/etc/passwd"); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

func execData() {
	code := []byte{0xc3}
	p := &code[0]
	f := *(*func())(unsafe.Pointer(&p))
	f()
	fmt.Println("guest: FAIL data was executed")
}

func oom() {
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(1 << 50)
	var keep [][]byte
	for {
		b := make([]byte, 1<<20)
		for i := 0; i < len(b); i += page {
			b[i] = 1
		}
		keep = append(keep, b)
		sink.Store(int64(len(keep)))
	}
}

// deep recurses until the stack ends.
func deep(n int) int {
	var pad [256]byte
	//lint:ignore SA5007 that is what it is for
	return deep(n+1) + int(pad[n%256])
}

// unhandledSignal ends the program by a signal that has no handler.
func unhandledSignal() {
	var none [4]uint64
	const usr1 = uintptr(syscall.SIGUSR1)
	syscall.RawSyscall6(syscall.SYS_RT_SIGACTION, usr1, uintptr(unsafe.Pointer(&none)), 0, 8, 0, 0)
	tid, _, _ := syscall.RawSyscall(syscall.SYS_GETTID, 0, 0, 0)
	syscall.RawSyscall(syscall.SYS_TGKILL, 1, tid, usr1)
	fmt.Println("guest: FAIL the signal was not delivered")
}

// lockThreads occupies n threads at once and lets them end.
func lockThreads(n int) error {
	end := make(chan bool)
	var running, done sync.WaitGroup
	for range n {
		running.Add(1)
		done.Add(1)
		go func() {
			defer done.Done()
			runtime.LockOSThread()
			running.Done()
			<-end
		}()
		running.Wait()
	}
	if got := sys.Stats().Threads; got < uint64(n) {
		return fmt.Errorf("%d threads are alive, want %d", got, n)
	}
	close(end)
	done.Wait()
	return nil
}

func machineWaitForever() {
	debug.SetGCPercent(-1)
	runtime.LockOSThread()
	var word uint32
	syscall.Syscall6(202, uintptr(unsafe.Pointer(&word)), 128, 0, 0, 0, 0)
}

// soak churns the heap and the scheduler until the machine is stopped, and
// reports once a second the worst delay of a 1 ms sleep.
func soak() {
	var worst atomic.Int64
	for range 4 {
		go func() {
			for {
				b := make([][]byte, 200)
				for i := range b {
					b[i] = make([]byte, 1000)
				}
				time.Sleep(500 * time.Microsecond)
			}
		}()
	}
	go func() {
		for {
			t := time.Now()
			time.Sleep(time.Millisecond)
			if d := int64(time.Since(t)); d > worst.Load() {
				worst.Store(d)
			}
		}
	}()
	for {
		time.Sleep(time.Second)
		s := sys.Stats()
		fmt.Printf("guest: soak worst_us=%d free=%d threads=%d tables=%d\n", worst.Swap(0)/1000, s.FreeFrames, s.Threads, s.TableFrames)
	}
}
