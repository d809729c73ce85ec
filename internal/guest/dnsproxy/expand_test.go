package dnsproxy

import (
	"strings"
	"testing"
)

// TestExpandPointers: a pointer leads to a name that lies before the one with it and ends
// there, and not into the header.
func TestExpandPointers(t *testing.T) {
	header := strings.Repeat("\x00", headerLen)
	for name, c := range map[string]struct {
		m    string // behind the header
		off  int    // of the name, likewise
		want string
	}{
		"none":                         {"\x01a\x00", 0, "\x01a\x00"},
		"back":                         {"\x01a\x00\x01b\xc0\x0c", 3, "\x01b\x01a\x00"},
		"back twice":                   {"\x01a\x00\x01b\xc0\x0c\x01c\xc0\x0f", 7, "\x01c\x01b\x01a\x00"},
		"forward":                      {"\xc0\x0e\x01a\x00", 0, ""},
		"to itself":                    {"\xc0\x0c", 0, ""},
		"behind a label, to itself":    {"\x01a\xc0\x0c", 0, ""},
		"into the header":              {"\x01a\xc0\x0b", 0, ""},
		"into the name with it":        {"\x04ab\x03x\x00y\xc0\x0c", 3, ""}, // a label of the first ends within one of the second
		"to one that ends at it":       {"\x02ab\x01c\xc0\x0c", 3, ""},
		"of one byte":                  {"\x01a\xc0", 0, ""},
		"of the kind that is not used": {"\x01a\x00\x01b\x80\x0c", 3, ""},
	} {
		m := []byte(header + c.m)
		var buf [maxName]byte
		if n := expand(m[:len(m):len(m)], headerLen+c.off, &buf); string(buf[:n]) != c.want {
			t.Errorf("%s: %q, want %q", name, buf[:n], c.want)
		}
	}
}

// TestExpandLongest: a name has 255 bytes at most, however it is put together.
func TestExpandLongest(t *testing.T) {
	label := func(n int) string { return string(rune(n)) + strings.Repeat("a", n) }
	for last, want := range map[int]int{60: 254, 61: 255, 62: 0, 63: 0} {
		m := []byte(strings.Repeat("\x00", headerLen) + label(63) + label(63) + label(63) + label(last) + "\x00")
		var buf [maxName]byte
		if n := expand(m, headerLen, &buf); n != want {
			t.Errorf("a last label of %d: %d bytes, want %d", last, n, want)
		}
	}
}

// TestNamesEndWithTheirRecord: a name that goes on behind its record's data is malformed, also
// where what follows it there is not looked at.
func TestNamesEndWithTheirRecord(t *testing.T) {
	m := []byte(strings.Repeat("\x00", headerLen) + "\x00" + "\x00\x01\x03abc\x00")
	a := new(response)
	for end, want := range map[int]bool{len(m): true, len(m) - 1: false, len(m) - 2: false, len(m) - 5: false} {
		if got := a.wellFormed(m, &rr{owner: headerLen, typ: typeSVCB, class: classIN, data: headerLen + 1, end: end}); got != want {
			t.Errorf("of %d bytes to %d: %v", len(m), end, got)
		}
	}
}
