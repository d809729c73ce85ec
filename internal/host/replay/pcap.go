package replay

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"
)

// The older format begins with one of these, in the byte order of its writer.
const (
	magicMicros = 0xa1b2c3d4
	magicNanos  = 0xa1b23c4d
)

// maxRecord is the largest size of a frame in bytes, the largest snap length of
// libpcap.
const maxRecord = 256 << 10

// A record is one frame of a capture's file.
type record struct {
	at   time.Time
	data []byte // valid until the next one is read
	long int    // bytes that the frame had on the wire
}

// records reads a capture's file, frame by frame. It returns io.EOF at the end
// of the file and io.ErrUnexpectedEOF at an end within a frame.
type records interface{ next() (record, error) }

// A pcapReader reads the older format (draft-ietf-opsawg-pcap).
type pcapReader struct {
	r     *bufio.Reader
	order binary.ByteOrder
	nanos bool
	link  int
	head  [16]byte
	buf   []byte
}

// openPcap reads the header. The upper half of the link type, about the frame check
// sequence, is ignored, and so is the snap length: some programs write longer frames.
func openPcap(r *bufio.Reader) (*pcapReader, error) {
	var h [24]byte
	if _, err := io.ReadFull(r, h[:]); err != nil {
		return nil, noEOF(err)
	}
	p := &pcapReader{r: r, order: binary.LittleEndian}
	if h[0] == 0xa1 {
		p.order = binary.BigEndian
	}
	switch m := p.order.Uint32(h[:]); m {
	case magicMicros:
	case magicNanos:
		p.nanos = true
	default:
		return nil, fmt.Errorf("it begins with %08x", m)
	}
	if v := p.order.Uint16(h[4:]); v != 2 {
		return nil, fmt.Errorf("pcap version %d.%d (want 2.4)", v, p.order.Uint16(h[6:]))
	}
	p.link = int(p.order.Uint32(h[20:]) & 0xffff)
	return p, nil
}

func (p *pcapReader) next() (record, error) {
	h := &p.head
	if _, err := io.ReadFull(p.r, h[:]); err != nil {
		return record{}, err
	}
	sec, frac := p.order.Uint32(h[:]), int64(p.order.Uint32(h[4:]))
	n, long := p.order.Uint32(h[8:]), p.order.Uint32(h[12:])
	if n > maxRecord {
		return record{}, fmt.Errorf("%d bytes; at most %d are possible", n, maxRecord)
	}
	if !p.nanos {
		frac *= 1000
	}
	var err error
	p.buf, err = readInto(p.buf, p.r, int(n))
	return record{time.Unix(int64(sec), frac).UTC(), p.buf, int(long)}, err
}

// readInto reads n bytes into buf, or into a larger buffer.
func readInto(buf []byte, r io.Reader, n int) ([]byte, error) {
	if cap(buf) < n {
		buf = make([]byte, n)
	}
	_, err := io.ReadFull(r, buf[:n])
	return buf[:n], noEOF(err)
}

// noEOF returns io.ErrUnexpectedEOF for io.EOF.
func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// A pcapWriter writes the older format, with nanoseconds.
type pcapWriter struct{ w io.Writer }

// header begins the file.
func (p pcapWriter) header() error {
	le := binary.LittleEndian
	b := le.AppendUint32(nil, magicNanos)
	b = le.AppendUint16(b, 2)
	b = le.AppendUint16(b, 4)
	b = append(b, make([]byte, 8)...)
	b = le.AppendUint32(b, 65535)
	_, err := p.w.Write(le.AppendUint32(b, linkEthernet))
	return err
}

func (p pcapWriter) write(at time.Time, data []byte) error {
	var h [16]byte
	le := binary.LittleEndian
	le.PutUint32(h[:], uint32(at.Unix()))
	le.PutUint32(h[4:], uint32(at.Nanosecond()))
	le.PutUint32(h[8:], uint32(len(data)))
	le.PutUint32(h[12:], uint32(len(data)))
	if _, err := p.w.Write(h[:]); err != nil {
		return err
	}
	_, err := p.w.Write(data)
	return err
}
