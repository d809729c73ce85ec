package printable

import (
	"fmt"
	"io"
)

// maxArgument is how much of one argument Fprintf writes, in bytes.
const maxArgument = 8192

// A Line is text that has been made to be printed as it is: it may hold colours
// and line breaks. Whoever makes one vouches for what it was made of.
type Line string

// Fprintf is fmt.Fprintf for text that people read: every argument that is not a
// number, a truth value or a Line is escaped as Append does, whatever its type.
// So a name with a line break in it stays on its line, and colours come from the
// format alone.
func Fprintf(w io.Writer, format string, a ...any) (int, error) {
	return fmt.Fprintf(w, format, escaped(a)...)
}

// Sprintf is Fprintf to a string.
func Sprintf(format string, a ...any) string { return fmt.Sprintf(format, escaped(a)...) }

func escaped(a []any) []any {
	out := make([]any, len(a))
	for i, v := range a {
		switch v.(type) {
		case Line, bool, int, int8, int16, int32, int64, uint, uint8, uint16, uint32, uint64, uintptr, float32, float64:
			out[i] = v
		default:
			out[i] = argument{v}
		}
	}
	return out
}

// An argument is formatted by its verb, and then escaped.
type argument struct{ v any }

func (a argument) Format(s fmt.State, verb rune) {
	text := fmt.Sprintf(fmt.FormatString(s, verb), a.v)
	io.WriteString(s, String(text, maxArgument)) //nolint:errcheck // a fmt.State takes everything
}
