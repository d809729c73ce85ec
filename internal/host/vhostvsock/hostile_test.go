package vhostvsock

import (
	"encoding/binary"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/thurward/thurward/internal/guest/virtio"
)

// A rogue is a guest that writes anything into its rings.
type rogue struct {
	*machine
	avail [2]uint16
	at    int // next free byte of its memory
}

const rogueRing = 64

// newRogue brings up both rings by hand.
func newRogue(t testing.TB, path string) *rogue {
	m := newMachine(t, path)
	m.driver = m.features & (1 << 32) // without event indexes
	for i := range 2 {
		base := uint64(guestBase + 0x10000*(i+1))
		m.q[i] = ringRegs{num: rogueRing, ready: 1, desc: base, avail: base + 0x4000, used: base + 0x8000}
	}
	m.start()
	return &rogue{machine: m, at: memSize / 2}
}

func (r *rogue) memory(a uint64) []byte { return r.mem[a-guestBase:] }

// room returns n bytes of memory that nothing else uses, and their address.
func (r *rogue) room(n int) ([]byte, uint64) {
	if r.at+n > memSize {
		r.at = memSize / 2
	}
	b := r.mem[r.at : r.at+n]
	a := uint64(guestBase + r.at)
	r.at += (n + 15) &^ 15
	return b, a
}

func (r *rogue) describe(ring, i int, addr uint64, n uint32, flags, next uint16) {
	d := r.memory(r.q[ring].desc)[16*i:]
	binary.LittleEndian.PutUint64(d, addr)
	binary.LittleEndian.PutUint32(d[8:], n)
	binary.LittleEndian.PutUint16(d[12:], flags)
	binary.LittleEndian.PutUint16(d[14:], next)
}

// offer makes a chain available and kicks.
func (r *rogue) offer(ring int, head uint16) {
	a := r.memory(r.q[ring].avail)
	binary.LittleEndian.PutUint16(a[4+2*(int(r.avail[ring])%rogueRing):], head)
	r.avail[ring]++
	r.setAvail(ring, r.avail[ring])
}

func (r *rogue) setAvail(ring int, v uint16) {
	atomic.StoreUint32((*uint32)(unsafe.Pointer(&r.memory(r.q[ring].avail)[0])), uint32(v)<<16)
	r.q[ring].kick.Write(words(1))
}

// say sends a packet in one buffer.
func (r *rogue) say(h header, data []byte) {
	r.t.Helper()
	b, a := r.room(headerLen + len(data))
	p := h.bytes()
	copy(b, p[:])
	copy(b[headerLen:], data)
	r.describe(ringTx, int(r.avail[ringTx])%rogueRing, a, uint32(len(b)), 0, 0)
	r.offer(ringTx, r.avail[ringTx]%rogueRing)
	r.settle(ringTx)
}

// settle waits until the device has taken what was offered.
func (r *rogue) settle(ring int) {
	r.t.Helper()
	for end := time.Now().Add(5 * time.Second); r.usedIndex(ring) != r.avail[ring]; time.Sleep(100 * time.Microsecond) {
		if time.Now().After(end) {
			r.t.Fatal("the device takes nothing")
		}
	}
}

func (r *rogue) usedIndex(ring int) uint16 {
	return uint16(atomic.LoadUint32((*uint32)(unsafe.Pointer(&r.memory(r.q[ring].used)[0]))) >> 16)
}

// hear adds a buffer and returns the packet that arrives in it.
func (r *rogue) hear() (header, []byte) {
	r.t.Helper()
	b, a := r.room(4096)
	i := r.avail[ringRx] % rogueRing
	r.describe(ringRx, int(i), a, uint32(len(b)), 2, 0)
	r.offer(ringRx, i)
	r.settle(ringRx)
	return parseHeader((*[headerLen]byte)(b)), b[headerLen:]
}

func fromGuest(op uint16, n int) header {
	return header{src: cid, dst: hostCID, srcPort: 1, dstPort: 9000, len: uint32(n), typ: typeStream, op: op, alloc: 4096}
}

// request opens connection number n and returns the answer.
func (r *rogue) request(n uint32) header {
	h := fromGuest(opRequest, 0)
	h.srcPort = n
	r.say(h, nil)
	got, _ := r.hear()
	return got
}

