package replay

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/thurward/thurward/internal/guest/framebuf"
)

// TestPcap: byte orders, units of time, link types with the length of a frame
// check sequence, and frames longer than the header's snap length, which some
// programs write.
func TestPcap(t *testing.T) {
	want := time.Unix(1_700_000_000, 123_000_000).UTC()
	for _, o := range []binary.AppendByteOrder{binary.LittleEndian, binary.BigEndian} {
		for _, nanos := range []bool{false, true} {
			magic, frac := uint32(0xa1b2c3d4), uint32(123_000)
			if nanos {
				magic, frac = 0xa1b23c4d, 123_000_000
			}
			b := o.AppendUint16(o.AppendUint16(o.AppendUint32(nil, magic), 2), 4)
			b = o.AppendUint32(o.AppendUint32(append(b, make([]byte, 8)...), 3), 0x24000001)
			b = o.AppendUint32(o.AppendUint32(b, 1_700_000_000), frac)
			b = append(o.AppendUint32(o.AppendUint32(b, 4), 6), 1, 2, 3, 4)
			r, err := openCapture(file(t, b), MaxBytes)
			if err != nil {
				t.Fatal(err)
			}
			f, err := r.next()
			if err != nil || !f.at.Equal(want) || string(f.data) != "\x01\x02\x03\x04" || !f.cut {
				t.Errorf("%v, nanoseconds %v: %+v, %v", o, nanos, f, err)
			}
			if _, err := r.next(); !errors.Is(err, io.EOF) || r.short {
				t.Errorf("%v: %v at the end", o, err)
			}
			// A header alone is a capture without frames.
			op := both(t, false)
			op.In = [2]string{file(t, b[:24]), ""}
			if s, err := Run(op); err != nil || s.Side[LAN].Frames != 0 {
				t.Errorf("%v, no frames: %v", o, err)
			}
		}
	}
}

// TestLimitIsDocumented: docs/replay.md says how long a frame may be.
func TestLimitIsDocumented(t *testing.T) {
	doc, err := os.ReadFile("../../../docs/replay.md")
	if err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("longer than %d bytes", framebuf.MaxLen); !strings.Contains(string(doc), want) {
		t.Errorf("docs/replay.md does not say %q", want)
	}
}

// openCapture opens a capture of a test.
func openCapture(path string, limit int64) (*reader, error) {
	s, err := openSource(path, nil, limit)
	if err != nil {
		return nil, err
	}
	return newReader(&s, limit)
}
