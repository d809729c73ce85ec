package explain

import (
	"net/netip"

	"github.com/thurward/thurward/internal/host/policy"
	"github.com/thurward/thurward/internal/shared/ruleset"
)

// Plausible reports whether a packet with these ends can arrive where it comes from. What
// it asks of the source and of the destination does not depend on the other.
func Plausible(p *policy.Policy, f policy.Flow) bool {
	reason, _ := implausible(p, &f)
	return reason == 0
}

// NameCounts reports whether rules see the name by which a flow's source knows its
// destination, when it sends to an address that is not the firewall itself.
func NameCounts(p *policy.Policy, rs *ruleset.Policy, f policy.Flow, sentTo netip.Addr) bool {
	return nameless(p, rs, &f, sentTo, false) == ""
}