// TestGuestSendsWhatItMustNot: invalid packets are counted or refused, and an honest
// connection still works.
func TestGuestSendsWhatItMustNot(t *testing.T) {
	path, l := listen(t)
	r := newRogue(t, path)
	if h := r.request(1); h.op != opResponse || h.src != hostCID || h.dst != cid || h.srcPort != 9000 || h.dstPort != 1 || h.alloc != bufAlloc {
		t.Fatalf("%+v", h)
	}
	c := accept(t, l)
	for name, h := range map[string]header{
		"another's address": {src: 9, dst: hostCID, srcPort: 1, dstPort: 9000, typ: typeStream, op: opRW},
		"to another guest":  {src: cid, dst: 4, srcPort: 1, dstPort: 9000, typ: typeStream, op: opRequest},
		"no operation":      {src: cid, dst: hostCID, srcPort: 1, dstPort: 9000, typ: typeStream},
		"unknown operation": {src: cid, dst: hostCID, srcPort: 1, dstPort: 9000, typ: typeStream, op: 99},
		"a length":          {src: cid, dst: hostCID, srcPort: 1, dstPort: 9000, typ: typeStream, op: opRW, len: 1 << 31},
	} {
		n := r.counts.BadPackets.Load()
		r.say(h, []byte("data"))
		if r.counts.BadPackets.Load() != n+1 {
			t.Errorf("%s: not counted", name)
		}
	}
	r.say(fromGuest(opRW, 5), []byte("hello"))
	b := make([]byte, 5)
	if _, err := c.Read(b); err != nil || string(b) != "hello" {
		t.Fatalf("%q, %v", b, err)
	}
	// A datagram, and data for nobody, are refused.
	d := fromGuest(opRW, 0)
	d.typ = 3
	r.say(d, nil)
	if h, _ := r.hear(); h.op != opRST {
		t.Errorf("a datagram: %+v", h)
	}
	d = fromGuest(opRW, 0)
	d.srcPort = 77
	r.say(d, nil)
	if h, _ := r.hear(); h.op != opRST || h.dstPort != 77 {
		t.Errorf("data for nobody: %+v", h)
	}
	d.op = opRST // not answered
	r.say(d, nil)
	// Nobody listens there.
	h := fromGuest(opRequest, 0)
	h.dstPort = 22
	r.say(h, nil)
	if h, _ := r.hear(); h.op != opRST || h.srcPort != 22 {
		t.Errorf("a port without a socket: %+v", h)
	}
}

// TestGuestOverruns: data beyond the credit ends the connection, and is not kept.
func TestGuestOverruns(t *testing.T) {
	path, l := listen(t)
	r := newRogue(t, path)
	r.request(1)
	accept(t, l)
	chunk := make([]byte, 64<<10)
	for range 100 {
		r.say(fromGuest(opRW, len(chunk)), chunk)
		if r.counts.Overruns.Load() > 0 {
			break
		}
	}
	if r.counts.Overruns.Load() != 1 {
		t.Fatal("6 MB went to a reader that takes nothing")
	}
	for {
		if h, _ := r.hear(); h.op == opRST {
			break
		}
	}
}

// TestGuestOpensMany: connections are bounded.
func TestGuestOpensMany(t *testing.T) {
	path, l := listen(t)
	go func() {
		for {
			if _, err := l.Accept(); err != nil { // kept open
				return
			}
		}
	}()
	r := newRogue(t, path)
	made := 0
	for n := range uint32(2 * maxConns) {
		if r.request(n).op == opResponse {
			made++
		}
	}
	if made != maxConns {
		t.Errorf("%d connections, at most %d are to be", made, maxConns)
	}
}

// TestGuestTakesNothing: packets for a guest without buffers are bounded.
func TestGuestTakesNothing(t *testing.T) {
	r := newRogue(t, filepath.Join(t.TempDir(), "v"))
	for n := range uint32(maxOut + 100) {
		h := fromGuest(opRW, 0)
		h.srcPort = n
		r.say(h, nil)
	}
	if n := r.counts.Dropped.Load(); n != 100 {
		t.Errorf("%d answers dropped", n)
	}
}

