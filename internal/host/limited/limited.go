// Package limited reads files and streams up to a limit, since their size is not
// known before.
package limited

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
)

// ErrTooLong is the error for input that is longer than its limit.
var ErrTooLong = errors.New("too long")

// ReadFile reads a file of at most limit bytes. The size is checked before anything
// is read, and of a file that grows only that much is read, so that a sparse file, a
// growing file and a device use no memory.
func ReadFile(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case st.IsDir():
		return nil, fmt.Errorf("%s: is a folder, want a file", path)
	case st.Size() > limit:
		return nil, tooLong(path, limit)
	}
	if !st.Mode().IsRegular() {
		return Read(f, path, limit)
	}
	b := make([]byte, st.Size())
	n, err := io.ReadFull(f, b)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return b[:n], nil
}

// ReadRegular is ReadFile for what must be a regular file: it waits for nobody who would write
// to a pipe, and reads no device.
func ReadRegular(path string, limit int64) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case !st.Mode().IsRegular():
		return nil, fmt.Errorf("%s: is not a regular file", path)
	case st.Size() > limit:
		return nil, tooLong(path, limit)
	}
	return Read(f, path, limit)
}

// Read reads r to its end, at most limit bytes. Errors have the name.
func Read(r io.Reader, name string, limit int64) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if int64(len(b)) > limit {
		return nil, tooLong(name, limit)
	}
	return b, nil
}

func tooLong(name string, limit int64) error {
	return fmt.Errorf("%s: %w: at most %s are read", name, ErrTooLong, size(limit))
}

func size(n int64) string {
	switch {
	case n >= 1<<20 && n%(1<<20) == 0:
		return fmt.Sprintf("%d MiB", n>>20)
	case n >= 1<<10 && n%(1<<10) == 0:
		return fmt.Sprintf("%d KiB", n>>10)
	}
	return fmt.Sprintf("%d bytes", n)
}
