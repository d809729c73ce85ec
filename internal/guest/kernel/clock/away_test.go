package clock

import "testing"

// TestAway: what the monotonic clock did not count is told once, short stops add up, and a
// clock that is set back hides nothing that comes after.
func TestAway(t *testing.T) {
	const ms = second / 1000
	for _, c := range []struct {
		name  string
		bases []int64
		want  []int64
	}{
		{"the first reading is no stop", []int64{1700e9}, []int64{0}},
		{"a stop", []int64{1700e9, 1710e9, 1710e9}, []int64{0, 10e9, 0}},
		{"errors of a clock", []int64{1700e9, 1700e9 + 80*ms, 1700e9 - 80*ms, 1700e9 + 80*ms}, []int64{0, 0, 0, 0}},
		{"short stops add up", []int64{0, 400 * ms, 800 * ms, 1200 * ms, 1600 * ms, 2300 * ms}, []int64{0, 0, 0, 1200 * ms, 0, 1100 * ms}},
		{"exactly a second", []int64{0, second - 1, second}, []int64{0, 0, second}},
		{"set back, then a stop", []int64{1700e9, 1600e9, 1605e9}, []int64{0, 0, 5e9}},
		{"a base before 1970", []int64{-5e9, -3e9}, []int64{0, 2e9}},
	} {
		var a Away
		for i, b := range c.bases {
			if got := a.Passed(b); got != c.want[i] {
				t.Errorf("%s: base %d: %d passed, want %d", c.name, b, got, c.want[i])
			}
		}
	}
}