// TestGuestBreaksItsRings: the device ends and the process does not.
func TestGuestBreaksItsRings(t *testing.T) {
	for name, breakIt := range map[string]func(r *rogue){
		"index":          func(r *rogue) { r.setAvail(ringTx, 5000) },
		"descriptor":     func(r *rogue) { r.offer(ringTx, 5000) },
		"outside":        func(r *rogue) { r.describe(ringTx, 0, 1<<60, 100, 0, 0); r.offer(ringTx, 0) },
		"around":         func(r *rogue) { r.describe(ringTx, 0, ^uint64(0)-10, 100, 0, 0); r.offer(ringTx, 0) },
		"across the end": func(r *rogue) { r.describe(ringTx, 0, guestBase+memSize-10, 100, 0, 0); r.offer(ringTx, 0) },
		"loop":           func(r *rogue) { r.describe(ringTx, 0, guestBase, 1, 1, 0); r.offer(ringTx, 0) },
		"small for us": func(r *rogue) {
			r.describe(ringRx, 0, guestBase, 10, 2, 0)
			r.offer(ringRx, 0)
			r.say(fromGuest(opRW, 0), nil)
		},
		"its own rings":   func(r *rogue) { r.describe(ringTx, 0, r.q[ringTx].used, 4096, 2, 0); r.offer(ringTx, 0) },
		"nothing to read": func(r *rogue) { r.describe(ringTx, 0, guestBase, 0, 0, 0); r.offer(ringTx, 0) },
	} {
		r := newRogue(t, filepath.Join(t.TempDir(), "v"))
		breakIt(r)
		time.Sleep(5 * time.Millisecond)
		r.end()
		if err := <-r.served; err != nil {
			t.Errorf("%s: %v", name, err)
		} else {
			r.served <- nil
		}
	}
}

// TestRingsLaidOverEachOther: with each ring's answers at the place of the other's
// requests a guest would keep the device busy for ever. The machine gets an answer, or
// the end of the connection.
func TestRingsLaidOverEachOther(t *testing.T) {
	for name, lay := range map[string]func(q *[3]ringRegs){
		"crossed": func(q *[3]ringRegs) { q[ringRx].used, q[ringTx].used = q[ringTx].avail, q[ringRx].avail },
		"itself":  func(q *[3]ringRegs) { q[ringTx].used = q[ringTx].avail },
	} {
		m := newMachine(t, filepath.Join(t.TempDir(), "v"))
		m.driver = m.features & (1 << 32)
		for i := range 2 {
			base := uint64(guestBase + 0x10000*(i+1))
			m.q[i] = ringRegs{num: rogueRing, ready: 1, desc: base, avail: base + 0x4000, used: base + 0x8000}
		}
		lay(&m.q)
		r := &rogue{machine: m, at: memSize / 2}
		for i := range rogueRing { // whatever head comes, there is a packet that wants an answer
			b, a := r.room(headerLen)
			h := fromGuest(opRW, 0)
			p := h.bytes()
			copy(b, p[:])
			r.describe(ringTx, i, a, headerLen, 0, 0)
			_, a = r.room(4096)
			r.describe(ringRx, i, a, 4096, 2, 0)
		}
		func() {
			defer func() { recover() }() //nolint:errcheck // the session may end before all is said
			m.t = over{m.t}
			for i := range 2 { // each index begins ahead of what has been taken, and stays so
				binary.LittleEndian.PutUint16(r.memory(m.q[i].avail)[2:], 8)
			}
			m.start()
			m.q[ringTx].kick.Write(words(1))
			time.Sleep(20 * time.Millisecond)
			began := time.Now()
			m.ask(11, words(ringTx)) // GET_VRING_BASE, as at a reset
			if d := time.Since(began); d > 3*time.Second {
				t.Errorf("%s: the monitor waited %v", name, d)
			}
		}()
		m.t = t
		m.end()
	}
}

// over makes failures of a machine whose device has ended end the attack only.
type over struct{ testing.TB }

func (over) Fatal(...any)          { panic("over") }
func (over) Fatalf(string, ...any) { panic("over") }

// TestMemoryCutShort: the device ends with its connections, and the process does not.
func TestMemoryCutShort(t *testing.T) {
	path, l := listen(t)
	r := newRogue(t, path)
	r.request(1)
	c := accept(t, l)
	if err := unix.Ftruncate(r.fd, 0); err != nil {
		t.Fatal(err)
	}
	r.q[ringTx].kick.Write(words(1))
	c.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := c.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the reader sees %v", err)
	}
	// From the side of a connection, too: what it has to tell the guest goes
	// into memory that is not there.
	r = newRogue(t, path)
	r.request(1)
	c = accept(t, l)
	if err := unix.Ftruncate(r.fd, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	time.Sleep(20 * time.Millisecond)
	r.end()
}

