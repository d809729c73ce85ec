package limited

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

func TestReadFile(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "f")
	if err := os.WriteFile(file, []byte("12345678"), 0o600); err != nil {
		t.Fatal(err)
	}
	sparse := filepath.Join(dir, "sparse")
	if err := errors.Join(os.WriteFile(sparse, nil, 0o600), os.Truncate(sparse, 1<<40)); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		path  string
		limit int64
		want  string // of the error, "": none
	}{
		{file, 8, ""}, {file, 9, ""}, {file, 7, "at most 7 bytes"},
		{sparse, 64 << 20, "at most 64 MiB"}, {dir, 8, "is a folder"}, {"/dev/zero", 1 << 10, "at most 1 KiB"}, {filepath.Join(dir, "none"), 8, "no such file"},
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		b, err := ReadFile(c.path, c.limit)
		runtime.ReadMemStats(&after)
		if c.want == "" && (err != nil || string(b) != "12345678") || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), c.path)) {
			t.Errorf("%s, %d: %q, %v", c.path, c.limit, b, err)
		}
		if grown := after.TotalAlloc - before.TotalAlloc; grown > 1<<20 {
			t.Errorf("%s, %d: %d bytes of memory", c.path, c.limit, grown)
		}
	}
	if _, err := Read(strings.NewReader("123456789"), "standard input", 8); !errors.Is(err, ErrTooLong) {
		t.Errorf("%v", err)
	}
}
