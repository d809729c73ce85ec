package netlab

import (
	"encoding/binary"
	"io"
	"sync"
	"time"
)

// maxCapture is the most bytes of frames that a Capture keeps.
const maxCapture = 64 << 20

// A Capture keeps the frames that enter a switch, for a test that fails.
type Capture struct {
	mu     sync.Mutex
	frames []captured
	bytes  int
}

type captured struct {
	at   time.Time
	data []byte
}

// NewCapture starts to capture a switch, up to maxCapture bytes.
func NewCapture(sw *Switch) *Capture {
	c := &Capture{}
	sw.Tap(func(_ string, frame []byte) {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.bytes < maxCapture {
			c.bytes += len(frame)
			c.frames = append(c.frames, captured{time.Now(), frame})
		}
	})
	return c
}

// WriteTo writes a pcap file (draft-ietf-opsawg-pcap), little-endian,
// microseconds, link type Ethernet.
func (c *Capture) WriteTo(w io.Writer) (int64, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	le := binary.LittleEndian
	b := le.AppendUint32(nil, 0xa1b2c3d4)
	b = le.AppendUint16(b, 2)
	b = le.AppendUint16(b, 4)
	b = append(b, make([]byte, 8)...)
	b = le.AppendUint32(b, 1<<18)
	b = le.AppendUint32(b, 1)
	for _, f := range c.frames {
		us := f.at.UnixMicro()
		b = le.AppendUint32(b, uint32(us/1e6))
		b = le.AppendUint32(b, uint32(us%1e6))
		b = le.AppendUint32(b, uint32(len(f.data)))
		b = le.AppendUint32(b, uint32(len(f.data)))
		b = append(b, f.data...)
	}
	n, err := w.Write(b)
	return int64(n), err
}
