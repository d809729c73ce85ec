// Package terminal is the last thing that text passes on its way to standard
// output and standard error.
package terminal

import (
	"io"
	"os"
	"strconv"
	"sync"
	"unicode/utf8"

	"golang.org/x/term"
)

// A Writer passes on text that cannot act on a terminal: printable characters,
// line breaks and tabs. Everything else is written as \u001b, the escape of Go
// and JSON, so that JSON stays the same JSON: control characters of both sets
// (C0 and C1), what is invisible or changes the direction of writing, and bytes
// that are no UTF-8. A command that writes through it cannot forget to escape.
//
// It is the second line: what comes from outside is escaped where it becomes part
// of a line (package printable), since a line break in a name would pass here.
type Writer struct {
	file   *os.File
	colour bool

	mu   sync.Mutex
	held []byte // the beginning of a character or a colour whose rest is to come
	buf  []byte
}

// New returns a Writer to f. Where f is a terminal, and the environment does not
// have NO_COLOR (no-color.org), sequences that choose colours pass.
func New(f *os.File) *Writer {
	return &Writer{file: f, colour: term.IsTerminal(int(f.Fd())) && os.Getenv("NO_COLOR") == ""}
}

// Colour reports whether what is written may have colours.
func (w *Writer) Colour() bool { return w.colour }

// Colour reports whether what is written to w may have colours: w is a Writer,
// a file, or what has a method for it, that leads to a terminal.
func Colour(w io.Writer) bool {
	switch w := w.(type) {
	case interface{ Colour() bool }:
		return w.Colour()
	case *os.File:
		return term.IsTerminal(int(w.Fd())) && os.Getenv("NO_COLOR") == ""
	}
	return false
}

// File returns the file that w leads to, if it is one: for what needs its
// descriptor. A full-screen view writes to it directly, and is responsible for
// what it writes.
func File(w io.Writer) (*os.File, bool) {
	switch w := w.(type) {
	case *Writer:
		return w.file, true
	case *os.File:
		return w, true
	}
	return nil, false
}

// Write writes p. The beginning of a character at its end waits for the next
// Write.
func (w *Writer) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	in := p
	if len(w.held) > 0 {
		in = append(w.held, p...)
	}
	var n int
	w.buf, n = filter(w.buf[:0], in, w.colour)
	w.held = append([]byte(nil), in[n:]...)
	if _, err := w.file.Write(w.buf); err != nil {
		return 0, err
	}
	return len(p), nil
}

// filter appends what may pass of p to dst and returns how much of p it has
// looked at; the rest is the beginning of something.
func filter(dst, p []byte, colour bool) ([]byte, int) {
	for i := 0; i < len(p); {
		c := p[i]
		if c >= 0x20 && c < 0x7f || c == '\n' || c == '\t' {
			dst = append(dst, c)
			i++
			continue
		}
		if c == 0x1b && colour {
			n, more := graphic(p[i:])
			if more {
				return dst, i
			}
			if n > 0 {
				dst = append(dst, p[i:i+n]...)
				i += n
				continue
			}
		}
		if c >= utf8.RuneSelf && !utf8.FullRune(p[i:]) {
			return dst, i
		}
		r, n := utf8.DecodeRune(p[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			dst = escape(dst, rune(c))
		case strconv.IsPrint(r):
			dst = append(dst, p[i:i+n]...)
		default:
			dst = escape(dst, r)
		}
		i += n
	}
	return dst, len(p)
}

// escape appends \u001b; of what does not fit 16 bits, a surrogate pair, as in
// JSON.
func escape(dst []byte, r rune) []byte {
	const hex = "0123456789abcdef"
	if r > 0xffff {
		r -= 0x10000
		return escape(escape(dst, 0xd800+r>>10), 0xdc00+r&0x3ff)
	}
	return append(dst, '\\', 'u', hex[r>>12&15], hex[r>>8&15], hex[r>>4&15], hex[r&15])
}

// maxGraphic is the length of the longest sequence that chooses a colour.
const maxGraphic = 16

// graphic returns the length of the SGR sequence (ECMA-48 section 8.3.117) that p
// begins with, 0 if it begins with none; more: its end is yet to come.
func graphic(p []byte) (n int, more bool) {
	for i, c := range p {
		switch {
		case i >= maxGraphic:
			return 0, false
		case i == 0: // ESC
		case i == 1 && c == '[', i > 1 && (c >= '0' && c <= '9' || c == ';'):
		case i > 1 && c == 'm':
			return i + 1, false
		default:
			return 0, false
		}
	}
	return 0, len(p) < maxGraphic
}
