// Package terminal has the writer of standard output and standard error, which
// escapes what could control a terminal.
package terminal

import (
	"io"
	"os"
	"strconv"
	"sync"
	"unicode/utf8"

	"golang.org/x/term"
)

// A Writer writes text that cannot control a terminal. Printable characters, line
// breaks and tabs are written as they are; all else is escaped as in Go and JSON
// (\u001b), so that JSON keeps its meaning: control characters of both sets (C0 and
// C1), characters that are invisible or change the direction of writing, and bytes
// that are not UTF-8.
//
// It is the second safeguard: text from outside is escaped when it becomes part of a
// line (package printable), since a Writer does not escape a line break in a name.
type Writer struct {
	file   *os.File
	colour bool

	mu   sync.Mutex
	held []byte // the beginning of a character or a colour sequence
	buf  []byte
}

// New returns a Writer to f. If f is a terminal, and the environment does not have
// NO_COLOR (no-color.org), sequences that set colours are not escaped.
func New(f *os.File) *Writer {
	return &Writer{file: f, colour: term.IsTerminal(int(f.Fd())) && os.Getenv("NO_COLOR") == ""}
}

// Colour reports whether text may have colours.
func (w *Writer) Colour() bool { return w.colour }

// Colour reports whether text written to w may have colours: w is a terminal, or has
// a method Colour that says so, as a Writer has.
func Colour(w io.Writer) bool {
	switch w := w.(type) {
	case interface{ Colour() bool }:
		return w.Colour()
	case *os.File:
		return term.IsTerminal(int(w.Fd())) && os.Getenv("NO_COLOR") == ""
	}
	return false
}

// File returns the file of a Writer, or w if it is a file. A full-screen view needs
// its descriptor and writes to it directly; it must escape by itself.
func File(w io.Writer) (*os.File, bool) {
	switch w := w.(type) {
	case *Writer:
		return w.file, true
	case *os.File:
		return w, true
	}
	return nil, false
}

// Write writes p. An incomplete character at its end is kept for the next Write.
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

// filter appends p to dst, escaped, and returns how much of p it has handled; the
// rest is the beginning of a character or sequence.
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

// escape appends \u and four digits, or a surrogate pair as in JSON.
func escape(dst []byte, r rune) []byte {
	const hex = "0123456789abcdef"
	if r > 0xffff {
		r -= 0x10000
		return escape(escape(dst, 0xd800+r>>10), 0xdc00+r&0x3ff)
	}
	return append(dst, '\\', 'u', hex[r>>12&15], hex[r>>8&15], hex[r>>4&15], hex[r&15])
}

// maxGraphic is the length of the longest sequence that sets a colour.
const maxGraphic = 16

// graphic returns the length of the SGR sequence (ECMA-48 section 8.3.117) with which
// p begins, 0 if there is none. more: p may be the beginning of one.
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
