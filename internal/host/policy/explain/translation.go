package explain

import (
	"fmt"

	"github.com/thurward/thurward/internal/host/policy"
)

// hides returns the snat entry for which the data plane drops a flow that the
// rules accept: it comes from the WAN straight to a host whose source the entry
// translates. From outside such a host has no address but those of nat.dnat: a
// peer that could use the host's own would bypass the sources that an entry there
// is for.
// It returns nil when there is none.
func hides(p *policy.Policy, o *Outcome) *policy.SNAT {
	f := &o.Seen
	if f.FromLAN || f.Established || o.Local || o.DNAT >= 0 {
		return nil
	}
	for i := range p.SNAT {
		if n := &p.SNAT[i]; !n.Source.IsValid() || n.Source.Contains(f.Dst.Addr()) {
			return n
		}
	}
	return nil
}

// sourceText says which sources an entry is for, as an insertion, "" for all.
func sourceText(n *policy.SNAT) string {
	if !n.Source.IsValid() {
		return ""
	}
	return fmt.Sprintf(" (snat of %v)", n.Source)
}
