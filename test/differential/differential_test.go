// Package differential compares the data plane with the Linux kernel: the same
// policy as nftables rules, the same packets, and every difference in what
// comes out is a failure, or one of the classes that
// docs/differences-from-linux.md explains.
package differential

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"regexp"
	"slices"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/thurward/thurward/internal/host/policy/compile"
	"github.com/thurward/thurward/internal/host/replay"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

var (
	sequences = flag.Int("sequences", 200, "how many random sequences to compare")
	firstSeed = flag.Uint64("seed", 1, "seed of the first; the others follow")
	verbose   = flag.Bool("examples", false, "print an example of each allowed difference")
	show      = flag.Int("show", 5, "how many unknown differences to print")
)

// nftRules is the policy of compiled in nftables' language.
const nftRules = `
table ip thurward {
	chain prerouting {
		type nat hook prerouting priority dstnat
		iifname "wan" ip daddr 203.0.113.10 tcp dport 443 dnat to 10.0.0.5:443
		iifname "wan" ip daddr 203.0.113.10 udp dport 5353 dnat to 10.0.0.5:53
		ip daddr 203.0.113.10 tcp dport 8443 dnat to 10.0.0.5:443
		ip daddr 203.0.113.10 udp dport 5354 dnat to 10.0.0.5:53
	}
	chain postrouting {
		type nat hook postrouting priority srcnat
		oifname "wan" ip saddr 10.0.0.0/24 meta l4proto { tcp, udp } masquerade to :1024-65535
		oifname "wan" ip saddr 10.0.0.0/24 ip protocol icmp masquerade to :1024-65535
		oifname "wan" ip saddr 10.0.0.0/24 masquerade
		oifname "lan" ip saddr 10.0.0.0/24 ct status dnat meta l4proto { tcp, udp } snat to 203.0.113.10:1024-65535
	}
	chain forward {
		type filter hook forward priority filter; policy drop
		ct state invalid drop
		ct state established,related accept
		iifname "lan" oifname "wan" udp dport 54 drop
		iifname "lan" oifname "wan" tcp dport 55 reject with tcp reset
		iifname "lan" oifname "wan" udp dport 55 reject with icmp admin-prohibited
		iifname "lan" oifname "wan" accept
		iifname "lan" oifname "lan" ct status dnat accept
		iifname "wan" ip daddr 10.0.0.5 tcp dport 443 accept
		iifname "wan" ip daddr 10.0.0.5 udp dport 53 accept
	}
	chain input {
		type filter hook input priority filter; policy drop
		iifname "lan" ip daddr 10.0.0.1 icmp type echo-request accept
	}
}
`

func mask(n int) (m ruleset.Addr) {
	for i := range m {
		for b := range 8 {
			if i*8+b < 96+n {
				m[i] |= 0x80 >> b
			}
		}
	}
	return m
}

