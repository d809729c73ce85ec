package virtio

import "unsafe"

// Registers is a window of device registers. Each access is exactly one move of the named
// width, at an offset from the window's start that is a multiple of the width, as devices
// require; each costs an exit to the host. The image uses Window or the kernel's calls, and
// tests a fake.
type Registers interface {
	Read8(off uint32) uint8
	Read16(off uint32) uint16
	Read32(off uint32) uint32
	Write32(off, v uint32)
}

// Wide is a window that also has writes of 8 and 16 bits, which PCI needs.
type Wide interface {
	Registers
	Write8(off uint32, v uint8)
	Write16(off uint32, v uint16)
}

// A Window is a register window mapped at an address, uncached.
type Window struct{ base uintptr }

// NewWindow returns the window at p.
func NewWindow(p unsafe.Pointer) Window { return Window{uintptr(p)} }

// Read8 reads a byte.
func (w Window) Read8(off uint32) uint8 { return load8(w.base + uintptr(off)) }

// Read16 reads 16 bits.
func (w Window) Read16(off uint32) uint16 { return load16(w.base + uintptr(off)) }

// Read32 reads 32 bits.
func (w Window) Read32(off uint32) uint32 { return load32(w.base + uintptr(off)) }

// Write8 writes a byte.
func (w Window) Write8(off uint32, v uint8) { store8(w.base+uintptr(off), v) }

// Write16 writes 16 bits.
func (w Window) Write16(off uint32, v uint16) { store16(w.base+uintptr(off), v) }

// Write32 writes 32 bits.
func (w Window) Write32(off, v uint32) { store32(w.base+uintptr(off), v) }

func load8(a uintptr) uint8
func load16(a uintptr) uint16
func load32(a uintptr) uint32
func store8(a uintptr, v uint8)
func store16(a uintptr, v uint16)
func store32(a uintptr, v uint32)
