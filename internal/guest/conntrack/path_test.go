package conntrack

import "testing"

// outward is the path from the LAN to the WAN.
var outward = NewPath(0, 1, false, true)

func pathOf(fromWAN bool) Path {
	if fromWAN {
		return outward.Reverse()
	}
	return outward
}

// TestPath: all pairs of ports, and sides, are returned as given, and Reverse swaps them.
func TestPath(t *testing.T) {
	seen := map[Path]bool{}
	for in := range 8 {
		for out := range 8 {
			for side := range 4 {
				from, to := side&1 != 0, side&2 != 0
				p := NewPath(in, out, from, to)
				if p.Ingress() != in || p.Egress() != out || p.FromWAN() != from || p.Hairpin() != (in == out) || seen[p] {
					t.Errorf("%d, %d, %v, %v: %#x", in, out, from, to, p)
				}
				seen[p] = true
				if r := p.Reverse(); r.Ingress() != out || r.Egress() != in || r.FromWAN() != to || r.Reverse() != p {
					t.Errorf("%#x reversed is %#x", p, r)
				}
			}
		}
	}
}
