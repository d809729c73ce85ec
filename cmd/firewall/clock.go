package main

import (
	"time"

	"github.com/thurward/thurward/internal/guest/sys"
)

// oldest is a time in the past: a clock that shows an earlier time has not been set.
var oldest = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// clockSet reports whether the time of day appears to be known.
func clockSet() bool {
	_, source := sys.WallBase()
	return source != "none" && timeOfDay().After(oldest)
}

func timeOfDay() time.Time {
	base, _ := sys.WallBase()
	return time.Unix(0, base+sys.Nanotime())
}
