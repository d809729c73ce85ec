package vmm

import (
	"context"
	"errors"
	"io"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// TestWatchdog: what is silence and what is not.
func TestWatchdog(t *testing.T) {
	p, paused, said := &pulse{}, false, 0
	w := newWatchdog(20*time.Second, p)
	share := 0.0 // of the time in which the hypervisor waits for a processor
	w.paused, w.say = func() bool { return paused }, func(string, ...any) { said++ }
	w.waited = func() time.Duration { return time.Duration(share * float64(w.every)) }
	run := func(what string, n int, sign func(), want int) {
		t.Helper()
		at := 0
		for i := 1; i <= n && at == 0; i++ {
			sign()
			if w.tick() {
				at = i
			}
		}
		if at != want {
			t.Errorf("%s: it hangs at tick %d, want %d", what, at, want)
		}
		w.silent, w.ran = 0, 0
	}
	none := func() {}
	const long, short = 80, 20 // ticks: of 20 seconds, and of the 5 with a receiver
	run("before the first sign", 100, none, 0)
	run("signs", 100, func() { p.Packets.Add(1) }, 0)
	run("silence without a receiver", 100, none, long)
	p.Open.Add(1)
	run("silence", 100, none, short)
	p.Writing.Add(1)
	run("a receiver that does not read", 100, none, 0)
	p.Writing.Add(-1)
	run("it reads again", 100, none, short)
	paused = true
	run("paused", 100, none, 0)
	if said != 1 {
		t.Errorf("the pause was said %d times, want once", said)
	}
	paused = false
	run("it goes on and is silent", 100, none, short)
	// A machine that hardly gets a processor is given the time that it lacks, but no more than
	// without a receiver.
	share = 1
	run("it gets no processor", 100, none, long)
	share = 0.5
	run("it gets half of one", 100, none, short)
	share = 0.875
	run("it gets an eighth of one", 100, none, 6+8*6) // the first 1.5 seconds are not asked about
	share = 7                                         // several threads at once, or a tick that came late
	run("it gets none at all", 100, none, long)
	share = 0
	run("it gets one", 100, none, short)
	p.Open.Add(-1)
	run("the receiver has ended", 100, none, long)
	p.Open.Add(1)
	i := 0
	run("a sign at every second tick", 100, func() {
		if i++; i%2 == 0 {
			p.Packets.Add(1)
		}
	}, 0)
}

// TestConnectedLimit: what the watchdog's time is while a receiver is connected.
func TestConnectedLimit(t *testing.T) {
	for limit, want := range map[time.Duration]time.Duration{DefaultWatchdog: 5 * time.Second, MinWatchdog: 5 * time.Second, 2 * time.Second: 2 * time.Second,
		time.Minute: 15 * time.Second} {
		if got := connectedLimit(limit); got != want {
			t.Errorf("%v: %v", limit, got)
		}
	}
}

// TestHangIsNoticed: a machine that was ready, had a stream and is silent is ended and started
// again, whatever the hypervisor; one that goes on beating is not.
func TestHangIsNoticed(t *testing.T) {
	for does, hangs := range map[string]bool{"hangs": true, "beats": false} {
		t.Run(does, func(t *testing.T) {
			standIn(t, does)
			for name, h := range hypervisors(t) {
				t.Run(name, func(t *testing.T) {
					t.Parallel()
					var w watched
					c := w.config(t)
					c.Vsock.Path = filepath.Join(t.TempDir(), "v")
					l, err := net.Listen("unix", c.Vsock.Path+"_9000")
					if err != nil {
						t.Fatal(err)
					}
					defer l.Close()
					go func() {
						for {
							r, err := l.Accept()
							if err != nil {
								return
							}
							go io.Copy(io.Discard, r) //nolint:errcheck // until its end
						}
					}()
					ctx, cancel := context.WithCancelCause(t.Context())
					over := errors.New("over")
					defer time.AfterFunc(5*time.Second, func() { cancel(over) }).Stop()
					var last atomic.Int64 // when Alive was called
					err = Run(ctx, h, c, RunOptions{Restart: Never, Watchdog: 2 * time.Second, OnLine: w.line, Say: t.Logf,
						Alive: func() { last.Store(time.Now().UnixNano()) }})
					quiet := time.Since(time.Unix(0, last.Load()))
					if hangs != (quiet > 1500*time.Millisecond) {
						t.Errorf("at the end the machine had not been called alive for %v", quiet)
					}
					var hung hungError
					if errors.As(err, &hung) != hangs || !hangs && !errors.Is(err, over) {
						t.Errorf("%v; console:\n%s", err, w.console())
					}
				})
			}
		})
	}
}

// TestAlive: Alive is called during a pause, but not beyond its length by a supervision that
// does not go on; and as long as a machine runs whose stream nobody sees.
func TestAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, boots := 0, 0
		count := func() { n++ }
		boot := func(context.Context) Outcome {
			if boots++; boots == 1 {
				return Outcome{Ready: true, Crash: "x"}
			}
			return Outcome{Ready: true, Stopped: true}
		}
		slow := func(ctx context.Context, d time.Duration) error { return Pause(ctx, d+time.Hour) }
		if err := Supervise(t.Context(), boot, slow, RunOptions{Restart: OnCrash, Alive: count}); err != nil {
			t.Error(err)
		}
		if n != 1 { // the pause was to be one of a second
			t.Errorf("called %d times", n)
		}
		n = 0
		stop := alive(count, time.Hour)
		time.Sleep(10*aliveEvery + time.Second)
		stop()
		stop()
		time.Sleep(time.Hour)
		if n != 11 {
			t.Errorf("called %d times", n)
		}
		n = 0
		m := &Machine{done: make(chan struct{})}
		hung := m.watch(nil, RunOptions{Watchdog: time.Minute, Alive: count})
		time.Sleep(10*aliveEvery + time.Second)
		close(m.done)
		time.Sleep(time.Hour)
		select {
		case <-hung:
			t.Error("it hangs")
		default:
		}
		if n != 10 {
			t.Errorf("called %d times", n)
		}
	})
}

