package clock

import (
	"math"
	"math/big"
	"slices"
	"testing"
	"time"
)

// TestScaleAgainstBig compares Scale with exact arithmetic: what the shift
// pushes out is lost, as it is in kvmclock's own code.
func TestScaleAgainstBig(t *testing.T) {
	deltas := []uint64{0, 1, 2, 3, 1000, 1<<31 - 1, 1 << 31, 1<<32 - 1, 1 << 32, 1<<32 + 1, 2_596_138_001, 1<<63 - 1, 1 << 63, math.MaxUint64}
	muls := []uint32{0, 1, 2, 3, 1 << 16, 1<<31 - 1, 1 << 31, 0xc5374cfe, math.MaxUint32}
	shifts := []int8{-128, -127, -65, -64, -63, -33, -32, -31, -2, -1, 0, 1, 2, 30, 31, 32, 33, 63, 64, 65, 127}
	for _, d := range deltas {
		for _, m := range muls {
			for _, s := range shifts {
				b := new(big.Int).SetUint64(d)
				if s >= 0 {
					b.Lsh(b, uint(s))
				} else {
					b.Rsh(b, uint(-int(s)))
				}
				b.And(b, new(big.Int).SetUint64(math.MaxUint64))
				b.Mul(b, big.NewInt(int64(m)))
				b.Rsh(b, 32)
				b.And(b, new(big.Int).SetUint64(math.MaxUint64))
				if got := Scale(d, m, s); got != b.Uint64() {
					t.Fatalf("Scale(%d, %#x, %d) = %d, want %d", d, m, s, got, b)
				}
			}
		}
	}
}

// TestScaleForAgainstBig: mul is the largest that does not run fast, with its
// top bit set, for every rate up to the highest; none makes it run for ever.
func TestScaleForAgainstBig(t *testing.T) {
	rates := []uint64{1, 2, 3, 999_999_999, 1_000_000_000, 1_000_000_001, 1_999_999_999, 2_000_000_000, 2_000_000_001, 2_596_138_000, 1<<32 - 1, 1 << 32, 1<<62 - 1, 1 << 62, MaxRate - 1, MaxRate}
	for hz := uint64(1); hz < MaxRate/3; hz = hz*3 + 1 {
		rates = append(rates, hz, hz+1)
	}
	for _, hz := range rates {
		mul, shift := ScaleFor(hz)
		if mul < 1<<31 {
			t.Fatalf("%d Hz: mul %#x wastes precision", hz, mul)
		}
		// mul = floor(1e9 * 2^32 / (hz * 2^shift))
		num, den := big.NewInt(1_000_000_000), new(big.Int).SetUint64(hz)
		num.Lsh(num, 32)
		if shift >= 0 {
			den.Lsh(den, uint(shift))
		} else {
			num.Lsh(num, uint(-int(shift)))
		}
		if num.Div(num, den); !num.IsUint64() || num.Uint64() != uint64(mul) {
			t.Fatalf("%d Hz: mul %d with shift %d, want %v", hz, mul, shift, num)
		}
	}
	for _, hz := range []uint64{0, MaxRate + 1, 1<<63 + 1, 17179869184000000001, math.MaxUint64} {
		if mul, shift := ScaleFor(hz); mul != 0 || shift != 0 {
			t.Errorf("%d Hz: mul %d, shift %d; want none", hz, mul, shift)
		}
	}
}

