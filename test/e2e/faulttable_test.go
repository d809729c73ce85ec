package e2e

import (
	"bytes"
	"context"
	"encoding/binary"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/thurward/thurward/internal/host/vmm"
	"github.com/thurward/thurward/internal/shared/abi"
	"github.com/thurward/thurward/internal/shared/ruleset"
)

// faultWatchdog is how long a firewall that hangs stays so with the default watchdog, while its
// stream is received.
const faultWatchdog = 5 * time.Second

// A fault is a row of the table in docs/architecture/07.
type fault struct {
	name   string
	do     func(m *monitored)
	reason vmm.Reason    // of the restart; "": nothing is started again
	stack  []string      // functions of the report, the innermost first
	said   string        // on the console
	waits  time.Duration // what has to be waited for before the firewall is to work again
}

// suffer has the machine suffer a fault, and measures how long no packets pass.
func (m *monitored) suffer(t *testing.T, f fault) {
	t.Run(f.name, func(t *testing.T) {
		outer := m.t
		m.t = t
		defer func() { m.t = outer }()
		if _, err := m.get(soon(t), m.Alice, "/"); err != nil {
			t.Fatal(err)
		}
		m.mu.Lock()
		ends := len(m.ends)
		m.mu.Unlock()
		began := time.Now()
		f.do(m)
		if f.reason != "" {
			m.awaitReady()
		}
		if _, err := m.get(soon(t), m.Alice, "/"); err != nil {
			t.Fatal(err)
		}
		took := time.Since(began)
		t.Logf("outage %v", took.Round(10*time.Millisecond))
		if took > f.waits+limit {
			t.Errorf("packets again after %v, want %v", took, f.waits+limit)
		}
		if f.reason != "" {
			m.ended(f.reason, f.stack...)
		} else if m.mu.Lock(); true {
			if len(m.ends) != ends || len(m.ready) != 0 {
				t.Errorf("%d machines were started again", len(m.ends)-ends)
			}
			m.mu.Unlock()
		}
		if f.said != "" && !m.said(f.said) {
			t.Errorf("the console does not say %q", f.said)
		}
	})
}

// beats waits until the stream has a sign of life, without which the watchdog does not begin.
func (m *monitored) beats() {
	m.t.Helper()
	for began, n := time.Now(), m.heard.Load(); m.heard.Load() == n; time.Sleep(5 * time.Millisecond) {
		if time.Since(began) > limit {
			m.t.Fatal("there is no sign of life")
		}
	}
}

// packetLoop is whose function a packet loop is, at the end of the stack: of several any may have
// been the first that hangs, for which Go's collector waits then, with all others standing still.
func packetLoop() string {
	if processors() > 1 {
		return "main."
	}
	return "main.main+"
}

// code has the packet loop run other code.
func code(b ...byte) func(m *monitored) {
	return func(m *monitored) {
		m.poke(m.function("router.(*Engine).Poll"), b)
		m.get(brief(m.t), m.Alice, "/") //nolint:errcheck // wakes the loop
	}
}

// hang is code after the watchdog has begun.
func hang(m *monitored) { m.beats(); code(jumpToItself...)(m) }

// signalled sends QEMU a signal.
func signalled(s syscall.Signal) func(m *monitored) { return func(m *monitored) { m.signal(s) } }

// commanded gives QEMU's monitor a command.
func commanded(name string) func(m *monitored) { return func(m *monitored) { m.command(name, "") } }

// awaitEnds waits until n more machines have ended than had.
func (m *monitored) awaitEnds(n int) {
	m.t.Helper()
	for until := time.Now().Add(limit); ; time.Sleep(5 * time.Millisecond) {
		m.mu.Lock()
		have := len(m.ends)
		m.mu.Unlock()
		if have >= n {
			return
		}
		if time.Now().After(until) {
			m.t.Fatalf("%d machines have ended, want %d", have, n)
		}
	}
}

// busy keeps all processors busy with n processes, while packets pass.
func (m *monitored) busy(n int, during time.Duration) {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.t.Context(), during)
	defer cancel()
	var all sync.WaitGroup
	for range n {
		all.Go(func() { exec.CommandContext(ctx, "sh", "-c", "while :; do :; done").Run() }) //nolint:errcheck // it is killed
	}
	for ctx.Err() == nil {
		m.get(ctx, m.Alice, "/bytes/100000") //nolint:errcheck // it may take too long
	}
	all.Wait()
}

