package router

import (
	"github.com/thurward/thurward/internal/guest/conntrack"
	"github.com/thurward/thurward/internal/guest/fqdn"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// An outcome is what is done with a packet.
type outcome uint8

const (
	pass    outcome = iota // it goes on
	drop                   // it ends here
	kept                   // it is no longer the caller's: held until more is known, or dropped with a connection that was refused
	restart                // it opens a connection in place of one that is over
)

// A decision is what the router has decided about a packet, and why. Functions
// that decide return one and send nothing; Engine.drop carries it out.
type decision struct {
	outcome outcome
	reason  verdict.Reason
	rule    uint32        // the rule that decided, or the default action's index
	ruled   bool          // the drop is that of a rule, or of the default action
	quiet   bool          // no event: a packet of this direction has made one
	notice  notice        // what the sender is told
	mtu     int           // noticeTooBig: what the way out carries
	flow    conntrack.Ref // the flow's direction, or None
	name    naming
}

// A naming is what an event says of the destination's name.
type naming struct {
	name   fqdn.Name    // 0: none
	lookup uint64       // the DNS query that told it, 0: none
	hint   verdict.Hint // what is worth knowing beside the verdict
	ago    uint32       // NameExpired: for how many seconds, rounded up
}

// A notice is what the sender of a dropped packet is told.
type notice uint8

const (
	noticeNone     notice = iota
	noticeRejected        // a rule rejects it: TCP RST, else ICMP 3/13 (RFC 5508 REQ-8)
	noticeRefused         // the policy accepts it, but there is no room, port or service for it: ICMP 3/13
	noticeReset           // TCP RST: a segment of no connection
	noticeTimeExceeded
	noticeTooBig // ICMP 3/4 (RFC 1191), where the packet may not be fragmented
)

// dropped is the decision to drop a packet for a reason that is not a rule's.
func (e *Engine) dropped(why verdict.Reason) decision {
	return decision{outcome: drop, reason: why, rule: e.policy.DefaultRule(), flow: conntrack.None}
}

// denied is the decision of a rule, or the default action, that denies or rejects.
// The first packet of a direction makes an event.
func (e *Engine) denied(rule uint32, flow conntrack.Ref, first bool, name naming) decision {
	d := decision{outcome: drop, reason: verdict.ExplicitDeny, rule: rule, ruled: true, quiet: !first, flow: flow, name: name}
	if rule == e.policy.DefaultRule() {
		d.reason = verdict.NoMatchingAllowRule
	}
	if e.rejects && e.rejecting(rule) {
		d.notice = noticeRejected
	}
	return d
}

// refused is the decision to drop a packet that the policy accepts, but for which
// there is no port, no room, or nothing that would take it. Where the policy's
// default is to reject, its sender is told (RFC 5508 REQ-8), but for that of a
// reset.
func (e *Engine) refused(p *received, why verdict.Reason, name naming) decision {
	d := e.dropped(why)
	d.name = name
	if e.policy.Settings.DefaultAction == ruleset.Reject && why != verdict.ConntrackInvalid && !(p.Class == packet.ClassTCP && p.Flags&packet.RST != 0) {
		d.notice = noticeRefused
	}
	return d
}

// leaves decides whether a packet that the policy accepts can leave by port out: its
// TTL must not end here, and it must fit, or be such as may be fragmented. What the
// policy denies is not asked this: no answer tells of the firewall.
func (e *Engine) leaves(p *received, out *port) decision {
	switch {
	case p.TTL <= 1:
		d := e.dropped(verdict.TTLExpired)
		if e.policy.Settings.Flags&ruleset.FlagNoTimeExceeded == 0 {
			d.notice = noticeTimeExceeded
		}
		return d
	case int(p.Total) > out.mtu && p.DF && !e.fragmentsFit(p, out):
		d := e.dropped(verdict.PacketTooBig)
		d.notice, d.mtu = noticeTooBig, out.mtu
		return d
	}
	return decision{}
}

// acceptReason says why the rule with this index, or the default action, accepts.
func (e *Engine) acceptReason(rule uint32) verdict.Reason {
	if rule == e.policy.DefaultRule() {
		return verdict.DefaultAction
	}
	return verdict.RuleAccept
}
