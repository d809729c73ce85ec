package router

import (
	"testing"

	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

const (
	web  = "198.51.100.80"
	host = "10.0.0.2"
	ours = "203.0.113.10"

	established rule = "accept ingress established"
)

func syn(src string, sport uint16, dst string, dport uint16) pkt {
	return tcpSeg(src, sport, dst, dport, packet.SYN, 1000, 0)
}

func TestS01_FirstMatchWins(t *testing.T) {
	l := newLab(t, "accept egress tcp :443", "deny egress tcp :443")
	l.one(lan, syn(host, 4000, web, 443))
	if c := l.e.Counters(); c.Accepts[0] != 1 || c.Drops[1] != 0 {
		t.Fatalf("accepts %v, drops %v", c.Accepts, c.Drops)
	}
}

func TestS02_NoMatchTakesDefault(t *testing.T) {
	l := newLab(t, "accept egress tcp :443")
	l.dropped(lan, syn(host, 4000, web, 80), verdict.NoMatchingAllowRule)
	if len(l.seen) != 1 {
		t.Fatalf("%d events, want 1", len(l.seen))
	}
	if r := l.last(); r.Rule != l.policy.DefaultRule() || r.Action != verdict.Drop || l.e.c.Drops[1] != 1 {
		t.Fatalf("event %+v", r)
	}
	l = newLabWith(t, func(p *ruleset.Policy) { p.Settings.DefaultAction = ruleset.Accept })
	l.one(lan, syn(host, 4000, web, 80))
	if r := l.last(); r.Reason != verdict.DefaultAction || r.Action != verdict.Accept {
		t.Fatalf("event %+v", r)
	}
}

func TestS03_SourceCIDR(t *testing.T) {
	l := newLabWith(t, func(p *ruleset.Policy) { p.Interfaces[0].PrefixLen = 16 }, "accept egress tcp 10.0.0.0/24")
	l.one(lan, syn("10.0.0.42", 4000, web, 80))
	l.dropped(lan, syn("10.0.1.42", 4000, web, 80), verdict.NoMatchingAllowRule)
}

func TestS04_OtherPortDoesNotMatch(t *testing.T) {
	l := newLab(t, "accept egress tcp :8000-8010")
	l.one(lan, syn(host, 4000, web, 8000))
	l.one(lan, syn(host, 4000, web, 8010))
	l.dropped(lan, syn(host, 4000, web, 7999), verdict.NoMatchingAllowRule)
	l.dropped(lan, syn(host, 4000, web, 8011), verdict.NoMatchingAllowRule)
}

func TestS05_OtherProtocolDoesNotMatch(t *testing.T) {
	l := newLab(t, "accept egress tcp :53")
	l.dropped(lan, udp(host, 4000, web, 53), verdict.NoMatchingAllowRule)
	l.one(lan, syn(host, 4000, web, 53))
}

func TestS06_OmittedFieldMatchesAnything(t *testing.T) {
	l := newLab(t, "accept")
	l.one(lan, syn(host, 4000, web, 1))
	l.one(lan, udp("10.0.0.77", 9, "8.8.8.8", 65535))
	l.one(lan, echo(host, web, packet.EchoRequest, 7))
}

func TestS07_EgressRuleIgnoresTheWAN(t *testing.T) {
	l := newLab(t, "accept egress")
	l.dropped(wan, syn(web, 4000, host, 80), verdict.NoMatchingAllowRule)
	if l.e.c.Accepts[0] != 0 {
		t.Fatal("counted")
	}
}

func TestS10_ReturnTrafficPassesAsEstablished(t *testing.T) {
	l := newLab(t, "accept egress tcp :443", established)
	v := l.one(lan, syn(host, 4000, web, 443))
	l.one(wan, tcpSeg(web, 443, ours, v.SrcPort, packet.SYN|packet.ACK, 5000, 1001))
	if c := l.e.Counters(); c.Accepts[0] != 1 || c.Accepts[1] != 1 {
		t.Fatalf("accepts %v", c.Accepts)
	}
	// Without such a rule the answer is dropped, and the request is not.
	l = newLab(t, "accept egress tcp :443")
	v = l.one(lan, syn(host, 4000, web, 443))
	l.dropped(wan, tcpSeg(web, 443, ours, v.SrcPort, packet.SYN|packet.ACK, 5000, 1001), verdict.NoMatchingAllowRule)
}

func TestS11_UnsolicitedFromWANIsDenied(t *testing.T) {
	l := newLab(t, "accept egress", established)
	l.dropped(wan, syn(web, 4000, host, 22), verdict.NoMatchingAllowRule)
	l.dropped(wan, syn(web, 4000, ours, 22), verdict.NoMatchingAllowRule)
	l.dropped(wan, udp(web, 4000, ours, 53), verdict.NoMatchingAllowRule)
}

// TestShadowRule: what a shadow rule would do is counted and reported, while the rules
// below it decide.
func TestShadowRule(t *testing.T) {
	l := newLabWith(t, func(p *ruleset.Policy) { p.Rules[0].Mode = ruleset.Shadow }, "deny egress tcp :443", "accept egress tcp", established)
	l.one(lan, syn(host, 4000, web, 443))
	c := l.e.Counters()
	if c.Shadows[0] != 1 || c.Drops[0] != 0 || c.Accepts[1] != 1 || c.Decisions != 1 || len(l.seen) != 2 {
		t.Fatalf("shadows %v, drops %v, accepts %v, decisions %d, %d events", c.Shadows, c.Drops, c.Accepts, c.Decisions, len(l.seen))
	}
	if r := l.seen[0]; r.Action != verdict.WouldDrop || r.Rule != 0 || r.DstPort != 443 {
		t.Fatalf("event %+v", r)
	}
	l.one(lan, syn(host, 4001, web, 80))
	if c.Shadows[0] != 1 || c.Decisions != 2 {
		t.Fatal("the shadow rule counts what it does not match")
	}
}
