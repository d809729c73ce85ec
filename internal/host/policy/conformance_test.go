package policy

import (
	"strings"
	"testing"
)

// TestRFC4787_REQ7_OverlappingNetworksAreRefused: the inner and the outer
// network are told apart by address, so a policy may not give both the same
// ones.
func TestRFC4787_REQ7_OverlappingNetworksAreRefused(t *testing.T) {
	for lan, overlap := range map[string]bool{"10.0.0.1/24": false, "203.0.113.1/24": true, "203.0.0.1/16": true, "203.0.113.129/25": true, "203.0.114.1/24": false} {
		src := "interfaces:\n  lan0: { address: " + lan + " }\n  wan0: { address: 203.0.113.10/24, gateway: 203.0.113.2 }\ndefaults: { default_action: deny }\nrules: []\n"
		p, ds := Load("rules.yaml", []byte(src))
		said := false
		for _, d := range ds {
			said = said || strings.Contains(d.Message, "overlap")
		}
		if (p == nil) != overlap || said != overlap {
			t.Errorf("%s: refused %v, %v", lan, p == nil, ds)
		}
	}
}
