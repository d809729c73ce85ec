package main

import "testing"

func TestMedians(t *testing.T) {
	var s summary
	for _, v := range []float64{4, 9, 1, 7, 3} {
		tb := table{}
		tb.add(scenarios[0].name, result{perCPU: 10})
		tb.add("x", result{perCPU: v})
		s = append(s, tb)
	}
	if m := s.median(func(t table) float64 { return t["x"].perCPU / t.wire() }); m != [3]float64{0.1, 0.4, 0.9} {
		t.Error(m)
	}
	if nftablesOf(16) != "nftables, 16 flows" || nftablesOf(1<<20) != "nftables, 64 k flows" {
		t.Error("the wrong control")
	}
}
