package vhostuser

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The front end's memory lies at deviceBase for the device, in pages of devicePage.
const (
	deviceBase = 0x40000000
	devicePage = 0x10000
)

// iotlbMessage is one of the monitor's.
func iotlbMessage(kind uint8, from, size, user uint64, may uint8) []byte {
	b := slices.Concat(u64(from), u64(size), u64(user), make([]byte, 8))
	b[24], b[25] = may, kind
	return b
}

// translated serves an echo device behind an IOMMU that lets it do what may says of the page
// at an offset, 0 for nothing. Ring 0 is set, and asked for by the device as needed. Its
// requests are returned.
func translated(t *testing.T, may func(off uint64) uint8) (f *front, e *echo, done chan error, misses chan uint64) {
	t.Helper()
	a, back := pair(t)
	e, done, misses = newEcho(), make(chan error, 1), make(chan uint64, 100)
	go func() { done <- Serve(back, Device{Features: FeatureVersion1, Queues: 1, Translated: true}, e) }()
	f = newFront(t, a, 8)
	if v := binary.LittleEndian.Uint64(f.ask(reqGetFeatures, nil)); v&FeaturePlatform == 0 {
		t.Fatalf("features %#x", v)
	}
	v := binary.LittleEndian.Uint64(f.ask(reqGetProtoFeatures, nil))
	if v&protoBackRequests == 0 {
		t.Fatalf("protocol features %#x", v)
	}
	f.send(reqSetProtoFeatures, u64(v))
	ours, theirs := pair(t)
	file, err := theirs.File()
	if err != nil {
		t.Fatal(err)
	}
	f.send(reqSetBackRequests, nil, int(file.Fd()))
	file.Close()
	theirs.Close()
	go answer(f, ours, may, misses)
	f.kick, f.call = eventfd(t), eventfd(t)
	f.send(reqSetFeatures, u64(FeatureVersion1|FeaturePlatform|featProtocol))
	f.send(reqSetMemTable, memTable(memSize), f.fd)
	f.send(reqSetVringNum, pairOf(0, uint32(f.size)))
	f.send(reqSetVringBase, pairOf(0, 0))
	f.send(reqSetVringCall, u64(0), raw(t, f.call))
	f.send(reqSetVringKick, u64(0), raw(t, f.kick))
	f.send(reqSetVringAddr, slices.Concat(pairOf(0, 0), u64(deviceBase+descOff), u64(deviceBase+usedOff), u64(deviceBase+availOff), u64(0)))
	f.send(reqSetVringEnable, pairOf(0, 1))
	return f, e, done, misses
}

// answer is the monitor's side of the channel on which the device asks.
func answer(f *front, c *net.UnixConn, may func(off uint64) uint8, misses chan uint64) {
	for {
		var b [headerLen + iotlbBytes]byte
		if _, err := io.ReadFull(c, b[:]); err != nil {
			return
		}
		at, allow := binary.LittleEndian.Uint64(b[headerLen:]), b[headerLen+24]
		if binary.LittleEndian.Uint32(b[:]) != reqBackIOTLB || b[headerLen+25] != iotlbMiss {
			return
		}
		misses <- at
		if off := (at - deviceBase) &^ (devicePage - 1); off < memSize && may(off)&allow == allow {
			le := binary.LittleEndian
			m := le.AppendUint32(le.AppendUint32(le.AppendUint32(nil, reqIOTLB), flagVersion), iotlbBytes)
			f.c.Write(append(m, iotlbMessage(iotlbUpdate, deviceBase+off, devicePage, userBase+off, may(off))...)) //nolint:errcheck // the session may have ended
		}
	}
}

// all lets the device do everything.
func all(uint64) uint8 { return mayRead | mayWrite }

