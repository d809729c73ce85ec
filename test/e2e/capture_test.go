package e2e

import (
	"bytes"
	"io"
	"sync"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"

	"github.com/thurward/thurward/internal/host/netlab"
)

// maxCapture is the most bytes that a capture keeps.
const maxCapture = 64 << 20

// A capture keeps the frames that enter a switch as a pcap file, for a test that
// fails.
type capture struct {
	mu   sync.Mutex
	file bytes.Buffer
	w    *pcapgo.Writer
}

func newCapture(sw *netlab.Switch) *capture {
	c := &capture{}
	c.w = pcapgo.NewWriterNanos(&c.file)
	c.w.WriteFileHeader(1<<18, layers.LinkTypeEthernet) //nolint:errcheck // to memory
	sw.Tap(func(_ string, frame []byte) {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.file.Len() < maxCapture {
			info := gopacket.CaptureInfo{Timestamp: time.Now(), CaptureLength: len(frame), Length: len(frame)}
			c.w.WritePacket(info, frame) //nolint:errcheck // to memory
		}
	})
	return c
}

// WriteTo writes the file.
func (c *capture) WriteTo(w io.Writer) (int64, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n, err := w.Write(c.file.Bytes())
	return int64(n), err
}
