package main

import (
	"unsafe"

	"github.com/thurward/thurward/internal/guest/sys"
	"github.com/thurward/thurward/internal/shared/abi"
)

// devices has a device write to memory. Page tables do not bound it.
func devices() []attempt {
	for _, d := range sys.Devices(4) {
		if d.Notify != nil {
			return nil // on PCI: randomOnto has no driver for that
		}
	}
	return []attempt{
		{"virtio-rng onto the policy", func() outcome {
			pa, ok := physical(policy())
			if !ok {
				return refused("the tables cannot be read")
			}
			before := *at(policy())
			if how := randomOnto(pa &^ 7); how != "" {
				return refused("%s", how)
			}
			if *at(policy()) == before {
				return refused("the policy is as it was")
			}
			return succeeded("the policy changed")
		}},
		{"virtio-rng onto the root table's last entry but one", func() outcome {
			const pa = abi.Tables + 8*510 // not used
			before, ok := read(abi.TableWindow + pa)
			if !ok {
				return refused("the tables cannot be read")
			}
			if how := randomOnto(pa); how != "" {
				return refused("%s", how)
			}
			if after, _ := read(abi.TableWindow + pa); after == before {
				return refused("the entry is as it was")
			}
			return succeeded("the entry changed")
		}},
	}
}

// randomOnto has the random number device write 8 bytes to a physical address
// (virtio 1.2, 4.2.2 and 5.4). It returns why it could not.
func randomOnto(pa uint64) string {
	ds := sys.Devices(4)
	if len(ds) == 0 {
		return "there is no such device"
	}
	mem, phys, err := sys.DMA(page, true)
	if err != nil {
		return err.Error()
	}
	base := unsafe.Pointer(&mem[0])
	word := func(off uintptr) *uint64 { return (*uint64)(unsafe.Add(base, off)) }
	r := sys.NewRegisters(ds[0].Registers)
	for _, s := range []uint32{0, 1, 3} {
		r.Write32(0x70, s)
	}
	r.Write32(0x24, 0)
	r.Write32(0x20, 0)
	r.Write32(0x24, 1)
	r.Write32(0x20, 1) // VERSION_1
	r.Write32(0x70, 0xb)
	r.Write32(0x30, 0)
	r.Write32(0x38, 8)
	for reg, off := range map[uint32]uint64{0x80: 0, 0x90: 256, 0xa0: 512} {
		r.Write32(reg, uint32(phys+off))
		r.Write32(reg+4, uint32((phys+off)>>32))
	}
	r.Write32(0x44, 1)
	r.Write32(0x70, 0xf)
	*word(0), *word(8) = pa, 8|2<<32 // a buffer of 8 bytes for the device to write
	*word(256) = 1 | 1<<16           // no interrupt; one request
	r.Write32(0x50, 0)
	for t := sys.Nanotime(); *(*uint32)(unsafe.Add(base, 512))>>16 == 0; {
		if sys.Nanotime()-t > 1e9 {
			return "the device did not answer"
		}
		r.Read32(0x70)
	}
	return ""
}
