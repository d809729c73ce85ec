package main

// Random numbers come from the CPU (RDRAND) or, where it has none, from a
// virtio-rng device; see rng.go. There is no third source: without one the
// machine does not start.

var haveRDRAND bool

// seedRandom chooses the source and checks that it is alive.
func seedRandom() {
	_, _, c, _ := cpuid(1, 0)
	if c&(1<<30) == 0 {
		return // findDevices comes next; fillRandom checks
	}
	// Some CPUs have returned all ones, or one value, for ever.
	a, ok1 := hardRandom()
	b, ok2 := hardRandom()
	haveRDRAND = ok1 && ok2 && a != b && a != never && b != never
}

// hardRandom asks the CPU; it may fail a few times under load (Intel SDM
// vol. 1, 7.3.17).
func hardRandom() (uint64, bool) {
	for i := 0; i < 32; i++ {
		if v, ok := rdrand(); ok {
			return v, true
		}
	}
	return 0, false
}

// fillRandom fills n bytes at address p.
func fillRandom(p, n uint64) {
	for n > 0 {
		k := min(n, 8)
		v, ok := uint64(0), false
		if haveRDRAND {
			v, ok = hardRandom()
		} else {
			v, ok = rngRandom()
		}
		if !ok {
			refuse("no source of random numbers: the CPU has no RDRAND, and there is no virtio-rng device that answers")
		}
		copy(bytesAt(p, k), bytesAt(addr(&v), k))
		p, n = p+k, n-k
	}
}

func sysGetrandom(p, n uint64) uint64 {
	n = min(n, 4096)
	if !writable(p, n) {
		return errno(eFAULT)
	}
	fillRandom(p, n)
	return n
}