// withoutImage kills the machine while its image is not what it was, until a start has failed.
func withoutImage(change func(m *monitored)) func(m *monitored) {
	return func(m *monitored) {
		good, err := os.ReadFile(m.image)
		if err != nil {
			m.t.Fatal(err)
		}
		change(m)
		m.mu.Lock()
		n := len(m.ends)
		m.mu.Unlock()
		m.signal(syscall.SIGKILL)
		m.awaitEnds(n + 2)
		if err := os.WriteFile(m.image, good, 0o644); err != nil {
			m.t.Fatal(err)
		}
	}
}

// Machine code for the packet loop.
var (
	nilDereference = []byte{0x48, 0x8b, 0x04, 0x25, 0, 0, 0, 0} // mov rax, [0]
	callItself     = []byte{0xe8, 0xfb, 0xff, 0xff, 0xff}
	takeMemory     = []byte{ // mmap pages and touch them, for ever
		0xb8, 9, 0, 0, 0, 0x31, 0xff, 0xbe, 0, 0x10, 0, 0, 0xba, 3, 0, 0, 0, 0x41, 0xba, 0x22, 0, 0, 0,
		0x49, 0xc7, 0xc0, 0xff, 0xff, 0xff, 0xff, 0x45, 0x31, 0xc9, 0x0f, 0x05, 0x88, 0x00, 0xeb, 0xd9}
	takeThreads = []byte{ // clone until that fails, then UD2
		0xb8, 56, 0, 0, 0, 0xbf, 0x00, 0x0f, 0x05, 0x00, 0x48, 0x8d, 0xb4, 0x24, 0x00, 0xf0, 0xff, 0xff,
		0x45, 0x31, 0xc0, 0x0f, 0x05, 0x85, 0xc0, 0x79, 0xe5, 0x0f, 0x0b}
	interruptsOff = []byte{0xfa, 0xeb, 0xfe} // cli; a jump to itself
)

// outOfMemorySaid is what the console says when takeMemory ran. With several processors Go's collector
// may have looked for the code's stack before all memory was taken, and found that it is not Go's.
func outOfMemorySaid() string {
	if processors() > 1 {
		return ""
	}
	return "out of memory"
}

// restarting are faults after which another machine is started.
func restarting() []fault {
	const watchdog = faultWatchdog
	return []fault{
		{name: "SIGKILL to QEMU", do: signalled(syscall.SIGKILL), reason: vmm.ReasonSignal},
		{name: "SIGTERM to QEMU", do: signalled(syscall.SIGTERM), reason: vmm.ReasonSignal},
		{name: "SIGINT to QEMU", do: signalled(syscall.SIGINT), reason: vmm.ReasonSignal},
		{name: "SIGHUP to QEMU", do: signalled(syscall.SIGHUP), reason: vmm.ReasonSignal},
		{name: "SIGQUIT to QEMU", do: signalled(syscall.SIGQUIT), reason: vmm.ReasonSignal},
		{name: "SIGSEGV to QEMU", do: signalled(syscall.SIGSEGV), reason: vmm.ReasonSignal},
		{name: "SIGABRT to QEMU", do: signalled(syscall.SIGABRT), reason: vmm.ReasonSignal},
		{name: "QMP quit", do: commanded("quit"), reason: vmm.ReasonQuit},
		{name: "QMP system_reset", do: commanded("system_reset"), reason: vmm.ReasonReset},
		{name: "QMP inject-nmi", do: commanded("inject-nmi"), reason: vmm.ReasonCrash, said: "interrupted by an NMI", stack: []string{"waits for a futex"}},
		{name: "a triple fault", do: func(m *monitored) { m.poke(abi.DescPage+abi.IDTOff, make([]byte, 16*abi.Vectors)) }, reason: vmm.ReasonReset},
		{name: "a Go panic", do: func(m *monitored) {
			b := binary.LittleEndian.AppendUint32([]byte{0xb8}, uint32(m.function("runtime.panicdivide"))) // mov eax, …
			code(append(b, 0xff, 0xd0)...)(m)                                                              // call rax
		}, reason: vmm.ReasonCrash, said: "panic: runtime error: integer divide by zero"},
		{name: "a nil dereference", do: code(nilDereference...), reason: vmm.ReasonCrash, said: "nil pointer dereference"},
		{name: "a stack that overflows", do: code(callItself...), reason: vmm.ReasonCrash},
		{name: "out of memory in the guest", do: code(takeMemory...), reason: vmm.ReasonCrash, said: outOfMemorySaid()},
		{name: "out of threads", do: code(takeThreads...), reason: vmm.ReasonCrash},
		{name: "the program's variables are overwritten", do: (*monitored).destroyData, reason: vmm.ReasonCrash},
		{name: "the packet loop hangs", do: hang, reason: vmm.ReasonHang, waits: watchdog, stack: []string{"router.(*Engine).Poll+0x0 ", packetLoop()}},
		{name: "a hang with interrupts off", do: func(m *monitored) { m.beats(); m.poke(m.kernelFunction("main.interrupt"), interruptsOff) },
			reason: vmm.ReasonHang, waits: watchdog, stack: []string{"kernel main.interrupt+0x1"}},
		{name: "a hang that answers no NMI", do: func(m *monitored) {
			m.poke(m.kernelFunction("main.vector2"), jumpToItself)
			hang(m)
		}, reason: vmm.ReasonHang, waits: watchdog},
		{name: "out of memory on the host", do: outOfMemory, reason: vmm.ReasonSignal},
		{name: "no memory for QEMU at a restart", do: func(m *monitored) {
			if err := os.WriteFile(m.unable, nil, 0o644); err != nil {
				m.t.Fatal(err)
			}
			m.signal(syscall.SIGKILL)
		}, reason: vmm.ReasonHypervisor},
		{name: "the image is missing at a restart", do: withoutImage(func(m *monitored) { os.Remove(m.image) }), reason: vmm.ReasonHypervisor},
		{name: "the image is truncated at a restart", do: withoutImage(func(m *monitored) {
			if err := os.Truncate(m.image, 4096); err != nil {
				m.t.Fatal(err)
			}
		}), reason: vmm.ReasonHypervisor},
	}
}

