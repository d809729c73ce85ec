package printable

import (
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestString(t *testing.T) {
	for in, want := range map[string]string{
		"":                          "",
		"certificate for dns.quad9": "certificate for dns.quad9",
		"Zürich 東京 ✓ ~":             "Zürich 東京 ✓ ~",
		"a\nthurward: crash: b":     `a\x0athurward: crash: b`,
		"\r\t\x00\x7f":              `\x0d\x09\x00\x7f`,
		"\x1b]0;title\a":            `\x1b]0;title\x07`,
		"\u009b31m":                 `\u009b31m`, // CSI of the C1 set
		"\x9b31m":                   `\x9b31m`,   // the same for a terminal without UTF-8
		"\u202eevil\u2066":          `\u202eevil\u2066`,
		"\u2028\u2029\u0085":        `\u2028\u2029\u0085`,
		"a\u200bb\u00a0c\ufeff":     `a\u200bb\u00a0c\ufeff`,
		"\U000e0041":                `\U000e0041`,
		"\xff\xc3(":                 `\xff\xc3(`,
		`C:\x0a`:                    `C:\x0a`,
	} {
		got := String(in, 1000)
		if got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
		if again := String(got, 1000); again != got {
			t.Errorf("%q became %q the second time", got, again)
		}
	}
}

func TestLimit(t *testing.T) {
	for _, c := range []struct {
		in    string
		limit int
		want  string
	}{
		{"abcdef", 6, "abcdef"}, {"abcdefg", 6, "abc..."}, {"ab\x1b", 6, `ab\x1b`}, {"abc\x1b", 6, `abc...`}, {"äöüß", 7, "äö..."}, {"abc", 2, ".."}, {"abc", 0, ""},
	} {
		if got := String(c.in, c.limit); got != c.want {
			t.Errorf("%q in %d bytes: %q, want %q", c.in, c.limit, got, c.want)
		}
	}
}

func FuzzString(f *testing.F) {
	f.Add("a\x1b\u202e\xff", 20)
	f.Fuzz(func(t *testing.T, s string, limit int) {
		limit &= 1023
		got := String(s, limit)
		if len(got) > limit || !utf8.ValidString(got) || strings.ContainsFunc(got, func(r rune) bool { return !strconv.IsPrint(r) }) {
			t.Errorf("%q in %d bytes: %q", s, limit, got)
		}
	})
}
