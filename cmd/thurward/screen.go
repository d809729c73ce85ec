package main

import (
	"fmt"
	"os"
	"os/signal"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// escapeTime is how long a lone escape waits for the rest of a key's sequence.
const escapeTime = 50 * time.Millisecond

// A screen is the terminal during a full-screen view. The sequences are those of
// ECMA-48 and xterm.
type screen struct {
	out     *os.File
	keys    chan string    // keys pressed, by name
	resized chan os.Signal // the size of the terminal has changed
	restore func()
}

// openScreen switches the terminal to its alternate screen, without a cursor, and to
// single keys. An input that is not a terminal has no keys.
func openScreen(in, out *os.File, title string) (*screen, error) {
	s := &screen{out: out, keys: make(chan string), resized: make(chan os.Signal, 1), restore: func() {}}
	if term.IsTerminal(int(in.Fd())) {
		before, err := term.MakeRaw(int(in.Fd()))
		if err != nil {
			return nil, fmt.Errorf("the terminal: %w", err)
		}
		s.restore = func() { term.Restore(int(in.Fd()), before) } //nolint:errcheck // nothing else can be done
		go s.read(in)
	}
	signal.Notify(s.resized, unix.SIGWINCH)
	fmt.Fprint(out, "\x1b[?1049h\x1b[?25l\x1b]2;"+title+"\a")
	return s, nil
}

// close restores the terminal.
func (s *screen) close() {
	signal.Stop(s.resized)
	fmt.Fprint(s.out, "\x1b[?25h\x1b[?1049l")
	s.restore()
}

// size returns columns and lines, zero where they are unknown.
func (s *screen) size() (width, height int) {
	width, height, err := term.GetSize(int(s.out.Fd()))
	if err != nil {
		return 0, 0
	}
	return width, height
}

// draw replaces the text on the screen, without clearing it between.
func (s *screen) draw(text string) {
	lines := strings.ReplaceAll(text, "\n", "\x1b[K\r\n")
	s.out.WriteString("\x1b[H" + lines + "\x1b[K\x1b[J") //nolint:errcheck // without a terminal there is a signal
}

// read sends keys until the input ends.
func (s *screen) read(in *os.File) {
	chunks := make(chan []byte)
	go func() {
		defer close(chunks)
		for {
			b := make([]byte, 64)
			n, err := in.Read(b)
			if err != nil {
				return
			}
			chunks <- b[:n]
		}
	}()
	var rest []byte
	for {
		var late <-chan time.Time
		if len(rest) > 0 {
			late = time.After(escapeTime)
		}
		whole := false
		select {
		case b, ok := <-chunks:
			if !ok {
				return
			}
			rest = append(rest, b...)
		case <-late:
			whole = true
		}
		var ks []string
		ks, rest = keysOf(rest, whole)
		for _, k := range ks {
			s.keys <- k
		}
	}
}

// sequences are the keys that terminals send as an escape and further bytes.
var sequences = map[string]string{
	"[A": "up", "[B": "down", "[C": "right", "[D": "left", "[Z": "shift+tab",
	"OA": "up", "OB": "down", "OC": "right", "OD": "left",
}

// keysOf splits input of a terminal into keys, and returns what may be the beginning of
// a longer one. With whole the input is complete.
func keysOf(b []byte, whole bool) (keys []string, rest []byte) {
	for len(b) > 0 {
		switch {
		case b[0] == 0x1b:
			n := sequence(b)
			if n == 0 && !whole {
				return keys, b
			}
			if n == 0 {
				n = len(b)
			}
			if n == 1 {
				keys = append(keys, "esc")
			} else if k := sequences[string(b[1:n])]; k != "" {
				keys = append(keys, k)
			}
			b = b[n:]
			continue
		case b[0] == 3:
			keys = append(keys, "ctrl+c")
		case b[0] == '\t':
			keys = append(keys, "tab")
		case b[0] >= ' ':
			_, n := utf8.DecodeRune(b)
			keys = append(keys, string(b[:n]))
			b = b[n:]
			continue
		}
		b = b[1:]
	}
	return keys, nil
}

// sequence returns the length of the escape sequence with which b begins: 1 for an
// escape that begins none, 0 if it is incomplete.
func sequence(b []byte) int {
	if len(b) < 2 {
		return 0
	}
	switch b[1] {
	case 'O':
		if len(b) < 3 {
			return 0
		}
		return 3
	case '[':
		for i := 2; i < len(b); i++ {
			if b[i] >= 0x40 && b[i] <= 0x7e { // the final byte
				return i + 1
			}
		}
		return 0
	}
	return 1
}
