package ingest

import (
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/thurward/thurward/internal/host/ecs"
)

func readAll(t *testing.T, r io.Reader) (kinds string, items []Item) {
	t.Helper()
	rd := NewReader(r)
	for {
		it, err := rd.Next()
		if err == io.EOF {
			return strings.TrimSpace(kinds), items
		}
		if err != nil {
			t.Fatal(err)
		}
		kinds += it.Kind.String() + " "
		items = append(items, it)
	}
}

func TestReaderBounds(t *testing.T) {
	long := strings.Repeat("y", 3*MaxLine)
	exact := `{"a":"` + strings.Repeat("y", MaxLine-8) + `"}`
	in := "\n\r\n# METRIC thurward_uptime_seconds 1\r\n" + long + "\n{\"b\":1}\n" + exact + "\n# METRIC thurward_uptime_seconds 12"
	for name, r := range map[string]io.Reader{"whole": strings.NewReader(in), "bytes": iotest.OneByteReader(strings.NewReader(in)), "halves": iotest.HalfReader(strings.NewReader(in))} {
		kinds, items := readAll(t, r)
		if kinds != "sample malformed event event malformed" {
			t.Fatalf("%s: %s", name, kinds)
		}
		if items[1].Err != ecs.ErrTooLong || len(items[1].Raw) != MaxLine || items[4].Err != ErrCut || items[4].Raw != "# METRIC thurward_uptime_seconds 12" {
			t.Errorf("%s: %v %d, %v %q", name, items[1].Err, len(items[1].Raw), items[4].Err, items[4].Raw)
		}
	}
	// A whole object needs no line end; half of one is malformed.
	if kinds, _ := readAll(t, strings.NewReader("{\"a\":1}\n{\"b\":2}")); kinds != "event event" {
		t.Error(kinds)
	}
	if kinds, _ := readAll(t, strings.NewReader(`{"a":1`)); kinds != "malformed" {
		t.Error(kinds)
	}
	// A line without end costs one line of memory, however long it is.
	if kinds, _ := readAll(t, io.LimitReader(zeros{}, 64<<20)); kinds != "malformed" {
		t.Error(kinds)
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { return len(b), nil }

func FuzzReader(f *testing.F) {
	f.Add([]byte("{\"a\":1}\n# METRIC a 1\n\n# SPAN {}\nx"), 3)
	f.Fuzz(func(t *testing.T, in []byte, n int) {
		whole, _ := readAll(t, strings.NewReader(string(in)))
		parts, _ := readAll(t, iotest.OneByteReader(strings.NewReader(string(in))))
		if whole != parts {
			t.Fatalf("%q\n%q", whole, parts)
		}
	})
}
