package netlab

import (
	"bytes"
	"encoding/binary"
	"io"
	"strings"
	"testing"
)

func TestStreamFraming(t *testing.T) {
	queue, done := make(chan []byte, 2), make(chan struct{})
	queue <- bytes.Repeat([]byte{7}, 60)
	queue <- bytes.Repeat([]byte{8}, 1514)
	r, w := io.Pipe()
	go func() { writeFrames(w, queue, done); w.Close() }()
	head := make([]byte, 4)
	for _, want := range []int{60, 1514} {
		if _, err := io.ReadFull(r, head); err != nil {
			t.Fatal(err)
		}
		if n := binary.BigEndian.Uint32(head); int(n) != want {
			t.Fatalf("length %d, want %d", n, want)
		}
		if _, err := io.CopyN(io.Discard, r, int64(want)); err != nil {
			t.Fatal(err)
		}
	}
	close(done)
	if _, err := r.Read(head); err != io.EOF {
		t.Errorf("%v after the last frame", err)
	}
}

func TestStreamRefusesWrongLengths(t *testing.T) {
	for name, c := range map[string]struct {
		in   []byte
		want string
	}{
		"empty":           {nil, ""},
		"huge":            {[]byte{0xff, 0xff, 0xff, 0xff}, "at most"},
		"short head":      {[]byte{0, 0}, "unexpected EOF"},
		"short frame":     {[]byte{0, 0, 0, 9, 1}, "unexpected EOF"},
		"frame, then end": {[]byte{0, 0, 0, 1, 1}, ""},
	} {
		err := readFrames(bytes.NewReader(c.in), func([]byte) {})
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}
