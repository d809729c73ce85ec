package main

import (
	"io"
	"os"
	"path/filepath"
	"testing"
)

// capture runs the command line and returns its exit code and output.
func capture(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	read := func(f **os.File) func() string {
		old := *f
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		*f = w
		ch := make(chan string)
		go func() { b, _ := io.ReadAll(r); ch <- string(b) }()
		return func() string { w.Close(); *f = old; return <-ch }
	}
	out, errs := read(&os.Stdout), read(&os.Stderr)
	code = run(args)
	return code, out(), errs()
}

func write(t *testing.T, name, text string) string {
	t.Helper()
	p := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return p
}
