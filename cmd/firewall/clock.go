package main

import (
	"time"

	"github.com/thurward/thurward/internal/guest/sys"
)

// oldest is a time of day that has passed: a clock that shows an earlier one has
// not been set, whatever it says.
var oldest = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// clockSet reports whether the time of day is known, as far as can be told.
func clockSet() bool {
	_, source := sys.WallBase()
	return source != "none" && timeOfDay().After(oldest)
}

func timeOfDay() time.Time {
	base, _ := sys.WallBase()
	return time.Unix(0, base+sys.Nanotime())
}
