package hostile

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Attacks by the console, and by how a machine ends.
func init() {
	flood := func(m *monitor, n int, line string) {
		b := []byte(strings.Repeat(line+"\n", 1000))
		for ; n > 0; n -= len(b) {
			os.Stdout.Write(b) //nolint:errcheck // the console
		}
	}
	guest("console-flood", func(m *monitor) error { flood(m, 200<<20, strings.Repeat("x", 80)); return nil }, func(m *monitor) error {
		flood(m, 80_000, strings.Repeat("x", 80)) // a crash report
		return honestStart(m)
	})
	guest("console-events", func(m *monitor) error { flood(m, 100<<20, "thurward: event "+forged); return nil }, nil)
	guest("console-line-without-end", func(m *monitor) error {
		b := bytes.Repeat([]byte("x"), 1<<20)
		for range 100 {
			os.Stdout.Write(b) //nolint:errcheck // the console
		}
		fmt.Println()
		return nil
	}, nil)
	guest("console-bytes", func(m *monitor) error {
		b := make([]byte, 256)
		for i := range b {
			b[i] = byte(i)
		}
		os.Stdout.Write(bytes.Repeat(b, 100)) //nolint:errcheck // the console
		fmt.Println()
		return nil
	}, nil)
	guest("refuses-once-it-is-ready", func(m *monitor) error {
		m.print("thurward: refusing to start: forged")
		return nil
	}, nil)
	guest("ready-again-and-again", func(m *monitor) error {
		flood(m, 10<<20, "thurward: ready version=2 policy=sha256:cd lan=x wan=y rules=1 boot_us=9223372036854775807")
		return nil
	}, nil)
	guest("crashes-again-and-again", func(m *monitor) error { flood(m, 10<<20, "thurward: crash: forged"); return nil }, nil)
	guest("does-not-end-after-a-crash", func(m *monitor) error {
		signal.Ignore(syscall.SIGTERM)
		m.note("")
		m.print("thurward: crash: forged")
		time.Sleep(time.Minute)
		return nil
	}, nil)
	// Something of QEMU's lives on and keeps its output open.
	guest("leaves-a-child", func(m *monitor) error {
		cmd := exec.Command("sleep", "20")
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: 0}
		return cmd.Start()
	}, nil)
	guest("killed", func(m *monitor) error {
		m.note("")
		return syscall.Kill(os.Getpid(), syscall.SIGKILL)
	}, nil)

	roles["output flood"] = func(m *monitor) error {
		flood(m, 20<<20, strings.Repeat("x", 80))
		return honestStart(m)
	}
	add(attack{"output/nobody-reads", func(t *testing.T) { unread(t, true) }, func(t *testing.T) { unread(t, false) }})
	add(attack{"output/sigterm-while-nobody-reads", func(t *testing.T) { unreadEnd(t, true) }, func(t *testing.T) { unreadEnd(t, false) }})
}

// pipe returns both ends of a pipe as files that block.
func pipe(t *testing.T) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); w.Close() })
	return r, w
}

// unread: nobody reads standard output and error, which are full at once. The
// firewall is started again, and the launcher ends on the first SIGTERM.
func unread(t *testing.T, blocked bool) {
	r, w := pipe(t)
	l := launch(t, "output flood", launchOptions{out: w})
	w.Close()
	if !blocked {
		go func() {
			for b := make([]byte, 1<<16); ; {
				if _, err := r.Read(b); err != nil {
					return
				}
			}
		}()
	}
	l.restarted()
}

// unreadEnd: the first SIGTERM ends the launcher while its output is full.
func unreadEnd(t *testing.T, blocked bool) {
	r, w := pipe(t)
	l := launch(t, "output flood", launchOptions{out: w})
	w.Close()
	if !blocked {
		go func() {
			for b := make([]byte, 1<<16); ; {
				if _, err := r.Read(b); err != nil {
					return
				}
			}
		}()
	}
	l.await("the flood", func() bool { _, ok := l.note(1); return ok })
	began := time.Now()
	l.end()
	if d := time.Since(began); d > 6*time.Second {
		t.Errorf("the end took %v", d)
	}
}
