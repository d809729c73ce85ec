package main

import (
	"strings"
	"testing"
)

func TestMedians(t *testing.T) {
	var s summary
	for _, v := range []float64{4, 9, 1, 7, 3} {
		tb := table{}
		tb.add("x", result{perCPU: v, wire: 10})
		s = append(s, tb)
	}
	if m := s.median(func(t table) float64 { return t["x"].perCPU / t["x"].wire }); m != [3]float64{0.1, 0.4, 0.9} {
		t.Error(m)
	}
}

// TestMultiples: each rate of the firewall stands beside the controls with as
// many flows, and a control that could not be measured is no infinite multiple.
func TestMultiples(t *testing.T) {
	tb := table{}
	for name, v := range map[string]float64{
		"wire, 64 B": 20e6, "16 flows, 64 B": 12e6, "1 M flows, 64 B": 6e6,
		"nftables, 16 flows": 2e6, "nftables, 64 k flows": 1e6, "... flooded, 16": 3e6,
	} {
		tb.add(name, result{perCPU: v, wire: 20e6, busy: 0.5})
	}
	var b strings.Builder
	summary{tb}.print(&b)
	for name, want := range map[string]string{
		"wire, 64 B":      "20.00 100% (100 to 100)",
		"16 flows, 64 B":  "12.00 60% ( 60 to 60) 6.0 ( 6.0 to 6.0) 12.0 (12.0 to 12.0) 4.0 ( 4.0 to 4.0)",
		"1 M flows, 64 B": "6.00 30% ( 30 to 30) 6.0 ( 6.0 to 6.0) 12.0 (12.0 to 12.0) -",
	} {
		if got := strings.Join(strings.Fields(b.String()), " "); !strings.Contains(got, name+" "+want) {
			t.Errorf("%s: not %q:\n%s", name, want, b.String())
		}
	}
}
