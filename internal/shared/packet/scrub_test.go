package packet

import (
	"bytes"
	"encoding/binary"
	"testing"
)

// scrubbed makes a TCP header with options and data, whose checksum is over a
// pseudo-header of zeros, and returns what ScrubTCP leaves of the options.
func scrubbed(flags byte, opts, data []byte, c *Clock) (out []byte, sumOK bool) {
	for len(opts)%4 != 0 {
		opts = append(opts, 0)
	}
	b := make([]byte, TCPLen)
	b[12], b[13] = byte((TCPLen+len(opts))/4)<<4, flags
	b = append(append(b, opts...), data...)
	binary.BigEndian.PutUint16(b[16:], ^Sum(b, 0))
	ScrubTCP(b, c)
	return b[TCPLen : TCPLen+len(opts)], Sum(b, 0) == 0xffff && bytes.Equal(b[TCPLen+len(opts):], data)
}

// TestScrubTCP: of all options remain those that every end reads alike.
func TestScrubTCP(t *testing.T) {
	for _, c := range []struct {
		what     string
		flags    byte
		in, want []byte
	}{
		{"none", ACK, nil, nil},
		{"a SYN's", SYN, []byte{2, 4, 5, 180, 4, 2, 8, 10, 0, 0, 0, 9, 0, 0, 0, 0, 1, 3, 3, 7}, []byte{2, 4, 5, 180, 4, 2, 8, 10, 0, 0, 0, 9, 0, 0, 0, 0, 1, 3, 3, 7}},
		{"a segment's", ACK, []byte{1, 1, 8, 10, 0, 0, 0, 9, 0, 0, 0, 1}, []byte{1, 1, 8, 10, 0, 0, 0, 9, 0, 0, 0, 1}},
		{"selective acknowledgements", ACK, []byte{1, 1, 5, 10, 1, 2, 3, 4, 5, 6, 7, 8}, []byte{1, 1, 5, 10, 1, 2, 3, 4, 5, 6, 7, 8}},
		{"the same in a SYN", SYN, []byte{1, 1, 5, 10, 1, 2, 3, 4, 5, 6, 7, 8}, bytes.Repeat([]byte{1}, 12)},
		{"one that is none", ACK, []byte{5, 2, 1, 1}, []byte{1, 1, 1, 1}},
		{"of 9 bytes", ACK, []byte{5, 9, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1}, bytes.Repeat([]byte{1}, 12)},
		{"window scale too late", ACK, []byte{3, 3, 7, 1}, []byte{1, 1, 1, 1}},
		{"segment size too late", ACK, []byte{2, 4, 5, 180}, []byte{1, 1, 1, 1}},
		{"all flags but SYN", 0xff &^ SYN, []byte{2, 4, 5, 180, 3, 3, 7, 1}, bytes.Repeat([]byte{1}, 8)},
		{"all flags", 0xff, []byte{2, 4, 5, 180, 3, 3, 7, 1}, []byte{2, 4, 5, 180, 3, 3, 7, 1}},
		{"permission too late", ACK, []byte{4, 2, 1, 1}, []byte{1, 1, 1, 1}},
		{"segment size of 3 bytes", SYN, []byte{2, 3, 5, 0}, []byte{1, 1, 1, 0}},
		{"window scale of 4 bytes", SYN, []byte{3, 4, 5, 5}, []byte{1, 1, 1, 1}},
		{"permission of 3 bytes", SYN, []byte{4, 3, 5, 0}, []byte{1, 1, 1, 0}},
		{"timestamps of 9 bytes", ACK, []byte{8, 9, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0}, []byte{1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0}},
		{"two scales", SYN, []byte{3, 3, 7, 3, 3, 9, 1, 1}, []byte{3, 3, 7, 1, 1, 1, 1, 1}},
		{"two timestamps", ACK, []byte{8, 10, 0, 0, 0, 9, 0, 0, 0, 1, 8, 10, 0, 0, 0, 8, 0, 0, 0, 1}, append([]byte{8, 10, 0, 0, 0, 9, 0, 0, 0, 1}, bytes.Repeat([]byte{1}, 10)...)},
		{"a signature (RFC 2385)", ACK, append([]byte{1, 1, 19, 18}, make([]byte, 16)...), bytes.Repeat([]byte{1}, 20)},
		{"several paths (RFC 8684)", SYN, []byte{30, 12, 0, 129, 1, 2, 3, 4, 5, 6, 7, 8}, bytes.Repeat([]byte{1}, 12)},
		{"fast open (RFC 7413)", SYN, []byte{34, 6, 1, 2, 3, 4, 1, 1}, bytes.Repeat([]byte{1}, 8)},
		{"kind 255", SYN, []byte{255, 4, 1, 2}, []byte{1, 1, 1, 1}},
		{"kind 72, whose low bits are timestamps'", ACK, []byte{72, 10, 0, 0, 0, 9, 0, 0, 0, 1, 1, 1}, bytes.Repeat([]byte{1}, 12)},
		{"behind the end", ACK, []byte{0, 19, 8, 10}, []byte{0, 0, 0, 0}},
		{"behind the end, ones alone", ACK, []byte{1, 0, 255, 255}, []byte{1, 0, 0, 0}},
		{"behind the end, ones at odd places", ACK, []byte{0, 255, 255, 255, 255, 1, 2, 3}, make([]byte, 8)},
		{"length 0", ACK, []byte{1, 8, 0, 9}, []byte{1, 1, 1, 1}},
		{"length 1", ACK, []byte{8, 1, 9, 9}, []byte{1, 1, 1, 1}},
		{"a length beyond the end", ACK, []byte{1, 1, 8, 10}, []byte{1, 1, 1, 1}},
		{"no length", ACK, []byte{1, 1, 1, 8}, []byte{1, 1, 1, 1}},
		{"40 bytes", ACK, bytes.Repeat([]byte{77, 2}, 20), bytes.Repeat([]byte{1}, 40)},
	} {
		got, ok := scrubbed(c.flags, c.in, []byte("data"), new(Clock))
		if !ok || !bytes.Equal(got, c.want) {
			t.Errorf("%s: %v became %v, want %v; checksum and data right: %v", c.what, c.in, got, c.want, ok)
		}
	}
}

