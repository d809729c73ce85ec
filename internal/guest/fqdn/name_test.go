package fqdn

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/thurward/thurward/internal/shared/ruleset"
)

// labels returns a name in wire form with labels of these lengths.
func labels(lens ...int) (b []byte) {
	for _, n := range lens {
		b = append(append(b, byte(n)), strings.Repeat("l", n)...)
	}
	return append(b, 0)
}

// TestValid: the shortest and the longest name, and names one byte off.
func TestValid(t *testing.T) {
	for _, c := range []struct {
		what string
		b    []byte
		want bool
	}{
		{"nothing", nil, false},
		{"the root", []byte{0}, true},
		{"something behind the root", []byte{0, 0}, false},
		{"a label of 1", labels(1), true},
		{"a label of 63", labels(63), true},
		{"a label of 64", labels(64), false},
		{"a pointer", []byte{0xc0, 0}, false},
		{"a pointer behind a label", []byte{1, 'a', 0xc0, 0}, false},
		{"a label without its end", []byte{1}, false},
		{"a label and no root", []byte{1, 'a'}, false},
		{"a label that is longer than all", []byte{2, 'a', 0}, false},
		{"a label that ends behind the root", []byte{3, 'a', 0}, false},
		{"255 bytes", labels(63, 63, 63, 61), true},
		{"256 bytes", labels(63, 63, 63, 62), false},
		{"255 bytes of labels of 1", labels(slices.Repeat([]int{1}, 127)...), true},
		{"257 bytes of labels of 1", labels(slices.Repeat([]int{1}, 128)...), false},
		{"something behind a name", append(labels(1), 'a'), false},
		{"a name behind a name", append(labels(1), labels(1)...), false},
	} {
		if Valid(slices.Clip(c.b)) != c.want {
			t.Errorf("%s: %v", c.what, !c.want)
		}
	}
}

// TestTextAndWire: Encode and EncodeTo.
func TestTextAndWire(t *testing.T) {
	l63 := strings.Repeat("l", 63)
	long := l63 + "." + l63 + "." + l63 + "."  // 192
	for text, want := range map[string]string{ // "-": none
		"a":                             "\x01a\x00",
		"a.":                            "\x01a\x00",
		"A.Example":                     "\x01a\x07example\x00",
		"az.AZ.09-_":                    "\x02az\x02az\x0409-_\x00",
		"@[`{":                          "\x04@[`{\x00", // beside the letters
		"a..b":                          "-",
		".a":                            "-",
		"a..":                           "-",
		"..":                            "-",
		l63:                             "\x3f" + l63 + "\x00",
		l63 + ".":                       "\x3f" + l63 + "\x00",
		l63 + "l":                       "-",
		l63 + "l.x":                     "-",
		"x." + l63 + "l":                "-",
		long + strings.Repeat("x", 61):  string(labels(63, 63, 63)[:192]) + "\x3d" + strings.Repeat("x", 61) + "\x00",
		long + strings.Repeat("x", 62):  "-",
		long + strings.Repeat("x", 63):  "-",
		long + l63[:61] + ".":           string(labels(63, 63, 63, 61)),
		long + l63[:60] + ".x":          "-",
		strings.Repeat("a.", 127):       strings.Repeat("\x01a", 127) + "\x00",
		strings.Repeat("a.", 126) + "a": strings.Repeat("\x01a", 127) + "\x00",
		strings.Repeat("a.", 127) + "a": "-",
		strings.Repeat("a.", 128):       "-",
		strings.Repeat("a", 1000):       "-",
		strings.Repeat("a.", 500):       "-",
	} {
		w, ok := Encode(text)
		if ok != (want != "-") || ok && string(w) != want {
			t.Errorf("Wire(%q): %q, %v", text, w, ok)
		}
		put := [MaxName]byte{}
		for i := range put {
			put[i] = 0xee // left from an earlier use
		}
		n := EncodeTo(&put, []byte(text))
		if (n != 0) != ok || ok && string(put[:n]) != want {
			t.Errorf("EncodeTo(%q): %q", text, put[:n])
		}
	}
	// Of the root they have each its own opinion: a pattern may not be, a name that
	// somebody sends never is.
	for _, text := range []string{"", "."} {
		var put [MaxName]byte
		if w, ok := Encode(text); !ok || string(w) != "\x00" || EncodeTo(&put, []byte(text)) != 0 {
			t.Errorf("%q: %q, %v", text, w, ok)
		}
	}
}

// TestTextAndWireAgree compares the two with each other and with another library, on
// random names around the maximum lengths.
func TestTextAndWireAgree(t *testing.T) {
	r := rand.New(rand.NewPCG(8, 1))
	good := 0
	for range 20_000 {
		var text []byte
		for range 1 + r.IntN(5) {
			n := []int{0, 1, 2, 58, 61, 62, 63, 64}[r.IntN(8)]
			if n == 0 && r.IntN(4) > 0 {
				n = 1
			}
			for range n {
				text = append(text, "aZ@[-"[r.IntN(5)])
			}
			text = append(text, '.')
		}
		text = text[:len(text)-r.IntN(2)]
		if len(text) == 0 || string(text) == "." {
			continue
		}
		w, ok := Encode(string(text))
		var put [MaxName]byte
		n := EncodeTo(&put, text)
		buf := make([]byte, 1000)
		k, err := dns.PackDomainName(dns.Fqdn(string(text)), buf, 0, nil, false)
		lower := bytes.ToLower(buf[:max(k, 0)])
		if ok != (err == nil && k <= MaxName) || (n != 0) != ok || ok && (!bytes.Equal(w, lower) || !bytes.Equal(put[:n], w) || !Valid(w)) {
			t.Fatalf("%q: %q, %v; %q; %q, %v", text, w, ok, put[:n], lower, err)
		}
		if ok {
			good++
		}
	}
	if good < 2000 || good > 18_000 {
		t.Fatalf("%d of 20,000 are names", good)
	}
}

