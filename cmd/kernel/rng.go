package main

import (
	"github.com/thurward/thurward/internal/shared/abi"
)

// A minimal, polled virtio-rng driver (virtio 1.2, 5.4), for CPUs without
// RDRAND. It keeps one request of 64 bytes in the device.

const (
	rngID    = 4
	rngQueue = 8
	rngBytes = 64

	// One page: descriptors, available ring, used ring, data.
	rngDesc  = 0
	rngAvail = 256
	rngUsed  = 512
	rngData  = 1024
)

// A layout is where registers lie in a device's window, on MMIO (virtio 1.2, 4.2.2)
// or in PCI's common configuration (4.1.4.3), whose status has 8 bits and whose
// registers of the queue have 16.
type layout struct {
	featSel, feat, drvSel, drv, status uintptr
	queue, size, setSize, ready, bell  uintptr
	desc, avail, used                  uintptr
}

var layouts = [2]layout{
	{0x14, 0x10, 0x24, 0x20, 0x70, 0x30, 0x34, 0x38, 0x44, 0x50, 0x80, 0x90, 0xa0},
	{0x00, 0x04, 0x08, 0x0c, 0x14, 0x16, 0x18, 0x18, 0x1c, 0x1e, 0x20, 0x28, 0x30},
}

var (
	rngRegs uintptr
	rngBell uintptr // where notifications are written
	rngPCI  bool
	rngMem  uint64 // physical address of the page
	rngIdx  uint16 // requests made
	rngAsks bool   // the last one has not been answered
	rngLeft uint64 // unread bytes of the last answer
)

// startRNG initialises the device, if there is one.
func startRNG() bool {
	in := info()
	var d *abi.Device
	for i := uint32(0); i < in.NumDevices && i < abi.MaxDevices; i++ {
		if in.Devices[i].ID == rngID {
			d = &in.Devices[i]
		}
	}
	if d == nil {
		return false
	}
	r := uintptr(d.Registers)
	rngPCI = d.Notify != 0
	l := &layouts[0]
	if rngPCI {
		l = &layouts[1]
	}
	rngSetStatus(r, l, 0)
	for t := now(); rngStatus(r, l) != 0; { // a reset may take its time
		if now()-t > 1_000_000_000 {
			return false
		}
	}
	rngSetStatus(r, l, 1) // ACKNOWLEDGE
	rngSetStatus(r, l, 3) // DRIVER
	store32(r+l.featSel, 1)
	high := load32(r+l.feat) & 3 // VERSION_1, ACCESS_PLATFORM
	if high&1 == 0 {
		return false
	}
	store32(r+l.drvSel, 0)
	store32(r+l.drv, 0)
	store32(r+l.drvSel, 1)
	store32(r+l.drv, high)
	rngSetStatus(r, l, 0xb) // FEATURES_OK
	if rngStatus(r, l)&8 == 0 {
		return false
	}
	if rngMem == 0 {
		rngMem = takeFrame("the random number device")
	}
	clear(bytesAt(abi.DirectBase+rngMem, abi.PageSize))
	rngIdx, rngLeft, rngAsks = 0, 0, false
	rngSetQueue(r+l.queue, 0)
	bell := r + l.bell
	size := uint32(0)
	if rngPCI {
		size = uint32(load16(r + l.size))
		off := uint64(load16(r+l.bell)) * uint64(d.Multiplier)
		if off&1 != 0 || off+2 > uint64(d.NotifyLen) {
			return false
		}
		bell = uintptr(d.Notify + off)
	} else {
		size = load32(r + l.size)
	}
	if size < rngQueue {
		return false
	}
	rngSetQueue(r+l.setSize, rngQueue)
	rngAddress(r+l.desc, rngMem+rngDesc)
	rngAddress(r+l.avail, rngMem+rngAvail)
	rngAddress(r+l.used, rngMem+rngUsed)
	rngSetQueue(r+l.ready, 1)
	rngSetStatus(r, l, 0xf) // DRIVER_OK
	v := abi.DirectBase + rngMem
	*at[uint64](v + rngDesc) = rngMem + rngData
	*at[uint32](v + rngDesc + 8) = rngBytes
	*at[uint32](v + rngDesc + 12) = 2 // device writes
	*at[uint16](v + rngAvail) = 1     // no interrupts
	rngRegs, rngBell = r, bell
	return true
}

func rngStatus(r uintptr, l *layout) uint32 {
	if rngPCI {
		return uint32(load8(r + l.status))
	}
	return load32(r + l.status)
}

func rngSetStatus(r uintptr, l *layout, s uint32) {
	if rngPCI {
		store8(r+l.status, uint8(s))
		return
	}
	store32(r+l.status, s)
}

// rngSetQueue writes a register of the queue, or a notification.
func rngSetQueue(a uintptr, v uint32) {
	if rngPCI {
		store16(a, uint16(v))
		return
	}
	store32(a, v)
}

func rngAddress(a uintptr, pa uint64) {
	store32(a, uint32(pa))
	store32(a+4, uint32(pa>>32))
}

// dropRNG gives a device up that does not answer. The next attempt sets it up anew:
// it may have been reset, or its back end started again.
func dropRNG() { rngRegs = 0 }

// rngRandom returns 8 random bytes. The device may take wait nanoseconds.
func rngRandom(wait uint64) (uint64, bool) {
	if rngRegs == 0 && !startRNG() {
		return 0, false
	}
	v := abi.DirectBase + rngMem
	if rngLeft < 8 {
		if !rngAsks {
			rngIdx++
			*at[uint16](v + rngAvail + 2) = rngIdx // the ring's entries are all descriptor 0
			rngSetQueue(rngBell, 0)
			rngAsks = true
		}
		for t := now(); uint16(load32(uintptr(v+rngUsed))>>16) != rngIdx; {
			if now()-t > wait {
				return 0, false
			}
		}
		rngAsks = false
		i := uint64(rngIdx-1) % rngQueue
		rngLeft = min(uint64(*at[uint32](v + rngUsed + 4 + 8*i + 4)), rngBytes) &^ 7
		if rngLeft == 0 {
			return 0, false
		}
	}
	rngLeft -= 8
	p := at[uint64](v + rngData + rngLeft)
	x := *p
	*p = 0 // handed out once
	return x, x != 0
}