// compiled is the policy of nftRules.
func compiled(t *testing.T) *ruleset.Policy {
	p := &ruleset.Policy{
		Settings: ruleset.Settings{DefaultAction: ruleset.Deny, MaxFlows: 256, Fragments: ruleset.FragmentsReassemble},
		Interfaces: []ruleset.Interface{
			{Role: ruleset.LAN, Address: ip(lanAddr).To16(), PrefixLen: 24},
			{Role: ruleset.WAN, Address: ip(wanAddr).To16(), PrefixLen: 24, Gateway: ip(gateway).To16()},
		},
		SNAT: []ruleset.SNAT{{Interface: 1, PortLo: 1024, PortHi: 65535, Source: ip("10.0.0.0").To16(), SourceMask: mask(24)}},
	}
	for _, d := range []ruleset.DNAT{
		{PortLo: 443, PortHi: 443, ToPort: 443, Proto: packet.TCP},
		{PortLo: 5353, PortHi: 5353, ToPort: 53, Proto: packet.UDP},
		{PortLo: 8443, PortHi: 8443, ToPort: 443, Proto: packet.TCP, Hairpin: 1},
		{PortLo: 5354, PortHi: 5354, ToPort: 53, Proto: packet.UDP, Hairpin: 1},
	} {
		d.External, d.To = ip(wanAddr).To16(), ip(server).To16()
		p.DNAT = append(p.DNAT, d)
	}
	rule := func(a ruleset.Action, m ruleset.Match) {
		m.Action, m.Rule = a, uint32(len(p.Rules))
		if m.PortHi == 0 {
			m.PortHi = 65535
		}
		p.Rules = append(p.Rules, ruleset.Rule{Action: a})
		p.Matches = append(p.Matches, m)
	}
	toServer := ruleset.Match{Direction: verdict.Ingress, State: ruleset.StateNew, Dst: ip(server).To16(), DstMask: mask(32)}
	tcp, udp := toServer, toServer
	tcp.Proto, tcp.PortLo, tcp.PortHi = packet.TCP, 443, 443
	udp.Proto, udp.PortLo, udp.PortHi = packet.UDP, 53, 53
	rule(ruleset.Deny, ruleset.Match{Direction: verdict.Egress, Proto: packet.UDP, PortLo: 54, PortHi: 54})
	rule(ruleset.Reject, ruleset.Match{Direction: verdict.Egress, Proto: packet.TCP, PortLo: 55, PortHi: 55})
	rule(ruleset.Reject, ruleset.Match{Direction: verdict.Egress, Proto: packet.UDP, PortLo: 55, PortHi: 55})
	rule(ruleset.Accept, ruleset.Match{Direction: verdict.Egress})
	rule(ruleset.Accept, tcp)
	rule(ruleset.Accept, udp)
	rule(ruleset.Accept, ruleset.Match{Direction: verdict.Ingress, State: ruleset.StateEstablished})
	if err := compile.Classifier(p); err != nil {
		t.Fatal(err)
	}
	return p
}

// A result is what one firewall did with a step.
type result struct {
	out    [2][][]byte // canonical frames, by side
	raw    [2][][]byte
	reason verdict.Reason // thurward: why it dropped, if it did
}

func (r *result) String() string {
	s := ""
	for side, fs := range r.out {
		for _, f := range fs {
			s += fmt.Sprintf("      %v: %s\n", replay.Side(side), describe(f))
		}
	}
	if s == "" {
		s = "      nothing\n"
	}
	if r.reason != 0 {
		s += fmt.Sprintf("      dropped: %v\n", r.reason)
	}
	return s
}

func (r *result) count() int { return len(r.out[0]) + len(r.out[1]) }

// A difference is a step after which the firewalls disagree, with the steps
// before it.
type difference struct {
	flows       []flow
	steps       []step // the last one shows it
	linux, ours result
	passed      []bool // by step: it left both firewalls
	world       *world // thurward's, after it
}

func (d *difference) last() *step { return &d.steps[len(d.steps)-1] }

func (d *difference) String() string {
	var b strings.Builder
	w := newWorld(d.flows)
	for i := range d.steps {
		st := &d.steps[i]
		fmt.Fprintf(&b, "    %d. %v %s: %s\n", i+1, st.side, st.why, describe(w.frame(st)))
	}
	fmt.Fprintf(&b, "    Linux:\n%s    thurward:\n%s", d.linux.String(), d.ours.String())
	for s := range d.linux.out {
		if len(d.linux.out[s]) == 1 && len(d.ours.out[s]) == 1 && !bytes.Equal(d.linux.out[s][0], d.ours.out[s][0]) {
			fmt.Fprintf(&b, "    Linux    %x\n    thurward %x\n", d.linux.out[s][0], d.ours.out[s][0])
		}
	}
	return b.String()
}

// A bench holds both firewalls.
type bench struct {
	t       *testing.T
	router  *router
	policy  *ruleset.Policy
	packets int
	slow    int // sequences that were repeated
	id      uint16
	used    [1 << 16 / ids]time.Time // when a sequence with these identifications ended
}

