// Command guest is hostile code in ring 3: the only program of an image, which
// tries by every way known to change what runs there, or to reach ring 0. It
// prints a line for each attempt: "isolation: NAME: refused: how" or
// "isolation: NAME: SUCCEEDED: how".
//
//lint:file-ignore U1000 the assembly file uses what Go code does not
package main

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"github.com/thurward/thurward/internal/guest/sys"
)

// regs are the registers that run loads, and what they were when the code ended.
type regs struct{ ax, bx, cx, dx, si, di, flags, cs uint64 }

func run(code uintptr, r *regs)
func addresses(p *[numCodes]uintptr)

// Shared with run_amd64.s.
var (
	savedSP   uint64
	savedRegs uint64
	gotSignal uint64
	reachedCS uint64
)

var code2addr [numCodes]uintptr

// symbol returns the address of one of the kernel's routines, as boot arguments
// tell.
func symbol(name string) uint64 {
	v, _ := strconv.ParseUint(os.Getenv(name), 0, 64)
	return v
}

var monitorCall = symbol("MONITOR")

// The signals that an exception can become.
var signals = []syscall.Signal{syscall.SIGSEGV, syscall.SIGILL, syscall.SIGTRAP, syscall.SIGFPE, syscall.SIGBUS}

type sigaction struct{ handler, flags, restorer, mask uint64 }

func rtSigaction(s syscall.Signal, act, old *sigaction) {
	if _, _, e := syscall.RawSyscall6(syscall.SYS_RT_SIGACTION, uintptr(s), uintptr(unsafe.Pointer(act)), uintptr(unsafe.Pointer(old)), 8, 0, 0); e != 0 {
		panic(e)
	}
}

// do runs a routine with its own signal handler, and returns the signal that
// ended it, 0 when it ended by itself.
func do(c code, r *regs) uint64 {
	var old [8]sigaction
	mine := sigaction{handler: uint64(code2addr[handlerCode]), flags: 0x0c000004} // ONSTACK, RESTORER, SIGINFO
	for i, s := range signals {
		rtSigaction(s, &mine, &old[i])
	}
	run(code2addr[c], r)
	for i, s := range signals {
		rtSigaction(s, &old[i], nil)
	}
	return gotSignal
}

// An attempt's outcome: whether it succeeded, and how that was seen.
type outcome struct {
	succeeded bool
	how       string
}

func refused(format string, a ...any) outcome   { return outcome{false, fmt.Sprintf(format, a...)} }
func succeeded(format string, a ...any) outcome { return outcome{true, fmt.Sprintf(format, a...)} }

type attempt struct {
	name string
	run  func() outcome
}

// faults is the outcome of a routine that must not get past its instruction.
func faults(c code, r regs) outcome {
	if s := do(c, &r); s != 0 {
		return refused("signal %d", s)
	}
	return succeeded("no fault (ax=%#x)", r.ax)
}

func main() {
	runtime.LockOSThread()
	debug.SetGCPercent(-1)
	addresses(&code2addr)
	fmt.Printf("isolation: native=%v\n", sys.Native())
	takeDeviceMemory()
	if err := honest(); err != nil {
		fmt.Printf("isolation: honest: %v\n", err)
	} else {
		fmt.Println("isolation: honest: ok")
	}
	skip := strings.Split(os.Getenv("SKIP"), ",") // spaces are underscores there
	fmt.Printf("isolation: trying %s\n", beforeSealing)
	shareEarly(!slices.Contains(skip, strings.ReplaceAll(beforeSealing, " ", "_")))
	if err := seal(); err != nil {
		fmt.Printf("isolation: sealing: %v\n", err)
		return
	}
	n, bad := 0, 0
	lists := []struct {
		name string
		list []attempt
	}{{"writes", writes()}, {"tables", tables()}, {"executes", executes()}, {"calls", systemCalls()}, {"instructions", instructions()}, {"stacks", stacks()},
		{"ports", ports()}, {"monitor", monitorCalls()}, {"forgeries", forgeries()}, {"audit", []attempt{audits("find a page that breaks an invariant"), randomCalls()}}, {"races", races()}, {"sharing", sharing()}, {"msix", []attempt{{"find an MSI-X table", findMSIX}}}, {"devices", devices()}, {"removals", removals()}, {"exhaustion", exhaustion()}}
	chosen := os.Getenv("LISTS")
	for _, l := range lists {
		if chosen != "" && !slices.Contains(strings.Split(chosen, ","), l.name) {
			continue
		}
		for _, a := range l.list {
			if slices.Contains(skip, strings.ReplaceAll(a.name, " ", "_")) {
				continue
			}
			fmt.Printf("isolation: trying %s\n", a.name)
			o := a.run()
			n++
			verdict := "refused"
			if o.succeeded {
				verdict = "SUCCEEDED"
				bad++
			}
			fmt.Printf("isolation: %s: %s: %s\n", a.name, verdict, o.how)
		}
	}
	fmt.Printf("isolation: done: %d attempts, %d succeeded\n", n, bad)
}
