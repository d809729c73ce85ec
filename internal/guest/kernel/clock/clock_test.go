package clock

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestScaleForIsExactEnough(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		hz := rapid.Uint64Range(1_000_000, 10_000_000_000).Draw(t, "hz")
		mul, shift := ScaleFor(hz)
		if mul < 1<<31 {
			t.Fatalf("hz %d: mul %#x wastes precision", hz, mul)
		}
		// A day of ticks must come out right to 100 ns for each second.
		s := rapid.Uint64Range(1, 86400).Draw(t, "seconds")
		got := Scale(hz*s, mul, shift)
		if d := int64(got) - int64(s*1e9); d > int64(100*s) || d < -int64(100*s) {
			t.Fatalf("hz %d: %d s = %d ns", hz, s, got)
		}
	})
}

// TestScaleKVM uses a pair that KVM gave for a TSC of 2596.138 MHz.
func TestScaleKVM(t *testing.T) {
	if got := Scale(2_596_138_000, 0xc5374cfe, -1); got < 999_999_000 || got > 1_000_001_000 {
		t.Fatalf("a second of ticks is %d ns", got)
	}
}

func TestScaleForZero(t *testing.T) {
	if mul, _ := ScaleFor(0); mul != 0 {
		t.Fatalf("mul %d for a clock that stands still", mul)
	}
}

func toBCD(v int) uint8 { return uint8(v/10<<4 | v%10) }

func TestCMOSAgainstTime(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		at := time.Unix(rapid.Int64Range(1_577_836_800, 4_100_000_000).Draw(t, "unix"), 0).UTC()
		h12 := at.Hour() % 12
		if h12 == 0 {
			h12 = 12
		}
		pm := uint8(at.Hour() / 12 << 7)
		for _, c := range []CMOS{
			{toBCD(at.Second()), toBCD(at.Minute()), toBCD(at.Hour()), toBCD(at.Day()), toBCD(int(at.Month())), toBCD(at.Year() % 100), toBCD(at.Year() / 100), 2},
			{uint8(at.Second()), uint8(at.Minute()), uint8(at.Hour()), uint8(at.Day()), uint8(at.Month()), uint8(at.Year() % 100), uint8(at.Year() / 100), 6},
			{toBCD(at.Second()), toBCD(at.Minute()), toBCD(h12) | pm, toBCD(at.Day()), toBCD(int(at.Month())), toBCD(at.Year() % 100), toBCD(at.Year() / 100), 0},
		} {
			got, ok := c.Unix()
			if !ok || got != at.Unix() {
				t.Fatalf("%v: %+v = %d %v, want %d", at, c, got, ok, at.Unix())
			}
		}
	})
}

// TestCMOSAbsent: what reads come back as where there is no such clock.
func TestCMOSAbsent(t *testing.T) {
	ff := uint8(0xff)
	for _, c := range []CMOS{{}, {ff, ff, ff, ff, ff, ff, ff, ff}, {0x5a, 0, 0, 1, 1, 0x26, 0x20, 2}, {0, 0, 0, 0x32, 1, 0x26, 0x20, 2}, {0, 0, 0, 1, 0x13, 0x26, 0x20, 2}, {0, 0, 0, 1, 1, 0xa5, 0x20, 2}, {0, 0, 0, 1, 1, 0x2a, 0x20, 2}} {
		if s, ok := c.Unix(); ok {
			t.Errorf("%+v accepted as %d", c, s)
		}
	}
}

func TestMedian(t *testing.T) {
	for _, c := range [][Samples]uint64{{1, 2, 3, 4, 5}, {5, 4, 3, 2, 1}, {3, 1 << 60, 3, 0, 3}, {0, 3, 1 << 60, 1 << 60, 0}} {
		if m := Median(c); m != 3 {
			t.Errorf("median of %v is %d", c, m)
		}
	}
}