// enduring are faults that the machine lives through.
func enduring() []fault {
	const watchdog = faultWatchdog
	during := func(begin, end func(m *monitored)) func(m *monitored) {
		return func(m *monitored) { begin(m); time.Sleep(3 * watchdog / 2); end(m) }
	}
	link := func(id string) func(m *monitored) {
		return func(m *monitored) {
			m.command("set_link", `{"name":"`+id+`","up":false}`)
			time.Sleep(time.Second)
			m.command("set_link", `{"name":"`+id+`","up":true}`)
		}
	}
	resets := func(r vmm.Role) func(m *monitored) {
		return func(m *monitored) {
			m.poke(m.slot(r)+0x70, make([]byte, 4)) // its status register
			m.awaitLine("the " + string(r) + " interface was reset and works again")
		}
	}
	asks := func(r vmm.Role) func(m *monitored) {
		return func(m *monitored) {
			line := "the " + string(r) + " interface has stopped: the device asks for a reset"
			for until := time.Now().Add(limit); !m.said(line) && time.Now().Before(until); {
				m.breakQueue(r)                 // again: the driver may have written the index meanwhile
				m.get(brief(m.t), m.Alice, "/") //nolint:errcheck // the device notices at the next frame
			}
			m.awaitLine(line)
		}
	}
	return []fault{
		{name: "none", do: func(*monitored) { time.Sleep(3 * watchdog / 2) }, waits: 3 * watchdog / 2},
		{name: "SIGSTOP and SIGCONT to QEMU", do: during(signalled(syscall.SIGSTOP), signalled(syscall.SIGCONT)), waits: 3 * watchdog / 2},
		{name: "QMP stop and cont", do: during(commanded("stop"), commanded("cont")), waits: 3 * watchdog / 2},
		{name: "the LAN's link goes down and up", do: link("n0"), waits: time.Second},
		{name: "the WAN's link goes down and up", do: link("n1"), waits: time.Second},
		{name: "the LAN's device resets itself", do: resets(vmm.LAN), said: "the lan interface has stopped: the device has reset itself"},
		{name: "the WAN's device resets itself", do: resets(vmm.WAN), said: "the wan interface has stopped: the device has reset itself"},
		{name: "the LAN's device asks for a reset", do: asks(vmm.LAN)},
		{name: "the WAN's device asks for a reset", do: asks(vmm.WAN)},
		{name: "the stream's device resets itself", do: func(m *monitored) {
			m.poke(m.vsockSlot()+0x70, make([]byte, 4))
			m.awaitLine("the vsock device was reset and works again")
			m.beats()
		}, said: "the vsock device has stopped: the device has reset itself"},
		{name: "the receiver of the stream closes the connection", do: func(m *monitored) { m.beats(); (*m.hangUp.Load()).Close() }},
		{name: "the receiver of the stream does not read", do: during(func(m *monitored) { m.deaf.Store(true) }, func(m *monitored) { m.deaf.Store(false) }),
			waits: 3 * watchdog / 2},
	}
}

