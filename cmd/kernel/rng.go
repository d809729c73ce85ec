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

	mmioFeatures    = 0x010
	mmioFeaturesSel = 0x014
	mmioDriver      = 0x020
	mmioDriverSel   = 0x024
	mmioQueueSel    = 0x030
	mmioQueueMax    = 0x034
	mmioQueueNum    = 0x038
	mmioQueueReady  = 0x044
	mmioNotify      = 0x050
	mmioStatus      = 0x070
	mmioDesc        = 0x080
	mmioAvail       = 0x090
	mmioUsed        = 0x0a0

	// One page: descriptors, available ring, used ring, data.
	rngDesc  = 0
	rngAvail = 256
	rngUsed  = 512
	rngData  = 1024
)

var (
	rngRegs uintptr
	rngMem  uint64 // physical address of the page
	rngIdx  uint16 // requests made
	rngLeft uint64 // unread bytes of the last answer
)

// startRNG initialises the device, if there is one.
func startRNG() bool {
	in := info()
	for i := uint32(0); i < in.NumDevices; i++ {
		if in.Devices[i].ID == rngID {
			rngRegs = uintptr(in.Devices[i].Registers)
		}
	}
	if rngRegs == 0 {
		return false
	}
	r := rngRegs
	for _, s := range [...]uint32{0, 1, 3} { // reset, ACKNOWLEDGE, DRIVER
		store32(r+mmioStatus, s)
	}
	store32(r+mmioFeaturesSel, 1)
	if load32(r+mmioFeatures)&1 == 0 { // VERSION_1
		return false
	}
	store32(r+mmioDriverSel, 0)
	store32(r+mmioDriver, 0)
	store32(r+mmioDriverSel, 1)
	store32(r+mmioDriver, 1)
	store32(r+mmioStatus, 0xb) // FEATURES_OK
	if load32(r+mmioStatus)&8 == 0 {
		return false
	}
	rngMem = takeFrame("the random number device")
	store32(r+mmioQueueSel, 0)
	if load32(r+mmioQueueMax) < rngQueue {
		return false
	}
	store32(r+mmioQueueNum, rngQueue)
	rngAddress(mmioDesc, rngMem+rngDesc)
	rngAddress(mmioAvail, rngMem+rngAvail)
	rngAddress(mmioUsed, rngMem+rngUsed)
	store32(r+mmioQueueReady, 1)
	store32(r+mmioStatus, 0xf) // DRIVER_OK
	v := abi.DirectBase + rngMem
	*at[uint64](v + rngDesc) = rngMem + rngData
	*at[uint32](v + rngDesc + 8) = rngBytes
	*at[uint32](v + rngDesc + 12) = 2 // device writes
	*at[uint16](v + rngAvail) = 1     // no interrupts
	return true
}

func rngAddress(reg uintptr, pa uint64) {
	store32(rngRegs+reg, uint32(pa))
	store32(rngRegs+reg+4, uint32(pa>>32))
}

// rngRandom returns 8 random bytes.
func rngRandom() (uint64, bool) {
	if rngRegs == 0 && !startRNG() {
		return 0, false
	}
	v := abi.DirectBase + rngMem
	if rngLeft < 8 {
		rngIdx++
		*at[uint16](v + rngAvail + 2) = rngIdx // the ring's entries are all descriptor 0
		store32(rngRegs+mmioNotify, 0)
		for t := now(); uint16(load32(uintptr(v+rngUsed))>>16) != rngIdx; {
			if now()-t > 1_000_000_000 {
				return 0, false
			}
		}
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
