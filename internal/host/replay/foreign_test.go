package replay

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/pcapgo"
)

// foreignReader is what pcapgo's two readers have in common.
type foreignReader interface {
	ZeroCopyReadPacketData() ([]byte, gopacket.CaptureInfo, error)
}

func openForeign(b *bufio.Reader) (foreignReader, error) {
	magic, err := b.Peek(4)
	if err != nil {
		return nil, err
	}
	if binary.BigEndian.Uint32(magic) == blockSection {
		return pcapgo.NewNgReader(b, pcapgo.NgReaderOptions{ErrorOnMismatchingLinkType: true})
	}
	return pcapgo.NewReader(b)
}

// describeFrame writes what both readers say of a frame.
func describeFrame(at time.Time, data []byte, cut bool) string {
	return fmt.Sprintf("%s %x cut=%v\n", at.UTC().Format(time.RFC3339Nano), data[:min(len(data), 8)], cut)
}

// oursRead and foreignRead return the frames of a capture as text, and how
// reading it ended.
func oursRead(t *testing.T, b []byte) string {
	r, err := openCapture(file(t, b), MaxBytes)
	if err != nil {
		return "error"
	}
	s := ""
	for {
		f, err := r.next()
		if err != nil {
			if r.short || err.Error() != "EOF" {
				return s + "error"
			}
			return s + "end"
		}
		s += describeFrame(f.at, f.data, f.cut)
	}
}

func foreignRead(b []byte) string {
	r, err := openForeign(bufio.NewReader(bytes.NewReader(b)))
	if err != nil {
		return "error"
	}
	s := ""
	for {
		d, ci, err := r.ZeroCopyReadPacketData()
		if err != nil {
			if err.Error() != "EOF" {
				return s + "error"
			}
			return s + "end"
		}
		s += describeFrame(ci.Timestamp, d, ci.CaptureLength < ci.Length)
	}
}

