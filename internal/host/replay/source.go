package replay

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
)

// A source is a capture's bytes, which can be read more than once, also where the path
// is a pipe or the file is compressed.
type source struct {
	path string
	file *os.File // nil: no capture
	size int64
}

// maxOverhead is how many bytes a capture may have beside those of its frames, in bytes
// a byte of frames, and at least a MiB: the smallest frames have a header of their size.
const maxOverhead = 2

// openSource opens a capture. An empty path is a capture without frames, - is standard
// input. What cannot be read twice, and what gzip compressed, is copied to a file without
// a name, as far as limit bytes of frames can need.
func openSource(path string, stdin io.Reader, limit int64) (source, error) {
	s := source{path: path}
	switch path {
	case "":
		return s, nil
	case "-":
		s.path = "standard input"
		return s, s.spool(stdin, limit)
	}
	f, err := os.Open(path)
	if err != nil {
		return s, err
	}
	st, err := f.Stat()
	if err != nil {
		f.Close()
		return s, err
	}
	var magic [2]byte
	if st.Mode().IsRegular() {
		if n, _ := f.ReadAt(magic[:], 0); n < 2 || magic != gzipMagic {
			s.file, s.size = f, st.Size()
			return s, nil
		}
	}
	defer f.Close()
	if st.IsDir() {
		return s, fmt.Errorf("%s is a folder (want a capture)", path)
	}
	return s, s.spool(f, limit)
}

var gzipMagic = [2]byte{0x1f, 0x8b}

// spool copies what r gives, decompressed where gzip compressed it.
func (s *source) spool(r io.Reader, limit int64) error {
	f, err := os.CreateTemp("", "thurward-replay-")
	if err != nil {
		return err
	}
	if err := os.Remove(f.Name()); err != nil {
		f.Close()
		return err
	}
	fail := func(err error) error {
		f.Close()
		return fmt.Errorf("%s: %w", s.path, err)
	}
	if r, err = decompressed(r); err != nil {
		return fail(err)
	}
	most := max(limit, 1<<20)
	if most < 1<<62 {
		most *= 1 + maxOverhead
	}
	n, err := io.Copy(f, io.LimitReader(r, most))
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) { // cut short: as a file that is
		return fail(err)
	}
	if n == most {
		return fail(fmt.Errorf("more bytes than %w (raise --max-bytes)", errLimit))
	}
	s.file, s.size = f, n
	return nil
}

// decompressed returns a reader of what r's bytes stand for.
func decompressed(r io.Reader) (io.Reader, error) {
	var magic [2]byte
	n, err := io.ReadFull(r, magic[:])
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, err
	}
	whole := io.MultiReader(bytes.NewReader(magic[:n]), r)
	if magic != gzipMagic {
		return whole, nil
	}
	z, err := gzip.NewReader(whole)
	if err != nil {
		return nil, fmt.Errorf("it begins as gzip's files do: %w", err)
	}
	return z, nil
}

// reader returns the bytes from the beginning.
func (s *source) reader() *io.SectionReader { return io.NewSectionReader(s.file, 0, s.size) }

func (s *source) close() {
	if s.file != nil {
		s.file.Close()
	}
}