// TestAppendText: each byte of a label is escaped as in RFC 1035 and read back by
// another library; truncated names end where they are cut.
func TestAppendText(t *testing.T) {
	for c := range 256 {
		name := []byte{3, 'a', byte(c), 'b', 1, 'c', 0}
		text := string(AppendText([]byte("> "), name))
		want := "a" + string(rune(c)) + "b.c"
		switch {
		case c == '.' || c == '\\':
			want = "a\\" + string(rune(c)) + "b.c"
		case c <= ' ' || c > '~':
			want = "a\\" + string([]byte{'0' + byte(c/100), '0' + byte(c/10%10), '0' + byte(c%10)}) + "b.c"
		}
		if text != "> "+want {
			t.Errorf("%d is written %q, want %q", c, text, want)
		}
		buf := make([]byte, 20)
		if n, err := dns.PackDomainName(text[2:]+".", buf, 0, nil, false); err != nil || !bytes.Equal(buf[:n], name) {
			t.Errorf("%d: %q is read as %q, %v", c, text, buf[:n], err)
		}
	}
	for in, want := range map[string]string{"": ".", "\x00": ".", "\x01a\x00": "a", "\x01a": "a", "\x01": "", "\x02a": "", "\x01a\x02b": "a", "\x01a\x01b\x00": "a.b", "\x01a\x00\x01b\x00": "a"} {
		if got := string(AppendText(nil, slices.Clip([]byte(in)))); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

// TestPatternsAtRandom compares many patterns, some of them duplicates, with a
// linear search.
func TestPatternsAtRandom(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 5))
	name := func() string {
		s := ""
		for range 1 + r.IntN(4) {
			s += string("abcd"[r.IntN(4)]) + "."
		}
		return s[:len(s)-1]
	}
	for _, n := range []int{0, 1, 2, 3, 7, 8, 100, 1000} {
		var list []string
		for range n {
			s := name()
			if r.IntN(2) == 0 {
				s = "*." + s
			}
			list = append(list, s)
		}
		p := patterns(t, list...)
		if p.Empty() != (n == 0) || len(p.slots) < 2*n {
			t.Fatalf("%d patterns in %d slots: empty %v", n, len(p.slots), p.Empty())
		}
		for range 500 {
			s := name()
			var want []uint32
			within := false
			for i, l := range list {
				l, wild := strings.CutPrefix(l, "*.")
				_, parent, _ := strings.Cut(s, ".")
				if !wild && l == s || wild && l == parent {
					want = append(want, uint32(i))
				}
				within = within || strings.HasSuffix(s, "."+l) || !wild && l == s
			}
			got := p.Match(wire(t, s), make([]uint32, 0, 1000))
			slices.Sort(got)
			if !slices.Equal(got, want) || p.Has(wire(t, s)) != (len(want) > 0) || p.Within(wire(t, s)) != within {
				t.Fatalf("%q of %d patterns: %v, want %v; has %v; within %v, want %v", s, n, got, want, p.Has(wire(t, s)), p.Within(wire(t, s)), within)
			}
			if k := len(want) / 2; len(p.Match(wire(t, s), make([]uint32, 0, max(k, 0)))) != k {
				t.Fatalf("%q: more patterns than there is room for", s)
			}
		}
		if p.Has([]byte{0}) || p.Within([]byte{0}) || p.Within(nil) {
			t.Fatal("the root has a pattern")
		}
	}
	var none Patterns
	if !none.Empty() || none.Has(labels(1)) || none.Within(labels(1)) || len(none.Match(labels(1), make([]uint32, 0, 3))) != 0 {
		t.Fatal("there are none")
	}
	// A cut off name does not lead behind its end.
	if p := patterns(t, "*.a"); p.Has(labels(1)) || !p.Has([]byte("\x01x\x01a\x00")) {
		t.Fatal("*.a")
	}
}

// TestInvalidPatterns: an invalid name is an error, which names it.
func TestInvalidPatterns(t *testing.T) {
	for _, s := range []string{"a..b", ".a", strings.Repeat("l", 64), strings.Repeat("a.", 128)} {
		p := &ruleset.Policy{Strings: []byte("good" + s), Names: []ruleset.Name{{Text: ruleset.Text{Off: 0, Len: 4}}, {Text: ruleset.Text{Off: 4, Len: uint32(len(s))}}}}
		if got, err := NewPatterns(p, p.Names); got != nil || err == nil || err.Error() != "fqdn: "+s+" is not a name" {
			t.Errorf("%q: %v", s, err)
		}
	}
}
