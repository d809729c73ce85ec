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
}

// A reader reads one capture, pcap or pcapng.
type reader struct {
	path string
	file *os.File
	in   records // nil: there are none
	n    int     // frames read
	left int64   // bytes of frames that may still be read
	peek frameIn
	full bool // peek is valid
	// short says that the file ends inside a frame, as it does when the
	// program that wrote it was killed.
	short bool
}

// openCapture opens a capture. An empty path is a capture without frames.
func openCapture(path string, limit int64) (*reader, error) {
	r := &reader{path: path, left: limit}
	if path == "" {
		return r, nil
	}
	var err error
	if r.file, err = os.Open(path); err != nil {
		return nil, err
	}
	link, err := r.start()
	if err != nil {
		r.file.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if link != linkEthernet {
		r.file.Close()
		return nil, fmt.Errorf("%s: frames of link type %d, want Ethernet (%s)", path, link, linkHint(link))
	}
	return r, nil
}

// linkHint says how to capture what can be replayed.
func linkHint(link int) string {
	if link == linkLinuxSLL || link == linkSLL2 {
		return "capture on one interface, not on any"
	}
	return "capture on the Ethernet interface that faces the firewall"
}

// start reads the file's header.
func (r *reader) start() (link int, err error) {
	if st, err := r.file.Stat(); err != nil {
		return 0, err
	} else if !st.Mode().IsRegular() {
		return 0, errors.New("not a regular file (captures are read twice; write it to a file first)")
	}
	b := bufio.NewReaderSize(r.file, 1<<16)
	magic, err := b.Peek(4)
	if err != nil {
		return 0, errors.New("too short to be a capture (want pcap or pcapng)")
	}
	if magic[0] == 0x1f && magic[1] == 0x8b {
		return 0, errors.New("compressed with gzip (gunzip it first)")
	}
	if binary.BigEndian.Uint32(magic) == 0x0a0d0d0a {
		ng, err := openPcapng(b)
		if err != nil {
			return 0, fmt.Errorf("not a capture: %w", err)
		}
		r.in = ng
		return ng.link, nil
	}
	if !pcapMagic(magic) {
		return 0, fmt.Errorf("not a capture: it begins with %x (want pcap or pcapng)", magic)
	}
	pc, err := openPcap(b)
	if err != nil {
		return 0, fmt.Errorf("not a capture: %w", err)
	}
	r.in = pc
	return pc.link, nil
}

func pcapMagic(b []byte) bool {
	for _, order := range []binary.ByteOrder{binary.LittleEndian, binary.BigEndian} {
		if m := order.Uint32(b); m == magicMicros || m == magicNanos {
			return true
		}
	}
	return false
}

// next returns the next frame, or io.EOF.
func (r *reader) next() (frameIn, error) {
	if r.full {
		r.full = false
		return r.peek, nil
	}
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
	return frameIn{rec.at, rec.data, len(rec.data) < rec.long}, nil
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

func (r *reader) close() {
	if r.file != nil {
		r.file.Close()
	}
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