// TestPauseIsKnown: a hypervisor that was stopped by a signal, and a machine that Firecracker
// says is paused.
func TestPauseIsKnown(t *testing.T) {
	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { cmd.Process.Kill(); cmd.Wait() }() //nolint:errcheck // it was killed
	m := &Machine{cmd: cmd}
	if m.isPaused() {
		t.Error("a process that runs is paused")
	}
	cmd.Process.Signal(syscall.SIGSTOP) //nolint:errcheck // noticed below
	for until := time.Now().Add(5 * time.Second); !m.isPaused(); time.Sleep(time.Millisecond) {
		if time.Now().After(until) {
			t.Fatal("a stopped process is not paused")
		}
	}
	for state, want := range map[string]bool{"Paused": true, "Running": false, "Not started": false} {
		m := &Machine{cmd: exec.Command("true")}
		if err := m.cmd.Run(); err != nil {
			t.Fatal(err)
		}
		socket := serveState(t, state)
		m.paused = func() bool { return apiPaused(socket) }
		if m.isPaused() != want {
			t.Errorf("%s: paused %v", state, !want)
		}
	}
	if apiPaused(filepath.Join(t.TempDir(), "none")) {
		t.Error("nobody answers, and it is paused")
	}
}

// TestWatchdogOff: where the launcher sees nothing of the stream it says so.
func TestWatchdogOff(t *testing.T) {
	for _, c := range []struct {
		vsock Vsock
		limit time.Duration
		want  string
	}{
		{Vsock{Path: "/run/v"}, time.Minute, ""},
		{Vsock{CID: 5}, time.Minute, "the kernel carries"},
		{Vsock{}, time.Minute, "no vsock device"},
		{Vsock{CID: 5}, 0, ""},
	} {
		if why := watchdogOff(&Config{Vsock: c.vsock}, c.limit); (why == "") != (c.want == "") || !strings.Contains(why, c.want) {
			t.Errorf("%v, %v: %q, want %q", c.vsock, c.limit, why, c.want)
		}
	}
	for d, ok := range map[time.Duration]bool{0: true, MinWatchdog: true, time.Hour: true, time.Second: false, -1: false} {
		if _, err := ParseWatchdog(d); (err == nil) != ok {
			t.Errorf("%v: %v", d, err)
		}
	}
}