// TestTranslated: a device behind an IOMMU asks for what it needs, each once, and works on
// buffers that lie across pages.
func TestTranslated(t *testing.T) {
	f, _, done, misses := translated(t, all)
	text := bytes.Repeat([]byte("over the edge "), 40)
	const out, in = bufBase + devicePage - 100, bufBase + 5*devicePage - 7
	copy(f.mem[out:], text)
	f.describe(0, deviceBase+out, uint32(len(text)), descNext, 1)
	f.describe(1, deviceBase+in, uint32(len(text)), descWrite, 0)
	for range 3 {
		clear(f.mem[in : in+len(text)])
		f.offer(0)
		f.ring()
		if _, n := f.await(); int(n) != len(text) || !bytes.Equal(f.mem[in:in+len(text)], text) {
			t.Fatalf("%d bytes: %.40q", n, f.mem[in:in+len(text)])
		}
	}
	var asked []uint64
	for len(misses) > 0 {
		asked = append(asked, <-misses&^(devicePage-1)-deviceBase)
	}
	slices.Sort(asked)
	if n := len(asked); n > 8 { // one for each page, but those that two parts of the ring ask for at once
		t.Errorf("%d requests: %#x", n, asked)
	}
	// What is taken back is asked for again.
	f.send(reqIOTLB, iotlbMessage(iotlbInvalidate, deviceBase, memSize, 0, 0))
	f.offer(0)
	f.ring()
	f.await()
	if len(misses) == 0 {
		t.Error("nothing was asked for again")
	}
	f.c.Close()
	if err := within(t, done); err != nil {
		t.Error(err)
	}
}

// TestNotTranslated: what the IOMMU does not allow is not read and not written, and ends the
// ring; a ring where it allows nothing does not start.
func TestNotTranslated(t *testing.T) {
	const secret = bufBase + 3*devicePage
	for name, c := range map[string]struct {
		may  uint8 // of the page
		read bool
	}{"read nothing": {0, true}, "write nothing": {0, false}, "write what may be read": {mayRead, false}, "read what may be written": {mayWrite, true}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f, e, _, _ := translated(t, func(off uint64) uint8 {
				if off == secret {
					return c.may
				}
				return mayRead | mayWrite
			})
			copy(f.mem[secret:], "secret")
			copy(f.mem[bufBase:], "public")
			from, to := uint64(bufBase), uint64(secret)
			if c.read {
				from, to = to, from
			}
			// The legitimate twin first.
			f.describe(0, deviceBase+bufBase, 6, descNext, 1)
			f.describe(1, deviceBase+bufBase+100, 6, descWrite, 0)
			f.describe(2, deviceBase+from, 6, descNext, 3)
			f.describe(3, deviceBase+to, 6, descWrite, 0)
			f.offer(0)
			f.ring()
			f.await()
			f.offer(2)
			f.ring()
			select {
			case err := <-e.err:
				if !strings.Contains(err.Error(), "the IOMMU does not let the device reach") {
					t.Error(err)
				}
			case <-time.After(10 * time.Second):
				t.Error("the ring goes on")
			}
			if string(f.mem[secret:secret+6]) != "secret" || string(f.mem[bufBase:bufBase+6]) != "public" {
				t.Errorf("%q, %q", f.mem[secret:secret+6], f.mem[bufBase:bufBase+6])
			}
		})
	}
	t.Run("a ring", func(t *testing.T) {
		t.Parallel()
		f, e, done, misses := translated(t, func(off uint64) uint8 {
			if off == usedOff&^(devicePage-1) {
				return mayRead
			}
			return mayRead | mayWrite
		})
		<-misses
		f.ask(reqGetVringBase, pairOf(0, 0))
		f.c.Close()
		if err := within(t, done); err != nil || e.runs != 0 {
			t.Errorf("%v; the ring ran %d times", err, e.runs)
		}
	})
}

