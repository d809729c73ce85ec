package terminal

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestFilter(t *testing.T) {
	for in, want := range map[string]string{
		"plain\ttext\n":             "plain\ttext\n",
		"größe → 10 ×":              "größe → 10 ×",
		"\x1b[2J\x1b]2;title\x07":   `\u001b[2J\u001b]2;title\u0007`,
		"\x1b[31mred\x1b[0m":        `\u001b[31mred\u001b[0m`,
		"a\rb\x00\x7f\b":            `a\u000db\u0000\u007f\u0008`,
		"c1 \u009b31m \u0085":       `c1 \u009b31m \u0085`,
		"raw c1 \x9b31m":            `raw c1 \u009b31m`,
		"bidi \u202e\u2066\u200f":   `bidi \u202e\u2066\u200f`,
		"lines \u2028\u2029\ufeff":  `lines \u2028\u2029\ufeff`,
		"tag \U000e0041":            `tag \udb40\udc41`,
		"soft\u00ad hyphen \u200b.": `soft\u00ad hyphen \u200b.`,
	} {
		got, n := filter(nil, []byte(in), false)
		if string(got) != want || n != len(in) {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func TestColours(t *testing.T) {
	for in, want := range map[string]string{
		"\x1b[31mred\x1b[0m":   "\x1b[31mred\x1b[0m",
		"\x1b[1;31m^\x1b[m":    "\x1b[1;31m^\x1b[m",
		"\x1b[2J":              `\u001b[2J`,
		"\x1b[31":              "", // waits
		"\x1b":                 "",
		"\x1b[11111111111111m": `\u001b[11111111111111m`,
		"\x1b]0;x\x1b[0m":      `\u001b]0;x` + "\x1b[0m",
		"\x1bm":                `\u001bm`,
	} {
		if got, _ := filter(nil, []byte(in), true); string(got) != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

// TestWriterPieces: the output does not depend on the ends of writes.
func TestWriterPieces(t *testing.T) {
	const text = "größe \x1b[31m \u202e \xff\xe2\x80 end \x1b[2J → \U000e0041\n"
	for _, colour := range []bool{false, true} {
		whole, _ := filter(nil, []byte(text), colour)
		for size := 1; size < 9; size++ {
			f, err := os.Create(filepath.Join(t.TempDir(), "out"))
			if err != nil {
				t.Fatal(err)
			}
			w := New(f)
			w.colour = colour
			for rest := text; rest != ""; {
				n := min(size, len(rest))
				if k, err := w.Write([]byte(rest[:n])); k != n || err != nil {
					t.Fatal(k, err)
				}
				rest = rest[n:]
			}
			got, err := os.ReadFile(f.Name())
			if err != nil {
				t.Fatal(err)
			}
			if string(got) != string(whole) {
				t.Errorf("pieces of %d: %q, want %q", size, got, whole)
			}
			f.Close()
		}
	}
}

// TestJSONStaysJSON: escaped JSON has the same meaning.
func TestJSONStaysJSON(t *testing.T) {
	const s = "a\u009b31m \u202e \u2028 \U000e0041 \x1b \n ü"
	b, err := json.Marshal(map[string]string{"x": s})
	if err != nil {
		t.Fatal(err)
	}
	out, _ := filter(nil, b, true)
	var back map[string]string
	if err := json.Unmarshal(out, &back); err != nil || back["x"] != s {
		t.Errorf("%q, %v", back["x"], err)
	}
}

func FuzzFilter(f *testing.F) {
	f.Add([]byte("\x1b[31m\u202e\x9b"), true)
	f.Add([]byte("\xe2\x80"), false)
	f.Fuzz(func(t *testing.T, b []byte, colour bool) {
		out, n := filter(nil, b, colour)
		if n > len(b) || len(b)-n >= maxGraphic {
			t.Fatalf("%d of %d looked at", n, len(b))
		}
		if !utf8.Valid(out) {
			t.Fatalf("%q is no UTF-8", out)
		}
		rest := string(out)
		if colour {
			for {
				i := strings.IndexByte(rest, 0x1b)
				if i < 0 {
					break
				}
				k, _ := graphic([]byte(rest[i:]))
				if k == 0 {
					t.Fatalf("%q passes", rest[i:])
				}
				rest = rest[:i] + rest[i+k:]
			}
		}
		for _, r := range rest {
			if r < 0x20 && r != '\n' && r != '\t' || r >= 0x7f && r < 0xa0 || r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069 {
				t.Fatalf("%q passes in %q", r, rest)
			}
		}
	})
}
