package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/gdamore/tcell/v3"
	"golang.org/x/sys/unix"
)

// pty returns both ends of a terminal of 100 columns and 30 lines.
func pty(t *testing.T) (keyboard, terminal *os.File) {
	t.Helper()
	keyboard, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { keyboard.Close() })
	fd := int(keyboard.Fd())
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	err = errors.Join(err, unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0),
		unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 30, Col: 100}))
	if err != nil {
		t.Skip(err)
	}
	terminal, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { terminal.Close() })
	return keyboard, terminal
}

// TestTopOnTerminal: the view uses the terminal, handles keys, and restores the
// terminal.
func TestTopOnTerminal(t *testing.T) {
	tail, g, send, _ := receiver(t)
	send(g.Event(time.Now()), g.Event(time.Now()))
	keyboard, terminal := pty(t)
	before, err := unix.IoctlGetTermios(int(terminal.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	shown := make(chan string)
	go func() {
		defer close(shown)
		b := make([]byte, 1<<16)
		for {
			n, err := keyboard.Read(b)
			if err != nil {
				return
			}
			shown <- string(b[:n])
		}
	}()
	ended := make(chan error, 1)
	t.Setenv("TERM", "xterm-256color")
	tty, err := tcell.NewDevTtyFromDev(terminal.Name())
	if err != nil {
		t.Fatal(err)
	}
	screen, err := tcell.NewTerminfoScreenFromTty(tty)
	if err != nil {
		t.Fatal(err)
	}
	go func() { ended <- topLive(t.Context(), tail, screen) }()
	all, late := "", time.After(20*time.Second)
	expect := func(text string) {
		t.Helper()
		for !strings.Contains(all, text) {
			select {
			case s := <-shown:
				all += s
			case <-late:
				t.Fatalf("no %q in %q", text, all)
			}
		}
	}
	expect("\x1b[?1049h")
	expect("203.0.113.10")
	expect("allow-web")
	io.WriteString(keyboard, "p") //nolint:errcheck // the next line finds out
	expect("PAUSED")
	io.WriteString(keyboard, "q") //nolint:errcheck // the next line finds out
	expect("\x1b[?1049l")
	if err := <-ended; !errors.Is(err, errInterrupted) {
		t.Errorf("it ended with %v", err)
	}
	after, err := unix.IoctlGetTermios(int(terminal.Fd()), unix.TCGETS)
	if err != nil || *after != *before {
		t.Errorf("the terminal is not as it was: %+v, %v; was %+v", after, err, before)
	}
}