// ids is more than the identifications of one sequence.
const ids = 64

// tooLong is how long a sequence may take. It is shorter than all the kernel's
// timers, which run in real time.
const tooLong = fragTime / 2

// compare runs steps through both, from empty tables, to the first difference. If that took
// too long, as it may on a busy machine, the kernel's timers may have expired and
// thurward's not, and the run is repeated.
func (b *bench) compare(flows []flow, steps []step) *difference {
	b.t.Helper()
	for range 10 {
		// The kernel keeps the fragments of incomplete datagrams beyond their
		// sequence, and would put them together with this one's.
		b.id += ids
		end := &b.used[b.id/ids]
		time.Sleep(time.Until(end.Add(fragTime + fragTime/4)))
		begin := time.Now()
		d := b.once(flows, steps)
		*end = time.Now()
		if end.Sub(begin) < tooLong {
			return d
		}
		b.slow++
	}
	b.t.Fatalf("%d packets take longer than %v, ten times", len(steps), tooLong)
	return nil
}

// once is compare, however long it takes.
func (b *bench) once(flows []flow, steps []step) *difference {
	b.t.Helper()
	b.router.reset()
	var out [2][][]byte
	fw, err := replay.NewFirewall(replay.Config{Policy: b.policy, Seed: 1, Buffers: 256,
		Neighbour: func(_ replay.Side, a packet.Addr) ([6]byte, bool) { return macOf(a), true },
		Sent: func(s replay.Side, _ int64, f []byte) {
			if packet.Type(f) == packet.TypeIPv4 {
				out[s] = append(out[s], bytes.Clone(f))
			}
		}})
	if err != nil {
		b.t.Fatal(err)
	}
	for side, as := range [2][]string{lanHosts, {gateway, wanHosts[2]}} { // the router knows its neighbours, too
		for _, a := range as {
			fw.Receive(replay.Side(side), fw.Now(), greeting(replay.Side(side), a))
		}
	}
	theirs, mine := newWorld(flows), newWorld(flows)
	passed := make([]bool, 0, len(steps))
	theirs.id, mine.id = b.id, b.id
	for i := range steps {
		st := &steps[i]
		b.packets++
		var l, o result
		l.raw = b.router.exchange(st.side, theirs.frame(st))
		l.raw[0], l.raw[1] = join(l.raw[0]), join(l.raw[1])
		theirs.learn(st, l.raw)
		before := fw.Engine().Counters().DropReasons
		out = [2][][]byte{}
		fw.Receive(st.side, fw.Now()+2e6, mine.frame(st))
		o.raw = [2][][]byte{join(out[0]), join(out[1])}
		mine.learn(st, o.raw)
		for r, n := range fw.Engine().Counters().DropReasons {
			if n > before[r] {
				o.reason = verdict.Reason(r)
			}
		}
		same := true
		for s := range l.raw {
			for _, f := range l.raw[s] {
				l.out[s] = append(l.out[s], theirs.canonical(st.side, replay.Side(s), f))
			}
			for _, f := range o.raw[s] {
				o.out[s] = append(o.out[s], mine.canonical(st.side, replay.Side(s), f))
			}
			if len(l.out[s]) != len(o.out[s]) {
				same = false
				continue
			}
			for j := range l.out[s] {
				same = same && bytes.Equal(l.out[s][j], o.out[s][j])
			}
		}
		passed = append(passed, l.count() > 0 && o.count() > 0)
		if !same {
			return &difference{flows: flows, steps: append([]step(nil), steps[:i+1]...), linux: l, ours: o, passed: passed, world: mine}
		}
	}
	return nil
}

// minimise removes the steps that are not needed for the difference.
func (b *bench) minimise(d *difference) *difference {
	class := classOf(d)
	for chunk := len(d.steps) / 2; chunk > 0; {
		cut := false
		for at := 0; at+chunk < len(d.steps); {
			fewer := append(append([]step(nil), d.steps[:at]...), d.steps[at+chunk:]...)
			if n := b.compare(d.flows, fewer); n != nil && len(n.steps) == len(fewer) && classOf(n) == class {
				d, cut = n, true
				continue
			}
			at += chunk
		}
		if !cut {
			chunk /= 2
		}
	}
	return d
}

