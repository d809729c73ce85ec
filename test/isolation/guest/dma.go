package main

import (
	"errors"
	"fmt"
	"unsafe"

	"github.com/thurward/thurward/internal/guest/sys"
)

// virtio device types.
const (
	netID   = 1
	rngID   = 4
	vsockID = 19
)

// deviceMemory is what devices reach. It is taken before the machine is sealed.
var deviceMemory struct {
	mem  []byte
	phys uint64
}

// privateMemory is what no device reaches where an IOMMU bounds them.
var privateMemory []byte

func takeDeviceMemory() {
	d := &deviceMemory
	var err error
	if d.mem, d.phys, err = sys.DMA(64*page, true); err != nil {
		panic(err)
	}
	if privateMemory, err = sys.Memory(page, true); err != nil {
		panic(err)
	}
	copy(privateMemory, "what no device may read")
}

// A word of a queue's page: the rings, and room for buffers.
const (
	descAt   = 0
	availAt  = 256
	usedAt   = 512
	bufferAt = 1024
	ringSize = 8
)

// A driver is hostile code's way to a device, on MMIO or PCI (virtio 1.2, 4.1.4.3, 4.2.2).
type driver struct {
	r    sys.Registers
	pci  bool
	bell sys.Registers
	step uint32
	q    [2]ring
}

// A ring is a queue, in a page of its own.
type ring struct {
	mem  unsafe.Pointer
	phys uint64
	bell uint32
	used uint16
}

// A buffer of a request.
type buffer struct {
	phys  uint64
	n     uint32
	write bool // the device writes it
}

func (q *ring) half(off uintptr) *uint16 { return (*uint16)(unsafe.Add(q.mem, off)) }
func (q *ring) quad(off uintptr) *uint64 { return (*uint64)(unsafe.Add(q.mem, off)) }

// bytes returns n bytes of the page, and where devices see them.
func (q *ring) bytes(off, n int) ([]byte, uint64) {
	return unsafe.Slice((*byte)(unsafe.Add(q.mem, off)), n), q.phys + uint64(off)
}

// open takes over device number n of a type, with so many queues. used is where the device
// writes the used ring of its last queue; 0: in the queue's page.
func open(id uint32, n, queues int, used uint64) (*driver, error) {
	ds := sys.Devices(id)
	if n >= len(ds) {
		return nil, errors.New("there is no such device")
	}
	d := &driver{r: sys.NewRegisters(ds[n].Registers), pci: ds[n].Notify != nil}
	if d.pci {
		d.bell, d.step = sys.NewRegisters(ds[n].Notify), ds[n].Multiplier
	}
	d.set(0x70, 0x14, 0)
	for i := 0; d.status() != 0; i++ {
		if i == 1000 {
			return nil, errors.New("the device does not reset itself")
		}
	}
	d.set(0x70, 0x14, 1)
	d.set(0x70, 0x14, 3)
	d.set32(0x14, 0x00, 1)
	high := d.get32(0x10, 0x04) & 3 // VERSION_1, ACCESS_PLATFORM
	d.set32(0x24, 0x08, 0)
	d.set32(0x20, 0x0c, 0)
	d.set32(0x24, 0x08, 1)
	d.set32(0x20, 0x0c, high)
	d.set(0x70, 0x14, 0xb)
	if d.status()&8 == 0 {
		return nil, errors.New("the device refuses its features")
	}
	for i := range queues {
		m, q := &deviceMemory, &d.q[i]
		at := page * (int(id)*2 + n*2 + i) // a page of its own for each queue of all devices
		*q = ring{mem: unsafe.Pointer(&m.mem[at]), phys: m.phys + uint64(at)}
		clear(m.mem[at:][:page])
		d.set16(0x30, 0x16, uint32(i))
		d.set16(0x38, 0x18, ringSize)
		if d.pci {
			q.bell = uint32(d.r.Read16(0x1e)) * d.step
		}
		usedPA := q.phys + usedAt
		if used != 0 && i == queues-1 {
			usedPA = used
		}
		for _, part := range []struct {
			mmio, pci uint32
			pa        uint64
		}{{0x80, 0x20, q.phys + descAt}, {0x90, 0x28, q.phys + availAt}, {0xa0, 0x30, usedPA}} {
			d.set32(part.mmio, part.pci, uint32(part.pa))
			d.set32(part.mmio+4, part.pci+4, uint32(part.pa>>32))
		}
		d.set16(0x44, 0x1c, 1)
	}
	d.set(0x70, 0x14, 0xf)
	return d, nil
}

func (d *driver) set32(mmio, pci, v uint32) {
	if d.pci {
		mmio = pci
	}
	d.r.Write32(mmio, v)
}

func (d *driver) set16(mmio, pci, v uint32) {
	if d.pci {
		d.r.Write16(pci, uint16(v))
		return
	}
	d.r.Write32(mmio, v)
}

func (d *driver) set(mmio, pci, v uint32) {
	if d.pci {
		d.r.Write8(pci, uint8(v))
		return
	}
	d.r.Write32(mmio, v)
}

