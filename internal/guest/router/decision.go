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
	restart                // it opens a connection in place of one that is over
)

// A decision is what the router has decided about a packet, and why. Functions that decide
// return one and have no effect; Engine.drop carries out a drop.
type decision struct {
	outcome outcome
	reason  verdict.Reason
	rule    uint32        // the rule that decided, or the default action's index
	ruled   bool          // dropped by a rule, or by the default action
	quiet   bool          // no event: an earlier packet of this direction has caused one
	notice  notice        // the answer to the sender
	mtu     int           // noticeTooBig: the MTU of the egress port
	flow    conntrack.Ref // the flow's direction, or None
	name    naming
}

// A naming is the part of an event about the destination's name.
type naming struct {
	name   fqdn.Name    // 0: none
	lookup uint64       // number of the DNS query that bound it, 0: none
	hint   verdict.Hint // further information beside the verdict
	ago    uint32       // NameExpired: seconds since then, rounded up
}

// A notice is the answer to the sender of a dropped packet.
type notice uint8

const (
	noticeNone     notice = iota
	noticeRejected        // a rule rejects it: TCP RST, else ICMP 3/13 (RFC 5508 REQ-8)
	noticeRefused         // the policy accepts it, but there is no room, port or service: ICMP 3/13
	noticeReset           // a segment of no connection: TCP RST
	noticeUnknown         // the same, of one that the policy would let begin; it has its share of answers
	noticeTimeExceeded
	noticeTooBig // ICMP 3/4 (RFC 1191), where the packet may not be fragmented
)

// dropped returns the decision to drop a packet for a reason other than a rule.
func (e *Engine) dropped(why verdict.Reason) decision {
	return decision{outcome: drop, reason: why, rule: e.policy.DefaultRule(), flow: conntrack.None}
}

// denied returns the decision of a rule, or of the default action, to deny or reject. Only
// the first packet of a direction causes an event.
func (e *Engine) denied(rule uint32, flow conntrack.Ref, first bool, name naming) decision {
	d := decision{
		outcome: drop, reason: verdict.ExplicitDeny, rule: rule, ruled: true,
		quiet: !first, flow: flow, name: name,
	}
	if rule == e.policy.DefaultRule() {
		d.reason = verdict.NoMatchingAllowRule
	}
	if e.rejects && e.rejecting(rule) {
		d.notice = noticeRejected
	}
	return d
}

// refused returns the decision to drop a packet that the policy accepts, but for which
// there is no port, room or service. If the default action is reject, the sender is
// notified (RFC 5508 REQ-8), except for a RST.
func (e *Engine) refused(p *received, why verdict.Reason, name naming) decision {
	d := e.dropped(why)
	d.name = name
	if e.policy.Settings.DefaultAction == ruleset.Reject && why != verdict.ConntrackInvalid && p.Flags&packet.RST == 0 {
		d.notice = noticeRefused
	}
	return d
}

// fits reports whether a packet leaves through port out for certain; leaves decides about
// the others.
func (e *Engine) fits(p *received, out *port) bool { return p.TTL > 1 && int(p.Total) <= out.mtu }

// leaves decides whether a packet that the policy accepts can leave through port out: its
// TTL must be above 1, and it must fit the MTU or be allowed to be fragmented. It is not
// called for packets that the policy denies, so that answers do not reveal the firewall.
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

// acceptReason returns the reason of an accept by the rule with this index, or by the
// default action.
func (e *Engine) acceptReason(rule uint32) verdict.Reason {
	if rule == e.policy.DefaultRule() {
		return verdict.DefaultAction
	}
	return verdict.RuleAccept
}