// TestCapturesAsPcapgo: our readers and pcapgo's read the same from a capture,
// but for what is listed (ADR 0018). A difference that goes away with a version
// of pcapgo fails the test, too: then there is one reason less to have our own.
func TestCapturesAsPcapgo(t *testing.T) {
	le, be := binary.LittleEndian, binary.BigEndian
	join := func(bs ...[]byte) []byte { return bytes.Join(bs, nil) }
	const second = 1_700_000_000
	classic := func(o binary.AppendByteOrder, magic, frac, size, long uint32, data []byte) []byte {
		b := o.AppendUint16(o.AppendUint16(o.AppendUint32(nil, magic), 2), 4)
		b = o.AppendUint32(o.AppendUint32(append(b, make([]byte, 8)...), 65535), linkEthernet)
		b = o.AppendUint32(o.AppendUint32(b, second), frac)
		return append(o.AppendUint32(o.AppendUint32(b, size), long), data...)
	}
	unit := func(o binary.AppendByteOrder, u byte) []byte {
		return append(o.AppendUint16(o.AppendUint16(nil, 9), 1), u, 0, 0, 0)
	}
	frame := []byte{1, 2, 3, 4}
	whole := ngFrame(le, blockEnhanced, 0, second*1e6+500_000)
	for name, c := range map[string]struct {
		b       []byte
		differs string // why pcapgo reads something else
	}{
		"pcap":                          {classic(le, 0xa1b2c3d4, 123_000, 4, 6, frame), ""},
		"pcap, big-endian":              {classic(be, 0xa1b2c3d4, 123_000, 4, 6, frame), ""},
		"pcap, nanoseconds":             {classic(le, 0xa1b23c4d, 123_456_789, 4, 6, frame), ""},
		"pcap, both":                    {classic(be, 0xa1b23c4d, 123_456_789, 4, 6, frame), ""},
		"pcap, longer than snap length": {classic(le, 0xa1b2c3d4, 1, 200_000, 200_000, make([]byte, 200_000)), ""},
		"pcap, ends in a frame":         {classic(le, 0xa1b2c3d4, 1, 4, 6, frame[:2]), ""},
		"pcap, ends in a header":        {classic(le, 0xa1b2c3d4, 1, 4, 6, nil)[:32], ""},
		"pcap, 1 GB claimed":            {classic(le, 0xa1b2c3d4, 1, 1<<30, 1<<30, frame), ""},
		"pcap, 5 seconds of µs":         {classic(le, 0xa1b2c3d4, 5_000_000, 4, 6, frame), "the time overflows 32 bits"},
		"pcap, longer than on the wire": {classic(le, 0xa1b2c3d4, 1, 4, 3, frame), "the capture is refused"},

		"pcapng":                      {join(ngSection(le, 1), whole), ""},
		"pcapng, big-endian":          {join(ngSection(be, 1), ngFrame(be, blockEnhanced, 0, second*1e6)), ""},
		"pcapng, nanoseconds":         {join(ngSection(le, 1, unit(le, 9)...), ngFrame(le, blockEnhanced, 0, second*1e9+1)), ""},
		"pcapng, 10^-15 s":            {join(ngSection(le, 1, unit(le, 15)...), ngFrame(le, blockEnhanced, 0, 1_700*1e15+500e12)), ""},
		"pcapng, older block":         {join(ngSection(be, 1), ngFrame(be, blockPacket, 0, second*1e6)), ""},
		"pcapng, unknown block":       {join(ngSection(le, 1), ngBlock(le, 0x80000001, make([]byte, 4000)), whole), ""},
		"pcapng, names and secrets":   {join(ngSection(le, 1), ngBlock(le, 4, []byte{1, 0, 0xff, 0xff, 1, 2, 3, 4}), ngBlock(le, 10, []byte{0, 0, 0, 0, 0xff, 0xff, 0xff, 0x3f}), whole), ""},
		"pcapng, two sections":        {join(ngSection(le, 1), whole, ngSection(be, 1), ngFrame(be, blockEnhanced, 0, second*1e6)), ""},
		"pcapng, another link type":   {join(ngSection(le, 1), whole, ngSection(le, 113), whole), ""},
		"pcapng, unknown interface":   {join(ngSection(le, 1), ngFrame(le, blockEnhanced, 1<<31, 0)), ""},
		"pcapng, option beyond block": {ngSection(le, 1, 9, 0, 9, 0, 6, 0, 0, 0), ""},
		"pcapng, block of 4 bytes":    {join(ngSection(le, 1), []byte{0x99, 0, 0, 0, 4, 0, 0, 0}, whole), ""},
		"pcapng, block of 1 GB":       {join(ngSection(le, 1), []byte{6, 0, 0, 0, 0, 0, 0, 0x40}), ""},
		"pcapng, 2^-10 s":             {join(ngSection(le, 1, unit(le, 0x80|10)...), ngFrame(le, blockEnhanced, 0, second<<10+512)), "256 ns early"},
		"pcapng, 2^-20 s":             {join(ngSection(le, 1, unit(le, 0x80|20)...), ngFrame(le, blockEnhanced, 0, second<<20+1<<19)), "354 µs early"},
		"pcapng, 2^-40 s":             {join(ngSection(le, 1, unit(le, 0x80|40)...), ngFrame(le, blockEnhanced, 0, 1_700<<40+1<<39)), "233 µs late"},
		"pcapng, seconds":             {join(ngSection(le, 1, unit(le, 0)...), ngFrame(le, blockEnhanced, 0, second)), "taken for microseconds"},
		"pcapng, 10^-20 s":            {join(ngSection(le, 1, unit(le, 20)...), whole), "the unit overflows 64 bits"},
		"pcapng, far future":          {join(ngSection(le, 1, unit(le, 1)...), ngFrame(le, blockEnhanced, 0, 1<<63)), "a year beyond 9999"},
		"pcapng, no time":             {join(ngSection(le, 1), ngBlock(le, blockSimple, append([]byte{4, 0, 0, 0}, frame...))), "the zero time"},
		"pcapng, unused interface":    {join(ngSection(le, 1), ngSection(le, 113), ngSection(le, 1), whole), "the capture is refused"},
	} {
		ours, foreign := oursRead(t, c.b), foreignRead(c.b)
		if (ours == foreign) != (c.differs == "") {
			t.Errorf("%s: listed difference %q\nours:\n%s\npcapgo:\n%s", name, c.differs, ours, foreign)
		}
	}
}

// BenchmarkCapture compares the readers on frames of 400 bytes.
func BenchmarkCapture(b *testing.B) {
	const frames = 50_000
	data := make([]byte, 400)
	for _, format := range []string{"pcap", "pcapng"} {
		fs := make([]at, frames)
		for i := range fs {
			fs[i] = at{time.Duration(i) * time.Microsecond, data}
		}
		path := pcap(b, format == "pcapng", fs...)
		report := func(b *testing.B, read func() int) {
			b.ReportAllocs()
			for b.Loop() {
				if n := read(); n != frames {
					b.Fatalf("%d frames", n)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/frames, "ns/frame")
		}
		b.Run(format+"/ours", func(b *testing.B) {
			report(b, func() (n int) {
				r, err := openCapture(path, MaxBytes)
				if err != nil {
					b.Fatal(err)
				}
				for {
					if _, err := r.next(); err != nil {
						return n
					}
					n++
				}
			})
		})
		b.Run(format+"/pcapgo", func(b *testing.B) {
			report(b, func() (n int) {
				f, err := os.Open(path)
				if err != nil {
					b.Fatal(err)
				}
				defer f.Close()
				r, err := openForeign(bufio.NewReaderSize(f, 1<<16))
				if err != nil {
					b.Fatal(err)
				}
				for {
					if _, _, err := r.ZeroCopyReadPacketData(); err != nil {
						return n
					}
					n++
				}
			})
		})
	}
}
