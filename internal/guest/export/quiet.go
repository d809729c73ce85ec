package export

import (
	"github.com/thurward/thurward/internal/shared/event"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// quiet reports whether the policy wants no event of a record (log: of a rule, and of
// the policy). Such records are counted by the data plane as others are, and sampled
// for spans. What went wrong with a flow of a quiet rule is told.
func (c *Context) quiet(r *event.Record) bool {
	if c.Policy == nil || r.Kind != event.Verdict && r.Kind != event.FlowEnd {
		return false
	}
	p := c.Policy
	ruled := r.Reason == verdict.RuleAccept || r.Reason == verdict.ExplicitDeny
	if ruled && r.Rule < uint32(len(p.Rules)) && p.Rules[r.Rule].Quiet != 0 {
		return true
	}
	if r.Kind != event.Verdict || r.Action != verdict.Drop || r.Reason >= verdict.NumReasons {
		return false
	}
	return p.Settings.Quiet>>r.Reason&1 != 0 ||
		r.Reason == verdict.Martian && p.Settings.Flags&ruleset.FlagQuietGroups != 0 && group(p, r)
}

// group reports whether a record's destination is a multicast address (RFC 5771), the
// limited broadcast address, or the broadcast address of an interface's network.
func group(p *ruleset.Policy, r *event.Record) bool {
	d, ok := packet.AddrFrom16(r.Dst)
	if r.Truncated || !ok {
		return false
	}
	if d>>28 == 0xe || d == 0xffffffff {
		return true
	}
	for i := range p.Interfaces {
		f := &p.Interfaces[i]
		a, ok := packet.AddrFrom16(f.Address)
		// Of /31 and /32 both addresses are hosts.
		if ok && f.PrefixLen < 31 && d == a|packet.Addr(^uint32(0)>>f.PrefixLen) {
			return true
		}
	}
	return false
}
