package clock

import (
	"testing"

	"pgregory.net/rapid"
)

// TestKeeper: whatever the phase, the drift and the jump, the base is known within 1.2
// seconds at first, and the jump corrected within 5 with an error below 100 ms.
func TestKeeper(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		base := rapid.Int64Range(1_700_000_000e9, 1_900_000_000e9).Draw(t, "base")
		ppm := rapid.Int64Range(-600, 600).Draw(t, "ppm")
		jump := rapid.SampledFrom([]int64{-3600e9, -10e9, -1e9, -150e6, 150e6, 500e6, 999e6, 1e9, 10e9, 1e15}).Draw(t, "jump")
		late := rapid.Int64Range(0, 5e6).Draw(t, "late")
		var k Keeper
		now := rapid.Int64Range(1, 20e9).Draw(t, "now")
		start, jumped, readings := now, int64(0), 0
		for {
			real := base + now + now/1e6*ppm
			next := k.Add(now-late, now+late, real/1e9)
			readings++
			got, ok := k.Base()
			off := got - (real - now)
			good := ok && off > -100e6 && off < 100e6
			switch {
			case jumped == 0 && now > start+1200e6 && !good:
				t.Fatalf("after %d ns: off by %d ns (%v)", now-start, off, ok)
			case jumped == 0 && now > start+60e9:
				if readings > 110 {
					t.Fatalf("%d readings in a minute", readings)
				}
				jumped, base = now, base+jump
			case jumped != 0 && now > jumped+5e9 && !good:
				t.Fatalf("%d ns after a jump of %d: off by %d ns (%v)", now-jumped, jump, off, ok)
			case jumped != 0 && now > jumped+60e9:
				return
			}
			if next <= now || next > now+3e9 {
				t.Fatalf("at %d the next reading is at %d", now, next)
			}
			now = next + late
		}
	})
}

// TestKeeperBounds: bounds, next reading and state after each of a few readings, by hand.
func TestKeeperBounds(t *testing.T) {
	type step struct {
		before, after, sec, lo, hi, next int64
		ok                               bool
	}
	var k Keeper
	take := func(s step) {
		t.Helper()
		next := k.Add(s.before, s.after, s.sec)
		base, ok := k.Base()
		if k.lo != s.lo || k.hi != s.hi || next != s.next || ok != s.ok || base != (s.lo+s.hi)/2 {
			t.Errorf("%+v: between %d and %d, base %d, known %v, next %d", s, k.lo, k.hi, base, ok, next)
		}
	}
	for _, s := range [...]step{
		{10e9, 10e9 + 2, 100, 90e9 - 2, 91e9, 10e9 + 2 + 40e6, false},
		{10.5e9, 10.5e9, 101, 90.5e9, 91_000_499_000, 10.54e9, false}, // 499 ms of drift
		{11.08e9, 11.08e9, 102, 90.92e9, 91_001_079_000, 11.12e9, false},
		{11.09e9, 11.09e9, 102, 90_919_990_000, 91_001_089_000, 11.13e9, false},
		// Just close enough; then beyond the upper bound, the lower bound, between them.
		{12_077_924_000, 12_077_924_000, 103, 90_922_076_000, 91_002_076_000, 12_957_924_000, true},
		{13_957_924_000, 13_957_924_000, 104, 90_920_196_000, 91_003_956_000, 15_119_804_000, true},
		{15_119_804_000, 15_119_804_000, 106, 90_919_035_000, 91_005_117_000, 16_037_924_000, true},
	} {
		take(s)
	}
	// A reading that just agrees, and one that just does not, at both bounds.
	before := k
	for _, s := range [...]step{
		{17_992_011_000, 17_992_011_000, 109, 91_007_989_000, 91_007_989_000, 18_952_011_000, true},
		{17_992_010_999, 17_992_010_999, 109, 91_007_989_001, 92_007_989_001, 18_032_010_999, false},
		{17_082_928_000, 17_082_928_000, 107, 90_917_072_000, 90_917_072_000, 18_042_928_000, true},
		{17_082_928_001, 17_082_928_001, 107, 89_917_071_999, 90_917_071_999, 17_122_928_001, false},
	} {
		k = before
		take(s)
	}
}

// TestKeeperAtTheEpoch: the first reading says nothing but its second, whichever that is.
func TestKeeperAtTheEpoch(t *testing.T) {
	for _, sec := range []int64{0, 1} {
		var k Keeper
		if k.Add(0, 0, sec); k.lo != sec*second || k.hi != (sec+1)*second || k.close {
			t.Errorf("second %d: between %d and %d, known %v", sec, k.lo, k.hi, k.close)
		}
	}
}

// TestKeeperPauses: from one reading to the next it is 0.8 seconds and what is missing until
// the clock's second changes, which may be nothing.
func TestKeeperPauses(t *testing.T) {
	const lo = 1000*second - guard - 10e6
	for after, want := range map[int64]int64{10e9: 11e9, 10.2e9 - 1: 11e9, 10.2e9: 11e9, 10.2e9 + 1: 12e9, 10.2e9 + 2: 12e9, 11.2e9 - 1: 12e9} {
		k := Keeper{lo: lo, hi: lo + 10e6, last: after, known: true, close: true} // the next looks behind hi
		if next := k.Add(after, after, (lo+after)/second); next != want {
			t.Errorf("after %d: %d, want %d", after, next, want)
		}
	}
}