// TestGuestForgetsManyConnections: a guest that resets connections whose readers do not
// read, and opens others, uses no more sockets and memory of the host than with open
// connections.
func TestGuestForgetsManyConnections(t *testing.T) {
	path, l := listen(t)
	go func() {
		for {
			if _, err := l.Accept(); err != nil { // kept open, and never read
				return
			}
		}
	}()
	r := newRogue(t, path)
	chunk := make([]byte, 60<<10)
	before := files(t)
	most := 0
	for n := range uint32(4 * maxConns) {
		h := r.request(n)
		for h.dstPort != n {
			h, _ = r.hear()
		}
		if h.op == opResponse {
			for range 2 {
				h := fromGuest(opRW, len(chunk))
				h.srcPort = n
				r.say(h, chunk)
			}
		}
		h = fromGuest(opRST, 0)
		h.srcPort = n
		r.say(h, nil)
		most = max(most, files(t)-before)
	}
	if most > 2*maxConns+8 { // both ends are in this process
		t.Errorf("%d descriptors", most)
	}
	time.Sleep(drain + 200*time.Millisecond)
	h := r.request(9999)
	for h.dstPort != 9999 { // what was still to be said to others
		h, _ = r.hear()
	}
	if h.op != opResponse {
		t.Errorf("afterwards a connection is refused: %+v", h)
	}
}

func files(t *testing.T) int {
	t.Helper()
	d, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip(err)
	}
	return len(d)
}

// FuzzGuest: with any rings and packets of a guest the device does not panic, and ends
// with its machine.
func FuzzGuest(f *testing.F) {
	f.Add([]byte{0, 1, 0, 0, 1, 0, 0, 0, 2, 5, 5, 5, 3, 1, 2, 3})
	f.Add([]byte{0, 5, 9, 200, 4, 0, 1, 0, 4, 0, 1, 1, 0, 4, 3, 0})
	f.Fuzz(func(t *testing.T, in []byte) {
		path := filepath.Join(t.TempDir(), "v")
		ln, err := net.Listen("unix", path+"_9000")
		if err != nil {
			t.Skip(err)
		}
		defer ln.Close()
		go func() {
			for {
				c, err := ln.Accept()
				if err != nil {
					return
				}
				go func() {
					c.Write(make([]byte, 3000))
					c.Read(make([]byte, 100))
					c.Close()
				}()
			}
		}()
		r := newRogue(t, path)
		for ; len(in) >= 4; in = in[4:] {
			a, b, c := in[1], in[2], in[3]
			switch in[0] % 8 {
			case 0: // an honest header with odd parts
				h := fromGuest(uint16(a%9), int(c))
				h.srcPort, h.fwd, h.flags, h.alloc = uint32(b%4), uint32(b)<<(c%28), uint32(a), uint32(c)<<8
				buf, addr := r.room(headerLen + int(c))
				p := h.bytes()
				copy(buf, p[:])
				i := int(r.avail[ringTx]) % rogueRing
				r.describe(ringTx, i, addr, uint32(len(buf)), 0, 0)
				r.offer(ringTx, uint16(i))
			case 1:
				buf, addr := r.room(int(b) * 16)
				copy(buf, in)
				i := int(r.avail[ringTx]) % rogueRing
				r.describe(ringTx, i, addr, uint32(len(buf)), uint16(c)&3, uint16(a)%rogueRing)
				r.offer(ringTx, uint16(i))
			case 2:
				r.describe(int(a)&1, int(b)%rogueRing, guestBase+uint64(c)<<16, uint32(a)<<(b%24), uint16(c), uint16(b))
			case 3:
				r.offer(int(a)&1, uint16(b))
			case 4: // a buffer to receive into
				_, addr := r.room(int(a)*4 + 1)
				i := int(r.avail[ringRx]) % rogueRing
				r.describe(ringRx, i, addr, uint32(a)*4+1, 2, 0)
				r.offer(ringRx, uint16(i))
			case 5:
				r.setAvail(int(a)&1, uint16(b)|uint16(c)<<8)
			case 6:
				time.Sleep(time.Duration(a%4) * 100 * time.Microsecond)
			case 7: // its memory changes under the device
				copy(r.mem[int(b)<<12:], in)
			}
		}
		r.end()
	})
}

var _ virtio.Registers = (*machine)(nil)
