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
