package router

import (
	"github.com/thurward/thurward/internal/guest/filter"
	"github.com/thurward/thurward/internal/guest/icmperr"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
)

// TCP segments of no connection. After a restart of the firewall, or when a connection's
// time is over, its ends do not know that it is gone: they repeat their data for minutes. A
// segment that the policy would have let begin a connection is answered by a RST, as a host
// would answer it (RFC 9293 section 3.10.7.1); what the policy denies learns nothing.
//
// An answer is never longer than what it answers, goes to the sender only, and has a rate of
// its own: whoever sends segments in others' names gets no more out of the firewall than out
// of any host, and takes nobody else's answers. A segment with the addresses of a connection
// that exists is one of that connection and does not come here.

// maxAnyName bounds the patterns of names that are tried for one segment.
const maxAnyName = 512

// newUnknown reads from the policy whether such segments are answered. Which name the sender
// had resolved is not known any more: a rule by name counts for any address.
func (e *Engine) newUnknown(p *ruleset.Policy) {
	if e.resetsUnknown = p.Settings.Flags&ruleset.FlagResetUnknown != 0; !e.resetsUnknown {
		return
	}
	for i := range min(len(p.Names), maxAnyName) {
		e.anyName = append(e.anyName, uint32(i))
	}
}

// couldBegin reports whether a segment of no connection, which fp is as rules see it, is to
// be answered by a RST. The policy is asked no more often than there may be answers.
func (e *Engine) couldBegin(p *received, to *destination, fp *filter.Packet, now int64) bool {
	if p.Class != packet.ClassTCP || p.Flags&packet.RST != 0 {
		return false
	}
	if p.in.role == ruleset.WAN && to.Addr == p.Dst && e.nat.Translates(p.Dst) {
		return false // nor could a SYN begin one
	}
	if !e.mayAnswer(p, icmperr.Unknown, now) {
		return false
	}
	if p.in.role == ruleset.LAN {
		fp.Names = e.anyName
	}
	return e.filter.Decide(fp).Action == ruleset.Accept
}
