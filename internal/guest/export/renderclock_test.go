package export

import (
	"strings"
	"testing"
)

// TestAdjust: times before a correction keep the former time of day, all others have the
// new one; the same base again changes nothing.
func TestAdjust(t *testing.T) {
	c := context("")
	for _, base := range [...]int64{c.WallBase + 10e9, c.WallBase + 10e9} {
		c.Adjust(base, 5e9)
	}
	for mono, want := range map[int64]string{5e9 - 1: "12:00:04.999999Z", 5e9: "12:00:15.000000Z", 6e9: "12:00:16.000000Z"} {
		if got := string(c.appendTime(nil, mono)); !strings.HasSuffix(got, want) {
			t.Errorf("at %d: %s, want %s", mono, got, want)
		}
	}
}