// starving is a fault that the machine lives through, and that every other test would suffer.
func starving() fault {
	return fault{name: "all processors of the host are busy", do: func(m *monitored) { m.busy(8*runtime.NumCPU(), 3*faultWatchdog) },
		waits: 3 * faultWatchdog}
}

// TestFaultBusyHost: likewise while the host has no time for the firewall.
func TestFaultBusyHost(t *testing.T) {
	m := newMonitored(t, vmm.DefaultWatchdog, nil)
	m.beats()
	m.suffer(t, starving())
}

// TestFaults: after each fault packets pass again, by themselves, within the time that the table of
// docs/architecture/07 says. Machines suffer side by side.
func TestFaults(t *testing.T) {
	t.Parallel()
	all := restarting()
	t.Run("restart", func(t *testing.T) {
		t.Parallel()
		m := newMonitored(t, vmm.DefaultWatchdog, nil)
		for _, f := range all[:len(all)/2] {
			m.suffer(t, f)
		}
	})
	t.Run("further restarts", func(t *testing.T) {
		t.Parallel()
		m := newMonitored(t, vmm.DefaultWatchdog, nil)
		for _, f := range all[len(all)/2:] {
			m.suffer(t, f)
		}
		// The last one: the launcher does not start a firewall again that refuses to start.
		t.Run("the policy is corrupted at a restart", func(t *testing.T) {
			b, err := os.ReadFile(m.image)
			if err != nil {
				t.Fatal(err)
			}
			b[bytes.LastIndex(b, []byte(ruleset.Magic))+ruleset.HeaderSize+8] ^= 1
			if err := os.WriteFile(m.image, b, 0o644); err != nil {
				t.Fatal(err)
			}
			m.signal(syscall.SIGKILL)
			select {
			case err := <-m.lab.ended:
				if err == nil || !strings.Contains(err.Error(), "refuses to start") {
					t.Error(err)
				}
				m.lab.ended <- nil
			case <-time.After(limit):
				t.Error("the launcher goes on")
			}
		})
	})
	t.Run("none", func(t *testing.T) {
		t.Parallel()
		m := newMonitored(t, vmm.DefaultWatchdog, nil)
		m.beats()
		for _, f := range enduring() {
			m.suffer(t, f)
		}
	})
	t.Run("receiver", func(t *testing.T) { // without one it tries to connect at least every 7 seconds
		t.Parallel()
		m := newMonitored(t, vmm.MinWatchdog, nil)
		m.beats()
		m.suffer(t, fault{name: "the receiver of the stream ends", do: func(m *monitored) {
			m.endReceiver()
			time.Sleep(3 * vmm.MinWatchdog / 2)
		}, waits: 3 * vmm.MinWatchdog / 2})
	})
	t.Run("watchdog", func(t *testing.T) { // the machine's, without a stream
		t.Parallel()
		m := newMonitored(t, 0, func(c *vmm.Config) { c.Machine, c.Vsock = vmm.Q35, vmm.Vsock{} })
		stack := []string{"router.(*Engine).Poll+0x0 ", packetLoop()}
		m.suffer(t, fault{name: "the packet loop hangs on q35", do: code(jumpToItself...), reason: vmm.ReasonWatchdog, waits: 6 * time.Second, stack: stack})
	})
}

// TestFaultNames: a row is named once.
func TestFaultNames(t *testing.T) {
	var names []string
	for _, f := range append(append(restarting(), starving()), enduring()...) {
		if slices.Contains(names, f.name) || f.do == nil {
			t.Errorf("%q comes twice, or does nothing", f.name)
		}
		names = append(names, f.name)
	}
	page, err := os.ReadFile("../../docs/architecture/07-operations.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		if !bytes.Contains(page, []byte("| "+n+" |")) {
			t.Errorf("docs/architecture/07-operations.md has no row %q", n)
		}
	}
}