// TestIOTLBMessages: what a monitor may say about translations, and what ends the session.
func TestIOTLBMessages(t *testing.T) {
	for name, c := range map[string]struct {
		payload []byte
		want    string // in the error; "": none
	}{
		"of no size":      {iotlbMessage(iotlbUpdate, 1, 0, 1, 3), "a translation of 0 bytes"},
		"round the end":   {iotlbMessage(iotlbUpdate, ^uint64(0)-10, 12, 1, 3), "a translation of 12 bytes"},
		"up to the end":   {iotlbMessage(iotlbUpdate, ^uint64(0)-10, 11, 1, 3), ""},
		"to nowhere":      {iotlbMessage(iotlbUpdate, 0, 12, ^uint64(0)-10, 3), "a translation of 12 bytes"},
		"taken back":      {iotlbMessage(iotlbInvalidate, 0, ^uint64(0), 0, 0), ""},
		"taken from none": {iotlbMessage(iotlbInvalidate, ^uint64(0), 0, 0, 0), ""},
		"a miss":          {iotlbMessage(iotlbMiss, 0, 1, 0, 3), "an IOTLB message of kind 1"},
		"cut":             {iotlbMessage(iotlbUpdate, 0, 1, 0, 3)[:25], "has only 25 bytes"},
	} {
		f, _, done, _ := translated(t, all)
		f.send(reqIOTLB, c.payload)
		if c.want == "" {
			f.ask(reqGetQueueNum, nil)
			f.c.Close()
		}
		if err := within(t, done); c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Without an IOMMU there is nothing of this.
	f, _, done := serve(t, 8)
	f.send(reqIOTLB, iotlbMessage(iotlbUpdate, 0, 1, 0, 3))
	if err := within(t, done); err == nil || !strings.Contains(err.Error(), "was not offered") {
		t.Error(err)
	}
	f, _, done = serve(t, 8)
	f.send(reqSetBackRequests, nil, f.fd)
	if err := within(t, done); err == nil || !strings.Contains(err.Error(), "was not offered") {
		t.Error(err)
	}
}

// TestRequestChannel: only a Unix socket is one.
func TestRequestChannel(t *testing.T) {
	file, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	for name, fds := range map[string][]int{"none": nil, "a file": {int(file.Fd())}, "a socket of IP": {fd}} {
		f, _, done, _ := translated(t, all)
		f.send(reqSetBackRequests, nil, fds...)
		if err := within(t, done); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// TestEntries: translations are found by each of their addresses and no other, and a newer one
// takes the place of those that it overlaps.
func TestEntries(t *testing.T) {
	tlb := newIOTLB()
	for _, e := range []entry{{0x3000, 0x1000, 0x93000, 3}, {0x1000, 0x1000, 0x91000, 3}, {0x2000, 0x1000, 0x92000, 1}, {0x5000, 0x1000, 0xa0000, 3}, {0x6000, 0x1000, 0xb0000, 3},
		{^uint64(0) - 0xfff, 0x1000, 0xc0000, 3}} {
		if err := tlb.add(e); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		at   uint64
		n    int
		may  uint8
		user uint64 // 0: none
		miss uint64
	}{
		{0x1000, 1, 3, 0x91000, 0}, {0xfff, 1, 1, 0, 0xfff}, {0x1fff, 1, 2, 0x91fff, 0}, {0x1fff, 2, 1, 0x91fff, 0}, {0x1fff, 2, 2, 0, 0x2000}, {0x1000, 0x3000, 1, 0x91000, 0},
		{0x1000, 0x3001, 1, 0, 0x4000}, {0x4000, 0, 1, 0, 0x4000}, {0x5000, 0, 1, 0xa0000, 0}, {0x5fff, 2, 1, 0, 0x6000}, {0x6000, 0x1000, 3, 0xb0000, 0}, {0x7000, 1, 1, 0, 0x7000},
		{^uint64(0), 1, 1, 0, ^uint64(0)}, {^uint64(0) - 0xfff, 0xfff, 3, 0xc0000, 0}, {^uint64(0), 2, 1, 0, ^uint64(0)},
	} {
		if user, miss, ok := tlb.find(c.at, c.n, c.may); ok != (c.user != 0) || ok && user != c.user || !ok && miss != c.miss {
			t.Errorf("%d bytes at %#x for %d: %#x, %#x, %v", c.n, c.at, c.may, user, miss, ok)
		}
	}
	if err := tlb.add(entry{0x1800, 0x1000, 0xd0000, 3}); err != nil {
		t.Fatal(err)
	}
	for at, want := range map[uint64]uint64{0x17ff: 0, 0x1800: 0xd0000, 0x27ff: 0xd0fff, 0x2800: 0, 0x3000: 0x93000} {
		if user, _, ok := tlb.find(at, 1, 1); ok != (want != 0) || ok && user != want {
			t.Errorf("%#x: %#x, %v", at, user, ok)
		}
	}
	for i := range maxEntries - len(tlb.entries) {
		if err := tlb.add(entry{1<<32 + uint64(i)<<12, 0x1000, 0x1000, 3}); err != nil {
			t.Fatal(err)
		}
	}
	if err := tlb.add(entry{1 << 50, 0x1000, 0x1000, 3}); err == nil {
		t.Error("translations without bound")
	}
	if err := tlb.add(entry{1 << 32, 0x1000, 0x2000, 3}); err != nil {
		t.Error("one in place of another:", err)
	}
}