func (d *driver) get32(mmio, pci uint32) uint32 {
	if d.pci {
		mmio = pci
	}
	return d.r.Read32(mmio)
}

func (d *driver) status() uint32 {
	if d.pci {
		return uint32(d.r.Read8(0x14))
	}
	return d.r.Read32(0x70)
}

// post makes a request available and notifies the device.
func (d *driver) post(queue int, buffers ...buffer) {
	q := &d.q[queue]
	for i, b := range buffers {
		flags := uint64(0)
		if b.write {
			flags |= 2
		}
		if i+1 < len(buffers) {
			flags |= 1
		}
		*q.quad(descAt + 16*uintptr(i)) = b.phys
		*q.quad(descAt + 16*uintptr(i) + 8) = uint64(b.n) | flags<<32 | uint64(i+1)<<48
	}
	*q.half(availAt) = 1 // no interrupts
	n := *q.half(availAt + 2)
	*q.half(availAt + 4 + 2*uintptr(n%ringSize)) = 0
	*q.half(availAt + 2) = n + 1
	if d.pci {
		d.bell.Write16(q.bell, uint16(queue))
	} else {
		d.r.Write32(0x50, uint32(queue))
	}
}

// await waits until the device has answered a request of a queue, or has given up. It
// returns how.
func (d *driver) await(queue int) string {
	q := &d.q[queue]
	for t := sys.Nanotime(); ; {
		s := d.status()
		switch {
		case *q.half(usedAt + 2) != q.used:
			q.used++
			return ""
		case s&0x40 != 0:
			return "the device asks for a reset"
		case sys.Nanotime()-t > 3e8:
			return fmt.Sprintf("the device does not answer (status %#x)", s)
		}
	}
}

// randomOnto has the random number device write 8 bytes to a physical address. It returns
// why it could not.
func randomOnto(pa uint64) string {
	d, err := open(rngID, 0, 1, 0)
	if err != nil {
		return err.Error()
	}
	d.post(0, buffer{pa, 8, true})
	return d.await(0)
}

// usedOnto has the random number device write its used ring to a physical address.
func usedOnto(pa uint64) string {
	d, err := open(rngID, 0, 1, pa)
	if err != nil {
		return err.Error()
	}
	d.post(0, buffer{d.q[0].phys + bufferAt, 8, true})
	return d.await(0)
}

// frameBytes is the length of a frame; before it comes the header (virtio 1.2, 5.1.6).
const (
	frameBytes  = 60
	headerBytes = 12
)

// frameOnto has a network device send a frame to another, which writes it to a physical
// address: what is written is chosen.
func frameOnto(pa uint64, content [frameBytes]byte) string {
	from, err := open(netID, 0, 2, 0)
	if err != nil {
		return err.Error()
	}
	to, err := open(netID, 1, 2, 0)
	if err != nil {
		return err.Error()
	}
	to.post(0, buffer{to.q[0].phys + bufferAt, headerBytes, true}, buffer{pa, frameBytes, true})
	b, at := from.q[1].bytes(bufferAt, headerBytes+frameBytes)
	copy(b[headerBytes:], content[:])
	from.post(1, buffer{at, headerBytes + frameBytes, false})
	if how := from.await(1); how != "" {
		return "sending: " + how
	}
	return to.await(0)
}

// frameFrom has a network device send what is at a physical address, to another, and
// returns what that got.
func frameFrom(pa uint64) (got [frameBytes]byte, how string) {
	from, err := open(netID, 0, 2, 0)
	if err != nil {
		return got, err.Error()
	}
	to, err := open(netID, 1, 2, 0)
	if err != nil {
		return got, err.Error()
	}
	b, at := to.q[0].bytes(bufferAt, headerBytes+frameBytes)
	to.post(0, buffer{at, headerBytes + frameBytes, true})
	from.post(1, buffer{from.q[1].phys + bufferAt, headerBytes, false}, buffer{pa, frameBytes, false})
	if how := from.await(1); how != "" {
		return got, "sending: " + how
	}
	how = to.await(0)
	copy(got[:], b[headerBytes:])
	return got, how
}

// vsockBytes is the length of a vsock packet's header (virtio 1.2, 5.10.6).
const vsockBytes = 44

// resetOnto asks the host for a connection that nobody takes, and has the vsock device write
// the answer to a physical address.
func resetOnto(pa uint64) string {
	d, err := open(vsockID, 0, 2, 0)
	if err != nil {
		return err.Error()
	}
	d.post(0, buffer{pa, vsockBytes, true})
	b, at := d.q[1].bytes(bufferAt, vsockBytes)
	const guest, host, stream, request = 3, 2, 1, 1
	b[0], b[8], b[16], b[20], b[28], b[30] = guest, host, 77, 78, stream, request
	d.post(1, buffer{at, vsockBytes, false})
	if how := d.await(1); how != "" {
		return "sending: " + how
	}
	return d.await(0)
}
