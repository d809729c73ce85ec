package ingest

import (
	"bufio"
	"bytes"
	"io"

	"github.com/thurward/thurward/internal/host/ecs"
)

// A Reader reads lines. It keeps at most one line in memory.
type Reader struct {
	br    *bufio.Reader
	skips bool // within the rest of a line that was too long
}

// NewReader makes a reader of r.
func NewReader(r io.Reader) *Reader {
	return &Reader{br: bufio.NewReaderSize(r, MaxLine+2)} // with CR and LF
}

// Buffered returns the number of bytes that were received and not yet read. If it
// is 0, Next waits for the other side.
func (r *Reader) Buffered() int { return r.br.Buffered() }

// Next returns the next line that is not empty. A line that is too long is
// malformed, with its beginning in Raw. A line without an end before the end of
// the stream is malformed unless it is a whole JSON object: in a number, missing
// digits would not be noticed. After the last line Next returns the error of the
// underlying reader, io.EOF at the end.
func (r *Reader) Next() (Item, error) {
	for {
		b, err := r.br.ReadSlice('\n')
		long := err == bufio.ErrBufferFull
		if r.skips {
			r.skips = long
			if err != nil && !long {
				return Item{}, err
			}
			continue
		}
		if long {
			r.skips = true
			return Item{Kind: Malformed, Raw: string(b[:MaxLine]), Err: ecs.ErrTooLong}, nil
		}
		line := bytes.TrimSuffix(bytes.TrimSuffix(b, []byte("\n")), []byte("\r"))
		if len(line) == 0 {
			if err != nil {
				return Item{}, err
			}
			continue
		}
		it := Parse(string(line))
		if err != nil && it.Kind != EventKind && it.Kind != SpanKind && it.Kind != HelloKind && it.Kind != Malformed {
			it = Item{Kind: Malformed, Raw: it.Raw, Err: ErrCut}
		}
		return it, nil // the next call returns the error
	}
}
