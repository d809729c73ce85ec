package main

import "testing"

func TestUnansweredFlowsAreRefused(t *testing.T) {
	for _, c := range []struct {
		answered, flows int
		ok              bool
	}{{16, 16, true}, {15, 16, false}, {64226, 65536, true}, {64225, 65536, false}, {0, 65536, false}} {
		if err := allAnswered(c.answered, c.flows); (err == nil) != c.ok {
			t.Errorf("%d of %d: %v", c.answered, c.flows, err)
		}
	}
}
