package main

import "github.com/thurward/thurward/internal/shared/abi"

// findMSIX looks for an MSI-X table among the registers that are mapped: who can write one
// can interrupt any processor by any vector, by INIT and NMI too.
func findMSIX() outcome {
	const large = 2 << 20
	pages := 0
	look := func(first, end uint64) (at uint64, found bool) {
		for va := first; va < end; va += large {
			if seen, _, ok := entryOf(va, 2); !ok {
				continue
			} else if v, ok := read(seen); !ok || v&pPresent == 0 {
				continue
			}
			for p := va; p < va+large; p += page {
				if _, ok := physical(p); !ok {
					continue
				}
				pages++
				for a := p; a < p+64; a += 16 { // the first entries
					if v, ok := read(a); ok && v&0xfff00ff3 == abi.LAPICPhys {
						return a, true
					}
				}
			}
		}
		return 0, false
	}
	for _, w := range [][2]uint64{{abi.MMIOBase + 0x80000000, abi.MMIOBase + abi.LAPICPhys}, {abi.MMIOFar, abi.MMIOFar + 64*large}} {
		if at, found := look(w[0], w[1]); found {
			return succeeded("at %#x", at)
		}
	}
	return refused("there is none in %d pages", pages)
}
