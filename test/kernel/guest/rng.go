package main

import (
	"errors"
	"sync/atomic"
	"unsafe"

	"github.com/thurward/thurward/internal/guest/sys"
)

// An rng is a device of random numbers (virtio 1.2, 5.4) that is asked for 8 bytes at a time,
// to see its interrupt.
type rng struct {
	regs, notify sys.Registers
	pci          bool
	mem          unsafe.Pointer // descriptor at 0, available ring at 256, used ring at 512, bytes at 1024
	asked        uint16
}

// newRandom sets the device up, with its queue's interrupt by the given vector of the queues.
func newRandom(d sys.Device, vector uint32) (*rng, error) {
	mem, phys, err := sys.DMA(page, true)
	if err != nil {
		return nil, err
	}
	g := &rng{regs: sys.NewRegisters(d.Registers), pci: d.Notify != nil, mem: unsafe.Pointer(&mem[0])}
	*(*[2]uint64)(g.mem) = [2]uint64{phys + 1024, 8 | 2<<32}
	parts := [3]uint64{phys, phys + 256, phys + 512}
	r := g.regs
	if !g.pci { // 4.2.2
		for _, s := range []uint32{0, 1, 3} {
			r.Write32(0x70, s)
		}
		r.Write32(0x24, 1)
		r.Write32(0x20, 1) // VERSION_1
		r.Write32(0x70, 0xb)
		r.Write32(0x30, 0)
		r.Write32(0x38, 8)
		for i, reg := range []uint32{0x80, 0x90, 0xa0} {
			r.Write32(reg, uint32(parts[i]))
			r.Write32(reg+4, uint32(parts[i]>>32))
		}
		r.Write32(0x44, 1)
		r.Write32(0x70, 0xf)
		return g, nil
	}
	r.Write8(0x14, 0) // 4.1.4.3
	for r.Read8(0x14) != 0 {
	}
	r.Write8(0x14, 1)
	r.Write8(0x14, 3)
	r.Write32(0x08, 1)
	r.Write32(0x0c, 1)
	r.Write8(0x14, 0xb)
	r.Write16(0x16, 0)
	r.Write16(0x18, 8)
	r.Write16(0x1a, uint16(1+vector))
	if r.Read16(0x1a) != uint16(1+vector) {
		return nil, errors.New("the device has no such vector")
	}
	for i, reg := range []uint32{0x20, 0x28, 0x30} {
		r.Write32(reg, uint32(parts[i]))
		r.Write32(reg+4, uint32(parts[i]>>32))
	}
	g.notify = sys.NewRegisters(unsafe.Add(d.Notify, uint32(r.Read16(0x1e))*d.Multiplier))
	r.Write16(0x1c, 1)
	r.Write8(0x14, 0xf)
	return g, nil
}

// ask asks for 8 bytes.
func (g *rng) ask() {
	g.asked++
	atomic.StoreUint32((*uint32)(unsafe.Add(g.mem, 256)), uint32(g.asked)<<16)
	if g.pci {
		g.notify.Write16(0, 0)
	} else {
		g.regs.Write32(0x50, 0)
	}
}

// acknowledge ends the interrupt of a device on MMIO.
func (g *rng) acknowledge() {
	if !g.pci {
		g.regs.Write32(0x64, g.regs.Read32(0x60))
	}
}
