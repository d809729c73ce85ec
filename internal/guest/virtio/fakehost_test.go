package virtio

import (
	"encoding/binary"
	"testing"
)

// A fakeHost is a socket device in memory, and the host behind it: it counts the bytes sent
// and checks every packet of the driver.
type fakeHost struct {
	*fakeNet
	t     testing.TB
	room  uint32 // buf_alloc for the driver
	got   []byte // data
	taken uint32 // fwd_cnt for the driver
	last  vsockPacket
	local uint32
	ops   map[uint16]int
	v     *Vsock
}

type vsockPacket struct {
	src, dst         uint64
	srcPort, dstPort uint32
	n                uint32
	typ, op          uint16
	flags            uint32
	alloc, fwd       uint32
}

const guestCID, hostPort = 7, 9000

func (p vsockPacket) bytes(data []byte) []byte {
	h := make([]byte, vsockHeader, vsockHeader+len(data))
	le := binary.LittleEndian
	le.PutUint64(h[0:], p.src)
	le.PutUint64(h[8:], p.dst)
	le.PutUint32(h[16:], p.srcPort)
	le.PutUint32(h[20:], p.dstPort)
	le.PutUint32(h[24:], p.n)
	le.PutUint16(h[28:], p.typ)
	le.PutUint16(h[30:], p.op)
	le.PutUint32(h[32:], p.flags)
	le.PutUint32(h[36:], p.alloc)
	le.PutUint32(h[40:], p.fwd)
	return append(h, data...)
}

func parseVsock(h []byte) vsockPacket {
	le := binary.LittleEndian
	return vsockPacket{le.Uint64(h[0:]), le.Uint64(h[8:]), le.Uint32(h[16:]), le.Uint32(h[20:]), le.Uint32(h[24:]),
		le.Uint16(h[28:]), le.Uint16(h[30:]), le.Uint32(h[32:]), le.Uint32(h[36:]), le.Uint32(h[40:])}
}

func newHost(t testing.TB, features uint64) (*fakeHost, *Vsock) {
	d := newFake(features)
	d.id, d.queues, d.cid = vsockID, 3, guestCID
	h := &fakeHost{fakeNet: d, t: t, room: 65536, ops: map[uint16]int{}}
	v, err := OpenVsock(NewMMIO(d), d.alloc, 5000)
	if err != nil {
		t.Fatal(err)
	}
	h.rules()
	return h, v
}

func (h *fakeHost) rules() {
	h.t.Helper()
	if len(h.broken) > 0 {
		h.t.Fatalf("the driver broke the device's rules: %v", h.broken)
	}
}

// run takes what the driver has sent.
func (h *fakeHost) run() {
	for {
		id, b, write, ok := h.next(vsockTx)
		if !ok {
			return
		}
		if write || len(b) < vsockHeader {
			h.t.Fatalf("transmit buffer of %d bytes, writable %v", len(b), write)
		}
		p := parseVsock(b)
		if p.src != h.cid || p.dst != HostCID || p.typ != vsockStream || int(p.n) != len(b)-vsockHeader || p.op == 0 || p.op > vopCreditRequest || p.op != vopRW && p.n != 0 {
			h.t.Fatalf("the driver sent %+v with %d bytes", p, len(b)-vsockHeader)
		}
		h.ops[p.op]++
		h.last = p
		switch p.op {
		case vopRequest:
			h.local, h.got, h.taken = p.srcPort, nil, 0
			if p.dstPort != hostPort || p.alloc == 0 {
				h.t.Fatalf("request %+v", p)
			}
		case vopRW:
			h.got = append(h.got, b[vsockHeader:]...)
		}
		h.done(vsockTx, uint32(id), 0)
	}
}

// put delivers bytes as they are; false when no buffer is posted.
func (h *fakeHost) put(b []byte) bool {
	id, buf, write, ok := h.next(vsockRx)
	if !ok {
		return false
	}
	if !write {
		h.t.Fatal("receive buffer is not writable")
	}
	n := copy(buf, b)
	h.done(vsockRx, uint32(id), uint32(n))
	return true
}

// say sends a packet on the connection.
func (h *fakeHost) say(op uint16, flags uint32, data []byte) {
	h.t.Helper()
	if !h.put(vsockPacket{HostCID, h.cid, hostPort, h.local, uint32(len(data)), vsockStream, op, flags, h.room, h.taken}.bytes(data)) {
		h.t.Fatal("no receive buffer")
	}
}

// connect establishes a connection.
func connect(h *fakeHost, v *Vsock) {
	h.t.Helper()
	v.Connect(hostPort)
	v.Flush()
	h.run()
	if v.State() != Connecting || h.last.op != vopRequest {
		h.t.Fatalf("state %d after %+v", v.State(), h.last)
	}
	h.say(vopResponse, 0, nil)
	v.Poll()
	if v.State() != Open {
		h.t.Fatalf("state %d after the response", v.State())
	}
}

// send writes as much of b as there is room for.
func send(v *Vsock, b []byte) int {
	n := 0
	for n < len(b) {
		room := v.Buffer()
		if room == nil {
			break
		}
		k := copy(room, b[n:])
		v.Send(k)
		n += k
	}
	v.Flush()
	return n
}
