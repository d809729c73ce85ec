package replay

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"time"
)

// A frameIn is one frame of a capture.
type frameIn struct {
	at   time.Time
	data []byte // valid until the next read
	cut  bool   // the snap length cut it
	env  envelope
}

// A reader reads one capture, pcap or pcapng, as Ethernet frames.
type reader struct {
	path string
	all  *io.SectionReader
	in   records // nil: there are none
	link int
	buf  []byte // a frame whose header was made
	n    int    // frames read
	left int64  // bytes of frames that may still be read
	peek frameIn
	full bool // peek is valid
	// take says which frames are of this side, where a capture has several; nil: all.
	take func(*frameIn) bool
	// alien counts frames that are no Ethernet frame, short says that the file ends
	// inside a frame, as it does when the program that wrote it was killed.
	alien int
	short bool
}

// newReader reads the header of a capture.
func newReader(s *source, limit int64) (*reader, error) {
	r := &reader{path: s.path, left: limit, link: linkEthernet}
	if s.file == nil {
		return r, nil
	}
	r.all = s.reader()
	err := r.start()
	if err == nil {
		err = checkLink(r.link)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.path, err)
	}
	return r, nil
}

// start reads the file's header.
func (r *reader) start() error {
	b := bufio.NewReaderSize(r.all, 1<<16)
	magic, err := b.Peek(4)
	if err != nil {
		return errors.New("too short to be a capture (want pcap or pcapng)")
	}
	if binary.BigEndian.Uint32(magic) == 0x0a0d0d0a {
		ng, err := openPcapng(b)
		if err != nil {
			return fmt.Errorf("not a capture: %w", err)
		}
		r.in, r.link = ng, ng.link
		return nil
	}
	if !pcapMagic(magic) {
		return fmt.Errorf("not a capture: it begins with %x (want pcap or pcapng)", magic)
	}
	pc, err := openPcap(b)
	if err != nil {
		return fmt.Errorf("not a capture: %w", err)
	}
	r.in, r.link = pc, pc.link
	return nil
}

func pcapMagic(b []byte) bool {
	for _, order := range []binary.ByteOrder{binary.LittleEndian, binary.BigEndian} {
		if m := order.Uint32(b); m == magicMicros || m == magicNanos {
			return true
		}
	}
	return false
}

// next returns the next frame of this side, or io.EOF.
func (r *reader) next() (frameIn, error) {
	if r.full {
		r.full = false
		return r.peek, nil
	}
	for {
		f, err := r.read()
		if err != nil {
			return f, err
		}
		if r.link != linkEthernet {
			var ok bool
			if r.buf, f.env, ok = ethernet(r.buf[:0], r.link, f.data); !ok {
				r.alien++
				continue
			}
			f.data = r.buf
		}
		if r.take == nil || r.take(&f) {
			return f, nil
		}
	}
}

// read returns the next frame as the file has it.
func (r *reader) read() (frameIn, error) {
	if r.in == nil {
		return frameIn{}, io.EOF
	}
	rec, err := r.in.next()
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		r.short = true
		return frameIn{}, io.EOF
	case errors.Is(err, io.EOF):
		return frameIn{}, io.EOF
	case err != nil:
		return frameIn{}, fmt.Errorf("%s: frame %d: %w", r.path, r.n+1, err)
	}
	r.n++
	if r.left -= int64(len(rec.data)); r.left < 0 {
		return frameIn{}, fmt.Errorf("%s: more frames than %w (cut the capture, as with editcap, or raise --max-bytes)",
			r.path, errLimit)
	}
	return frameIn{at: rec.at, data: rec.data, cut: len(rec.data) < rec.long}, nil
}

var errLimit = errors.New("the limit on a capture's size allows")

// ahead returns the next frame's time without taking it.
func (r *reader) ahead() (time.Time, error) {
	if !r.full {
		f, err := r.next()
		if err != nil {
			return time.Time{}, err
		}
		r.peek, r.full = f, true
	}
	return r.peek.at, nil
}

// done returns how many bytes of the file were read.
func (r *reader) done() int64 {
	if r.all == nil {
		return 0
	}
	at, _ := r.all.Seek(0, io.SeekCurrent)
	return at
}

// A writer writes a pcap with nanoseconds.
type writer struct {
	file *os.File
	buf  *bufio.Writer
}

// createCapture makes a capture; an empty path discards what is written.
func createCapture(path string) (*writer, error) {
	if path == "" {
		return &writer{}, nil
	}
	f, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	w := &writer{file: f, buf: bufio.NewWriter(f)}
	return w, pcapWriter{w.buf}.header()
}

func (w *writer) write(at time.Time, b []byte) error {
	if w.file == nil {
		return nil
	}
	return pcapWriter{w.buf}.write(at, b)
}

func (w *writer) close() error {
	if w.file == nil {
		return nil
	}
	err := w.buf.Flush()
	if e := w.file.Close(); err == nil {
		err = e
	}
	return err
}
