package printable

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"
)

func TestSprintf(t *testing.T) {
	evil := "a\nb\x1b[31m\u202e\xff"
	for _, c := range []struct {
		format string
		args   []any
		want   string
	}{
		{"%s|%v", []any{evil, errors.New(evil)}, `a\x0ab\x1b[31m\u202e\xff|a\x0ab\x1b[31m\u202e\xff`},
		{"%q", []any{evil}, `"a\nb\x1b[31m\u202e\xff"`},
		{"\x1b[31m%s\x1b[0m\n", []any{"red"}, "\x1b[31mred\x1b[0m\n"},
		{"%v", []any{[]string{"x", "y\n"}}, `[x y\x0a]`},
		{"%v %d %5.1f %t %x", []any{netip.MustParseAddr("10.0.0.1"), 7, 1.25, true, []byte{1, 2}}, "10.0.0.1 7   1.2 true 0102"},
		{"%-6s|%6s", []any{"ab", "cd"}, "ab    |    cd"},
		{"%*d", []any{5, 1}, "    1"},
		{"%s", []any{Line("a\n\x1b[2mb")}, "a\n\x1b[2mb"},
		{"%v", []any{fmt.Errorf("x: %w", errors.New("y\rz"))}, `x: y\x0dz`},
	} {
		if got := Sprintf(c.format, c.args...); got != c.want {
			t.Errorf("%q: %q, want %q", c.format, got, c.want)
		}
	}
}
