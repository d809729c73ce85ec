// Package clock holds the arithmetic of time sources: kvmclock's scaling and
// the calendar of the CMOS clock. The kernel links it; it allocates nothing.
package clock

import "math/bits"

// Scale converts a TSC difference to nanoseconds by kvmclock's rule: shift
// left by shift (right when negative), times mul, divided by 2^32.
func Scale(delta uint64, mul uint32, shift int8) uint64 {
	if shift >= 0 {
		delta <<= uint(shift)
	} else {
		delta >>= uint(-shift)
	}
	hi, lo := bits.Mul64(delta, uint64(mul))
	return hi<<32 | lo>>32
}

// MaxRate is the highest rate of a clock, in Hz.
const MaxRate = 1 << 63

// ScaleFor returns the mul and shift that make Scale turn ticks of the given
// frequency (Hz) into nanoseconds, with mul's top bit set for precision. Both are
// 0 for a rate that no clock has: 0, or above MaxRate.
func ScaleFor(hz uint64) (mul uint32, shift int8) {
	if hz == 0 || hz > MaxRate {
		return 0, 0
	}
	// Want mul / 2^32 * 2^shift = 1e9 / hz, 2^31 <= mul < 2^32.
	num, den := uint64(1e9), hz
	for num >= den {
		den <<= 1
		shift++
	}
	for num*2 < den {
		num <<= 1
		shift--
	}
	q, _ := bits.Div64(num, 0, den)
	return uint32(q >> 32), shift
}

// CMOS is one reading of the real-time clock's registers, in the order in
// which they count: MC146818 registers 0, 2, 4, 7, 8, 9, the century (0x32)
// and status register B.
type CMOS struct{ Sec, Min, Hour, Day, Month, Year, Century, StatusB uint8 }

func bcd(v uint8) (uint8, bool) { return v>>4*10 + v&15, v>>4 < 10 && v&15 < 10 }

// Unix returns the reading as seconds since 1970 (UTC is assumed), or false
// when it is no possible date, as it is where there is no such clock: all
// registers then read 0x00 or 0xff.
func (c CMOS) Unix() (int64, bool) {
	pm := c.Hour & 0x80
	c.Hour &= 0x7f
	if c.StatusB&4 == 0 { // BCD
		var ok [7]bool
		c.Sec, ok[0] = bcd(c.Sec)
		c.Min, ok[1] = bcd(c.Min)
		c.Hour, ok[2] = bcd(c.Hour)
		c.Day, ok[3] = bcd(c.Day)
		c.Month, ok[4] = bcd(c.Month)
		c.Year, ok[5] = bcd(c.Year)
		c.Century, ok[6] = bcd(c.Century)
		for i := range ok {
			if !ok[i] && i != 6 {
				return 0, false
			}
		}
		if !ok[6] {
			c.Century = 0
		}
	}
	if c.StatusB&2 == 0 { // 12-hour clock
		if c.Hour < 1 || c.Hour > 12 {
			return 0, false
		}
		c.Hour %= 12
		if pm != 0 {
			c.Hour += 12
		}
	}
	if c.Century < 19 || c.Century > 22 {
		c.Century = 20
	}
	y := int64(c.Century)*100 + int64(c.Year)
	if c.Sec > 59 || c.Min > 59 || c.Hour > 23 || c.Day < 1 || c.Month < 1 || c.Month > 12 || c.Year > 99 || y < 2020 {
		return 0, false
	}
	m := int64(c.Month)
	if int64(c.Day) > days(y, m+1, 1)-days(y, m, 1) {
		return 0, false // the month has not as many
	}
	return days(y, m, int64(c.Day))*86400 + int64(c.Hour)*3600 + int64(c.Min)*60 + int64(c.Sec), true
}

// days returns the number of days from 1970-01-01 to the date, for years from
// 1970 on, in the Gregorian calendar: months are counted from March, so that
// the leap day comes last. Month 13 is January of the next year.
func days(y, m, d int64) int64 {
	if m <= 2 {
		y--
		m += 12
	}
	return 365*y + y/4 - y/100 + y/400 + (153*(m-3)+2)/5 + d - 719469
}

// Samples is how often a rate is measured.
const Samples = 5

// Median returns the middle of the measurements: up to two that the host has
// spoilt do not count.
func Median(v [Samples]uint64) uint64 {
	for i := 1; i < Samples; i++ {
		for j := i; j > 0 && v[j] < v[j-1]; j-- {
			v[j], v[j-1] = v[j-1], v[j]
		}
	}
	return v[Samples/2]
}