// TestScrubTCPLeavesAlone: a segment in which nothing changes stays as it is, in
// whichever of its two forms its checksum is zero.
func TestScrubTCPLeavesAlone(t *testing.T) {
	for _, sum := range []uint16{0, 0xffff, 1} {
		for _, opts := range [][]byte{nil, {1, 1, 1, 1}, {1, 1, 8, 10, 255, 255, 255, 255, 0, 0, 0, 1}} {
			b := append(make([]byte, TCPLen), opts...)
			b[12], b[13] = byte(len(b)/4)<<4, ACK
			binary.BigEndian.PutUint16(b[offTCPSum:], sum)
			want := bytes.Clone(b)
			if ScrubTCP(b, new(Clock)); !bytes.Equal(b, want) {
				t.Errorf("%x became %x", want, b)
			}
		}
	}
}

// TestScrubTCPClock: timestamps do not go back, also where numbers begin again.
func TestScrubTCPClock(t *testing.T) {
	for _, c := range []struct {
		clock    Clock
		in, want uint32
	}{
		{Clock{}, 5, 5}, {Clock{9, true}, 5, 9}, {Clock{9, true}, 9, 9}, {Clock{9, true}, 10, 10}, {Clock{9, false}, 5, 5},
		{Clock{0xfffffff0, true}, 5, 5}, {Clock{5, true}, 0xfffffff0, 5},
	} {
		clock := c.clock
		opts := append(binary.BigEndian.AppendUint32([]byte{1, 1, 8, 10}, c.in), 0, 0, 0, 1)
		got, ok := scrubbed(ACK, opts, []byte{1}, &clock)
		if v := binary.BigEndian.Uint32(got[4:]); !ok || v != c.want || clock != (Clock{c.want, true}) {
			t.Errorf("%+v: %d, %+v", c, v, clock)
		}
	}
}

// TestRaiseTTL: never lower, and with the right checksum.
func TestRaiseTTL(t *testing.T) {
	for _, c := range [][3]uint8{{2, 65, 65}, {64, 65, 65}, {65, 65, 65}, {66, 65, 66}, {255, 65, 255}} {
		f := make([]byte, EthLen+MinIPv4)
		PutIPv4(f[EthLen:], 1, 2, TCP, c[0], 0)
		p := Packet{TTL: c[0], Proto: TCP}
		RaiseTTL(f, &p, c[1])
		if f[EthLen+8] != c[2] || p.TTL != c[2] || Sum(f[EthLen:], 0) != 0xffff {
			t.Errorf("%v: %d, %d", c, f[EthLen+8], p.TTL)
		}
	}
}

// FuzzScrubTCP: whatever the options, the checksum stays right and doing it twice
// is doing it once.
func FuzzScrubTCP(f *testing.F) {
	f.Add(byte(ACK), []byte{1, 1, 8, 10, 0, 0, 0, 9, 0, 0, 0, 1}, uint32(7))
	f.Add(byte(SYN), []byte{2, 4, 5, 180, 3, 0}, uint32(7))
	for i, o := range hostileOptions() {
		f.Add([]byte{SYN, ACK}[i%2], o, uint32(i))
	}
	f.Fuzz(func(t *testing.T, flags byte, opts []byte, newest uint32) {
		opts = opts[:min(len(opts), 40)]
		c := Clock{newest, newest&1 != 0}
		once, ok := scrubbed(flags, opts, []byte("data"), &c)
		twice, ok2 := scrubbed(flags, bytes.Clone(once), []byte("data"), &c)
		if !ok || !ok2 || !bytes.Equal(once, twice) {
			t.Fatalf("%v became %v, then %v; checksums: %v, %v", opts, once, twice, ok, ok2)
		}
	})
}
