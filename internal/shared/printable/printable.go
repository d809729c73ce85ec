// Package printable makes text that comes from outside safe to show: on a
// console, whose lines programs read, and on a terminal, which obeys what is
// written to it.
package printable

import (
	"strconv"
	"unicode/utf8"
)

// Append appends s to b with everything escaped that is not a letter, a mark, a
// number, punctuation, a symbol or the ASCII space: control characters of both
// sets (C0 and C1), line and paragraph separators, what is invisible or changes
// the direction of writing, and bytes that are no UTF-8. An ASCII character or a
// byte becomes \x1b, a rune of up to 16 bits \u202e, a longer one \U000e0041, as
// in Go. The backslash itself stays, so that text which was escaped before does
// not change.
//
// At most limit bytes are appended; where s does not fit, what fits of it ends
// with "...".
func Append(b []byte, s string, limit int) []byte {
	const more, hex = "...", "0123456789abcdef"
	start, cut := len(b), len(b) // cut: where "..." would still fit
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		digits := 0
		switch {
		case r == utf8.RuneError && n == 1, r < utf8.RuneSelf && !strconv.IsPrint(r):
			r, digits = rune(s[i]), 2
			b = append(b, `\x`...)
		case strconv.IsPrint(r):
			b = append(b, s[i:i+n]...)
		case r <= 0xffff:
			digits = 4
			b = append(b, `\u`...)
		default:
			digits = 8
			b = append(b, `\U`...)
		}
		for ; digits > 0; digits-- {
			b = append(b, hex[r>>(4*(digits-1))&15])
		}
		if len(b)-start > limit {
			b = append(b[:cut], more...)
			return b[:min(len(b), start+limit)]
		}
		if len(b)-start+len(more) <= limit {
			cut = len(b)
		}
		i += n
	}
	return b
}

// String is Append to nothing.
func String(s string, limit int) string { return string(Append(nil, s, limit)) }
