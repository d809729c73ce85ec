package differential

import (
	"testing"

	"github.com/thurward/thurward/internal/host/policy/compile"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// TestNotices proves that the comparison can fail: a firewall without the
// destination translations of the kernel's rules, and one that forwards what
// these deny, differ in ways that no class allows.
func TestNotices(t *testing.T) {
	r := newRouter(t)
	for name, spoil := range map[string]func(p *ruleset.Policy){
		"no DNAT":  func(p *ruleset.Policy) { p.DNAT = nil },
		"no deny":  func(p *ruleset.Policy) { p.Matches[0].PortLo, p.Matches[0].PortHi = 55, 55 },
		"one port": func(p *ruleset.Policy) { p.SNAT[0].PortLo, p.SNAT[0].PortHi = 2000, 2000 },
	} {
		b := &bench{t: t, router: r, policy: compiled(t)}
		spoil(b.policy)
		if err := compile.Classifier(b.policy); err != nil {
			t.Fatal(err)
		}
		unknown := 0
		for seed := range uint64(60) {
			flows, steps := generate(seed, 0)
			if d := b.compare(flows, steps); d != nil && classOf(d) == nil {
				unknown++
			}
		}
		if unknown == 0 {
			t.Errorf("%s: not noticed", name)
		}
	}
}

// A said is a segment of a recorded connection from a client on the LAN.
type said struct {
	reply    bool
	flags    uint8
	seq, ack uint32
	n        int
}

// recorded are connections that a firewall once broke, or exposed to forgery: it dropped
// the last segment, and Linux does not.
var recorded = map[string][]said{
	"a refused reconnect": {
		{false, syn, 1000, 0, 0}, {true, syn | ack, 5000, 1001, 0}, {false, ack, 1001, 5001, 0},
		{false, syn, 700_000, 0, 0}, {true, rst | ack, 0, 700_001, 0}},
	"a refused reconnect of a closed connection": {
		{false, syn, 1000, 0, 0}, {true, syn | ack, 5000, 1001, 0}, {false, ack, 1001, 5001, 0},
		{false, fin | ack, 1001, 5001, 0}, {true, fin | ack, 5001, 1002, 0}, {false, syn, 700_000, 0, 0}, {true, rst | ack, 0, 700_001, 0}},
	"the first of two SYN-ACKs": {
		{false, syn, 1000, 0, 0}, {true, syn | ack, 5000, 1001, 0}, {false, syn, 1000, 0, 0}, {true, syn | ack, 900_000, 1001, 0}, {false, ack, 1001, 5001, 0}},
	"and its data": {
		{false, syn, 1000, 0, 0}, {true, syn | ack, 5000, 1001, 0}, {false, syn, 1000, 0, 0}, {true, syn | ack, 900_000, 1001, 0}, {false, ack, 1001, 5001, 0},
		{true, ack, 5001, 1001, 1000}, {false, ack, 1001, 6001, 10}},
	"a denied SYN after a reset": {
		{false, syn, 1000, 0, 0}, {true, syn | ack, 5000, 1001, 0}, {false, ack, 1001, 5001, 0},
		{true, rst, 5001, 0, 0}, {true, syn, 700_000, 0, 0}, {false, ack, 1001, 5001, 100}},
	"its own SYN after a reset": {
		{false, syn, 1000, 0, 0}, {true, syn | ack, 5000, 1001, 0}, {false, ack, 1001, 5001, 0},
		{true, rst, 5001, 0, 0}, {false, syn, 1000, 0, 0}, {false, ack, 1001, 5001, 100}},
	"begins before the window": {
		{false, syn, 1000, 0, 0}, {true, syn | ack, 5000, 1001, 0}, {false, ack, 1001, 5001, 0}, {true, ack, 5001, 1001, 1400},
		{true, ack, 1<<32 + 6401 - 1<<16 - 700, 1001, 1400}},
	"what the resetting side has sent": {
		{false, syn, 1000, 0, 0}, {true, syn | ack, 5000, 1001, 0}, {false, ack, 1001, 5001, 0},
		{true, rst, 5001, 0, 0}, {true, ack, 5001, 1001, 100}, {false, ack, 1001, 5101, 10}},
	"the first of two SYNs": {
		{false, syn, 1000, 0, 0}, {false, syn, 90, 0, 0}, {true, syn | ack, 5000, 1001, 0}},
}

// TestNoticesOddConnections: thurward forwards what Linux forwards of those connections;
// and if it did not, no class would allow that.
func TestNoticesOddConnections(t *testing.T) {
	b := &bench{t: t, router: newRouter(t), policy: compiled(t)}
	flows := []flow{{kind: outbound, proto: packet.TCP, a: endpoint{ip(lanHosts[0]), 4000}, b: endpoint{ip(wanHosts[0]), 80}}}
	for name, segments := range recorded {
		var steps []step
		for _, s := range segments {
			steps = append(steps, step{side: entry(&flows[0], s.reply), reply: s.reply, why: "recorded",
				spec: spec{proto: packet.TCP, ttl: 64, flags: s.flags, seq: s.seq, ack: s.ack, win: 8192, data: make([]byte, s.n)}})
		}
		if d := b.compare(flows, steps); d != nil {
			t.Errorf("%s:\n%v", name, d)
			continue
		}
		last := &steps[len(steps)-1]
		frame := last.spec.frame(last.side, ends{})
		d := &difference{flows: flows, steps: steps, world: newWorld(flows)}
		for range steps[1:] {
			d.passed = append(d.passed, true)
		}
		if name == "a denied SYN after a reset" {
			d.passed[len(d.passed)-1] = false
		}
		for _, why := range []verdict.Reason{verdict.ConntrackInvalid, verdict.NoMatchingAllowRule} {
			d.linux, d.ours = result{}, result{reason: why}
			d.linux.out[1-last.side] = [][]byte{frame}
			if c := classOf(d); c != nil {
				t.Errorf("%s: dropped as %v, and called %s", name, why, c.name)
			}
		}
		// Nor may thurward alone forward a segment that is far from all others.
		d.linux, d.ours = result{}, result{}
		d.ours.out[1-last.side] = [][]byte{frame}
		spoilt := *last
		spoilt.spec.seq += 1 << 30
		spoilt.spec.ack += 1 << 30
		if spoilt.spec.flags == syn|ack || spoilt.spec.flags&ack != 0 {
			d.steps = append(steps[:len(steps)-1:len(steps)-1], spoilt)
			if c := classOf(d); c != nil {
				t.Errorf("%s: a wrong one passed, and was called %s", name, c.name)
			}
		}
	}
}