// TestForgetsFragments: what the kernel still keeps of the incomplete datagrams of
// earlier sequences, however many, changes nothing for a later one's.
func TestForgetsFragments(t *testing.T) {
	b := &bench{t: t, router: newRouter(t), policy: compiled(t)}
	flows := []flow{{kind: outbound, proto: packet.UDP, a: endpoint{ip(lanHosts[0]), 4000}, b: endpoint{ip(wanHosts[0]), 53}}}
	pieces := func(size int) (steps []step) {
		s := spec{proto: packet.UDP, ttl: 64, data: make([]byte, 1400)}
		for off := 0; off < packet.UDPLen+len(s.data); off += size {
			s.part = &part{off, size}
			steps = append(steps, step{side: replay.LAN, spec: s, why: "fragment"})
		}
		return steps
	}
	for i := range 300 { // 6 MB in the kernel's terms, of which it has 4 by default
		steps := pieces(64)
		if i%10 != 9 {
			steps = steps[:len(steps)-1]
		}
		if d := b.compare(flows, steps); d != nil {
			t.Fatalf("%d:\n%v", i, d)
		}
	}
	if d := b.compare(flows, pieces(64)[1:]); d != nil {
		t.Fatalf("the first one is missing:\n%v", d)
	}
	b.id -= ids // the same identification again
	if d := b.compare(flows, pieces(704)); d != nil {
		t.Fatalf("the same identification:\n%v", d)
	}
}

// TestDocumented: docs/differences-from-linux.md lists the classes, in their
// order, each with a reason.
func TestDocumented(t *testing.T) {
	doc, err := os.ReadFile("../../docs/differences-from-linux.md")
	if err != nil {
		t.Fatal(err)
	}
	listed := regexp.MustCompile("(?m)^\\| `([a-z-]+)` \\| [^|]{20,} \\| [^|]{20,} \\|$").FindAllStringSubmatch(string(doc), -1)
	var names []string
	for _, m := range listed {
		names = append(names, m[1])
	}
	var want []string
	for _, c := range classes {
		want = append(want, c.name)
	}
	if !slices.Equal(names, want) {
		t.Errorf("documented: %v\nclasses:    %v", names, want)
	}
}

// TestLinux compares random sequences of packets with the Linux kernel.
func TestLinux(t *testing.T) {
	b := &bench{t: t, router: newRouter(t), policy: compiled(t)}
	seen := map[string]int{}
	example := map[string]*difference{}
	unknown := 0
	for i := range *sequences {
		seed := *firstSeed + uint64(i)
		flows, steps := generate(seed, []int{40, 0, 15}[seed%3])
		d := b.compare(flows, steps)
		if d == nil {
			continue
		}
		c := classOf(d)
		if c == nil {
			unknown++
			if unknown <= *show {
				t.Errorf("seed %d: an unknown difference:\n%v", seed, b.minimise(d))
			}
			continue
		}
		seen[c.name]++
		if example[c.name] == nil {
			example[c.name] = d
		}
	}
	if unknown > *show {
		t.Errorf("%d unknown differences", unknown)
	}
	names := make([]string, 0, len(seen))
	for n := range seen {
		names = append(names, n)
	}
	sort.Strings(names)
	text := ""
	for _, n := range names {
		text += fmt.Sprintf("  %-28s %d\n", n, seen[n])
		if *verbose {
			text += b.minimise(example[n]).String()
		}
	}
	uname, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	t.Logf("Linux %s: %d packets in %d sequences, %d repeated since they took too long; allowed differences:\n%s", bytes.TrimSpace(uname), b.packets, *sequences, b.slow, text)
	for _, n := range b.router.notes {
		t.Logf("not set: %s", n)
	}
}
