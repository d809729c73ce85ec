package main

import (
	"github.com/thurward/thurward/internal/guest/kernel/csprng"
	"github.com/thurward/thurward/internal/shared/abi"
)

// Random numbers come from a generator that is seeded from the CPU (RDRAND) or,
// where it has none, from a virtio-rng device; see rng.go. There is no third
// source: without one the machine does not start. Later the generator is seeded
// again while it is used; that a source has failed by then is reported, and not
// more: a generator that was seeded once needs no more.

const (
	seedEvery   = 1_000_000_000  // nanoseconds between two seeds
	retryEvery  = 60_000_000_000 // after the source has failed
	firstWait   = 1_000_000_000  // how long the device may take to answer when the machine starts
	laterWait   = 10_000_000     // and while packets wait
	freshWait   = 100_000_000    // and where what comes next must not be known to another restore
	freshRounds = 2              // one answer may have been made before the restore
)

var (
	haveRDRAND bool
	generator  csprng.Generator
	seeded     bool
	nextSeed   uint64 // when the generator is seeded next
	starved    bool   // the source has failed, which was reported
)

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

// reseed mixes 32 bytes of the source into the generator. The device may take
// wait nanoseconds to answer.
func reseed(wait uint64) bool {
	var s [4]uint64
	for i := range s {
		v, ok := uint64(0), false
		if haveRDRAND {
			v, ok = hardRandom()
		} else {
			v, ok = rngRandom(wait)
		}
		if !ok {
			return false
		}
		s[i] = v
	}
	generator.Mix(&s)
	seeded = true
	return true
}

// seedWhenDue seeds the generator, the first time before anything else.
func seedWhenDue() {
	if !seeded {
		if !reseed(firstWait) {
			refuse("no source of random numbers: the CPU has no RDRAND, and there is no virtio-rng device that answers")
		}
		nextSeed = later(seedEvery)
		return
	}
	if now() < nextSeed {
		return
	}
	ok := reseed(laterWait)
	if ok {
		nextSeed = later(seedEvery)
	} else {
		nextSeed = later(retryEvery)
		stats.Starved++
		dropRNG()
	}
	if ok == starved {
		starved = !ok
		if starved {
			puts("thurward: kernel: the source of random numbers does not answer; the generator goes on with what it has\n")
		} else {
			puts("thurward: kernel: the source of random numbers answers again\n")
		}
	}
}

// fillRandom fills n bytes at address p.
func fillRandom(p, n uint64) {
	seedWhenDue()
	var v [4]uint64
	for n > 0 {
		k := min(n, 32)
		generator.Next(&v)
		copy(bytesAt(p, k), bytesAt(addr(&v), k))
		p, n = p+k, n-k
	}
	v = [4]uint64{}
}

// sysGetrandom is Linux's, with one flag of ours: see abi.RandomFresh.
func sysGetrandom(p, n, flags uint64) uint64 {
	n = min(n, 4096)
	if !writable(p, n) {
		return errno(eFAULT)
	}
	if flags&abi.RandomFresh != 0 && !fresh() {
		return errno(eAGAIN)
	}
	fillRandom(p, n)
	return n
}

// fresh seeds the generator with what the source has given after the call.
func fresh() bool {
	for range freshRounds {
		rngLeft = 0
		if !reseed(freshWait) {
			dropRNG()
			return false
		}
		if haveRDRAND {
			break
		}
	}
	return true
}
