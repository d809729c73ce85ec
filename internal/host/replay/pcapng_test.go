package replay

import (
	"encoding/binary"
	"strings"
	"testing"
	"time"
)

// ngBlock makes a block of pcapng.
func ngBlock(o binary.AppendByteOrder, typ uint32, body []byte) []byte {
	n := uint32(12 + len(body))
	b := o.AppendUint32(o.AppendUint32(nil, typ), n)
	return o.AppendUint32(append(b, body...), n)
}

// ngSection begins a section with one interface whose options are given.
func ngSection(o binary.AppendByteOrder, link uint16, options ...byte) []byte {
	b := o.AppendUint32(nil, 0x1a2b3c4d)
	b = o.AppendUint16(o.AppendUint16(b, 1), 0)
	b = ngBlock(o, blockSection, append(b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff))
	i := o.AppendUint32(o.AppendUint16(o.AppendUint16(nil, link), 0), 0)
	return append(b, ngBlock(o, blockInterface, append(i, options...))...)
}

// ngFrame is a frame of four bytes, of which six were on the wire.
func ngFrame(o binary.AppendByteOrder, typ uint32, iface uint32, units uint64) []byte {
	b := o.AppendUint32(nil, iface)
	if typ == blockPacket {
		b = o.AppendUint16(o.AppendUint16(nil, uint16(iface)), 7) // drops
	}
	b = o.AppendUint32(o.AppendUint32(b, uint32(units>>32)), uint32(units))
	b = o.AppendUint32(o.AppendUint32(b, 4), 6)
	return ngBlock(o, typ, append(b, 1, 2, 3, 4))
}

// TestPcapng: byte orders, units and offsets of time, obsolete blocks, blocks that are
// skipped, and several sections.
func TestPcapng(t *testing.T) {
	le, be := binary.LittleEndian, binary.BigEndian
	join := func(bs ...[]byte) (all []byte) {
		for _, b := range bs {
			all = append(all, b...)
		}
		return all
	}
	const second = 1_700_000_000
	at := time.Unix(second, 500e6).UTC()
	binaryUnits := []byte{9, 0, 1, 0, 0x80 | 10, 0, 0, 0}
	nanos := []byte{0, 9, 0, 1, 9, 0, 0, 0, 0, 14, 0, 8, 0, 0, 0, 0, 0, 0, 0, 100, 0, 0, 0, 0} // big-endian, 100 seconds later
	for name, c := range map[string]struct {
		b    []byte
		n    int
		want string // of the error
	}{
		"microseconds":        {join(ngSection(le, 1), ngFrame(le, blockEnhanced, 0, second*1e6+500_000)), 1, ""},
		"binary units":        {join(ngSection(le, 1, binaryUnits...), ngFrame(le, blockEnhanced, 0, second<<10+512)), 1, ""},
		"big-endian":          {join(ngSection(be, 1, nanos...), ngFrame(be, blockEnhanced, 0, (second-100)*1e9+500e6)), 1, ""},
		"older block":         {join(ngSection(be, 1), ngFrame(be, blockPacket, 0, second*1e6+500_000)), 1, ""},
		"unknown block":       {join(ngSection(le, 1), ngBlock(le, 0x80000001, make([]byte, 4000)), ngFrame(le, blockEnhanced, 0, second*1e6+500_000)), 1, ""},
		"two sections":        {join(ngSection(le, 1), ngFrame(le, blockEnhanced, 0, second*1e6+500_000), ngSection(be, 1, nanos...), ngFrame(be, blockEnhanced, 0, (second-100)*1e9+500e6)), 2, ""},
		"another link type":   {join(ngSection(le, 1), ngFrame(le, blockEnhanced, 0, second*1e6+500_000), ngSection(le, 113), ngFrame(le, blockEnhanced, 0, 0)), 1, "interface 0, which has link type 113; the first has 1"},
		"unused interface":    {join(ngSection(le, 1), ngSection(le, 113), ngSection(le, 1), ngFrame(le, blockEnhanced, 0, second*1e6+500_000)), 1, ""},
		"unknown interface":   {join(ngSection(le, 1), ngFrame(le, blockEnhanced, 1, 0)), 0, "interface 1, and 1 are described"},
		"no interface":        {join(ngSection(le, 1)[:28], ngFrame(le, blockEnhanced, 0, 0)), 0, "and 0 are described"},
		"no time":             {join(ngSection(le, 1), ngBlock(le, blockSimple, make([]byte, 8))), 0, "without a time"},
		"time out of reach":   {join(ngSection(le, 1, 9, 0, 1, 0, 0, 0, 0, 0), ngFrame(le, blockEnhanced, 0, 1<<63)), 0, "after 1970"},
		"unknown resolution":  {ngSection(le, 1, 9, 0, 1, 0, 20, 0, 0, 0), 0, "resolution 0x14"},
		"option cut short":    {ngSection(le, 1, 9, 0, 9, 0, 6, 0, 0, 0), 0, "option 9 is cut short"},
		"block of odd length": {join(ngSection(le, 1), []byte{6, 0, 0, 0, 33, 0, 0, 0}), 0, "a block of 33 bytes"},
		"huge block":          {join(ngSection(le, 1), []byte{6, 0, 0, 0, 0, 0, 0, 0x40}), 0, "at most"},
		"frame beyond block":  {join(ngSection(le, 1), ngBlock(le, blockEnhanced, append(make([]byte, 12), 9, 0, 0, 0, 9, 0, 0, 0))), 0, "room for 0"},
		"no byte order":       {ngBlock(le, blockSection, make([]byte, 16)), 0, "byte order"},
	} {
		r, err := openCapture(file(t, c.b), MaxBytes)
		n := 0
		for err == nil {
			var f frameIn
			if f, err = r.next(); err == nil {
				n++
				if !f.at.Equal(at) || string(f.data) != "\x01\x02\x03\x04" || !f.cut {
					t.Errorf("%s: %+v, want %v", name, f, at)
				}
			}
		}
		if n != c.n || c.want != "" && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %d frames, then %v", name, n, err)
		}
	}
}