// TestCMOSBounds goes to the ends of each register, in both encodings.
func TestCMOSBounds(t *testing.T) {
	bin := CMOS{30, 30, 10, 15, 6, 26, 20, 6}
	dec := CMOS{0x30, 0x30, 0x10, 0x15, 0x06, 0x26, 0x20, 2}
	noon := CMOS{30, 30, 12, 15, 6, 26, 20, 4} // 12-hour clock
	at := func(y, mo, d, h, mi, s int) int64 {
		return time.Date(y, time.Month(mo), d, h, mi, s, 0, time.UTC).Unix()
	}
	for _, c := range []struct {
		name string
		base CMOS
		edit func(c *CMOS)
		want int64 // 0: refused
	}{
		{"binary", bin, func(c *CMOS) {}, at(2026, 6, 15, 10, 30, 30)},
		{"second 0", bin, func(c *CMOS) { c.Sec = 0 }, at(2026, 6, 15, 10, 30, 0)},
		{"second 59", bin, func(c *CMOS) { c.Sec = 59 }, at(2026, 6, 15, 10, 30, 59)},
		{"second 60", bin, func(c *CMOS) { c.Sec = 60 }, 0},
		{"minute 59", bin, func(c *CMOS) { c.Min = 59 }, at(2026, 6, 15, 10, 59, 30)},
		{"minute 60", bin, func(c *CMOS) { c.Min = 60 }, 0},
		{"hour 0", bin, func(c *CMOS) { c.Hour = 0 }, at(2026, 6, 15, 0, 30, 30)},
		{"hour 23", bin, func(c *CMOS) { c.Hour = 23 }, at(2026, 6, 15, 23, 30, 30)},
		{"hour 24", bin, func(c *CMOS) { c.Hour = 24 }, 0},
		{"day 0", bin, func(c *CMOS) { c.Day = 0 }, 0},
		{"day 1", bin, func(c *CMOS) { c.Day = 1 }, at(2026, 6, 1, 10, 30, 30)},
		{"day 30 of June", bin, func(c *CMOS) { c.Day = 30 }, at(2026, 6, 30, 10, 30, 30)},
		{"day 31 of June", bin, func(c *CMOS) { c.Day = 31 }, 0},
		{"day 31 of July", bin, func(c *CMOS) { c.Month, c.Day = 7, 31 }, at(2026, 7, 31, 10, 30, 30)},
		{"day 32 of July", bin, func(c *CMOS) { c.Month, c.Day = 7, 32 }, 0},
		{"day 31 of December", bin, func(c *CMOS) { c.Month, c.Day = 12, 31 }, at(2026, 12, 31, 10, 30, 30)},
		{"day 32 of December", bin, func(c *CMOS) { c.Month, c.Day = 12, 32 }, 0},
		{"29 February 2026", bin, func(c *CMOS) { c.Month, c.Day = 2, 29 }, 0},
		{"29 February 2028", bin, func(c *CMOS) { c.Year, c.Month, c.Day = 28, 2, 29 }, at(2028, 2, 29, 10, 30, 30)},
		{"30 February 2028", bin, func(c *CMOS) { c.Year, c.Month, c.Day = 28, 2, 30 }, 0},
		{"29 February 2100", bin, func(c *CMOS) { c.Century, c.Year, c.Month, c.Day = 21, 0, 2, 29 }, 0},
		{"month 0", bin, func(c *CMOS) { c.Month = 0 }, 0},
		{"month 1", bin, func(c *CMOS) { c.Month = 1 }, at(2026, 1, 15, 10, 30, 30)},
		{"month 12", bin, func(c *CMOS) { c.Month = 12 }, at(2026, 12, 15, 10, 30, 30)},
		{"month 13", bin, func(c *CMOS) { c.Month = 13 }, 0},
		{"2019", bin, func(c *CMOS) { c.Year = 19 }, 0},
		{"2020", bin, func(c *CMOS) { c.Year = 20 }, at(2020, 6, 15, 10, 30, 30)},
		{"year 100 of a century", bin, func(c *CMOS) { c.Year = 100 }, 0},
		{"year 255 of a century", bin, func(c *CMOS) { c.Year = 255 }, 0},
		{"century 18 is none", bin, func(c *CMOS) { c.Century = 18 }, at(2026, 6, 15, 10, 30, 30)},
		{"century 19", bin, func(c *CMOS) { c.Century, c.Year = 19, 99 }, 0},
		{"century 21", bin, func(c *CMOS) { c.Century = 21 }, at(2126, 6, 15, 10, 30, 30)},
		{"century 22", bin, func(c *CMOS) { c.Century = 22 }, at(2226, 6, 15, 10, 30, 30)},
		{"century 23 is none", bin, func(c *CMOS) { c.Century = 23 }, at(2026, 6, 15, 10, 30, 30)},
		{"BCD", dec, func(c *CMOS) {}, at(2026, 6, 15, 10, 30, 30)},
		{"BCD second 59", dec, func(c *CMOS) { c.Sec = 0x59 }, at(2026, 6, 15, 10, 30, 59)},
		{"BCD second 0a", dec, func(c *CMOS) { c.Sec = 0x0a }, 0},
		{"BCD second a0", dec, func(c *CMOS) { c.Sec = 0xa0 }, 0},
		{"BCD minute 1f", dec, func(c *CMOS) { c.Min = 0x1f }, 0},
		{"BCD hour 0a", dec, func(c *CMOS) { c.Hour = 0x0a }, 0},
		{"BCD day 1a", dec, func(c *CMOS) { c.Day = 0x1a }, 0},
		{"BCD month 0a", dec, func(c *CMOS) { c.Month = 0x0a }, 0},
		{"BCD year 2a", dec, func(c *CMOS) { c.Year = 0x2a }, 0},
		{"BCD year 99", dec, func(c *CMOS) { c.Year = 0x99 }, at(2099, 6, 15, 10, 30, 30)},
		{"BCD century 1a is none", dec, func(c *CMOS) { c.Century = 0x1a }, at(2026, 6, 15, 10, 30, 30)},
		{"BCD century 1f is none", dec, func(c *CMOS) { c.Century = 0x1f }, at(2026, 6, 15, 10, 30, 30)}, // 25 if it were read
		{"BCD century 0f is none", dec, func(c *CMOS) { c.Century = 0x15 | 0x0f }, at(2026, 6, 15, 10, 30, 30)},
		{"BCD century 0x22", dec, func(c *CMOS) { c.Century = 0x22 }, at(2226, 6, 15, 10, 30, 30)},
		{"BCD century of 21 in a digit too large", dec, func(c *CMOS) { c.Century = 0x1b }, at(2026, 6, 15, 10, 30, 30)},
		{"BCD, with summer time", dec, func(c *CMOS) { c.StatusB |= 1 }, at(2026, 6, 15, 10, 30, 30)},
		{"12 pm, with summer time", noon, func(c *CMOS) { c.StatusB |= 1; c.Hour |= 0x80 }, at(2026, 6, 15, 12, 30, 30)},
		{"12 am", noon, func(c *CMOS) {}, at(2026, 6, 15, 0, 30, 30)},
		{"12 pm", noon, func(c *CMOS) { c.Hour |= 0x80 }, at(2026, 6, 15, 12, 30, 30)},
		{"0 am", noon, func(c *CMOS) { c.Hour = 0 }, 0},
		{"1 am", noon, func(c *CMOS) { c.Hour = 1 }, at(2026, 6, 15, 1, 30, 30)},
		{"11 pm", noon, func(c *CMOS) { c.Hour = 11 | 0x80 }, at(2026, 6, 15, 23, 30, 30)},
		{"13 am", noon, func(c *CMOS) { c.Hour = 13 }, 0},
		{"all zero", CMOS{}, func(c *CMOS) {}, 0},
		{"all ff", CMOS{255, 255, 255, 255, 255, 255, 255, 255}, func(c *CMOS) {}, 0},
	} {
		r := c.base
		c.edit(&r)
		if got, ok := r.Unix(); ok != (c.want != 0) || got != c.want {
			t.Errorf("%s: %+v = %d %v, want %d", c.name, r, got, ok, c.want)
		}
	}
}

// TestCMOSEveryDay: each day of 280 years is the one after the last.
func TestCMOSEveryDay(t *testing.T) {
	for at := time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC); at.Year() < 2300; at = at.AddDate(0, 0, 1) {
		c := CMOS{0, 0, 0, uint8(at.Day()), uint8(at.Month()), uint8(at.Year() % 100), uint8(at.Year() / 100), 6}
		if got, ok := c.Unix(); !ok || got != at.Unix() {
			t.Fatalf("%v: %+v = %d %v, want %d", at, c, got, ok, at.Unix())
		}
	}
}

// TestMedianOfAll: of every order of five, also of such with equal ones.
func TestMedianOfAll(t *testing.T) {
	for n := range 5 * 5 * 5 * 5 * 5 {
		var v [Samples]uint64
		for i, k := 0, n; i < Samples; i, k = i+1, k/5 {
			v[i] = uint64(k%5) * (math.MaxUint64 / 4)
		}
		s := v
		slices.Sort(s[:])
		if m := Median(v); m != s[2] {
			t.Fatalf("median of %v is %d", v, m)
		}
	}
}
