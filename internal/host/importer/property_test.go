package importer

import (
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/thurward/thurward/internal/host/policy"
	"github.com/thurward/thurward/internal/host/policy/compile"
	"github.com/thurward/thurward/internal/host/policy/explain"
	compiled "github.com/thurward/thurward/internal/shared/ruleset"
	reason "github.com/thurward/thurward/internal/shared/verdict"
)

var (
	firstSeed = flag.Int("seed", 0, "of the first random rule set")
	sets      = flag.Int("sets", 500, "how many random rule sets are compared")
)

// imported is what a rule set became, ready to be asked.
type imported struct {
	res *Result
	p   *policy.Policy
	rs  *compiled.Policy
}

func (m *imported) flow(k *oPacket, answer bool) policy.Flow {
	return policy.Flow{FromLAN: k.in == "eth1",
		Protocol: map[string]policy.Protocol{"tcp": policy.TCP, "udp": policy.UDP, "icmp": policy.ICMP,
			"gre": 47}[k.proto],
		Src: netip.AddrPortFrom(k.src, uint16(k.sport)), Dst: netip.AddrPortFrom(k.dst,
			uint16(k.dport)), Established: answer}
}

// decide says what becomes of a packet that begins a connection.
func (m *imported) decide(k *oPacket) explain.Outcome {
	return explain.Decide(m.p, m.rs, m.flow(k, false))
}

// announced reports whether a note with an effect is about a packet, as it arrived
// or as the filter saw it.
func (m *imported) announced(e Effect, ks ...*oPacket) bool {
	for _, n := range m.res.Notes {
		for _, k := range ks {
			if n.Effect == e && n.Packets.Has(Packet{FromLAN: k.in == "eth1", Answer: k.state == "established",
				Protocol: map[string]uint8{"tcp": 6, "udp": 17, "icmp": 1, "gre": 47}[k.proto],
				Src:      addrSpan(k.src).lo, Dst: addrSpan(k.dst).lo, SrcPort: uint16(k.sport), Port: uint16(k.dport), Type: uint8(k.icmp)}) {
				return true
			}
		}
	}
	return false
}

// hidden reports whether a packet goes straight to a host whose source is
// translated.
func (m *imported) hidden(k *oPacket) bool {
	return k.in == "eth0" &&
		slices.ContainsFunc(m.p.SNAT,
			func(s policy.SNAT) bool { return s.Source.Contains(k.dst) || !s.Source.IsValid() && k.dst.IsPrivate() })
}

// judge compares what becomes of a connection, and returns what is wrong: nothing
// if it is the same, or was announced.
func (m *imported) judge(s *oSet, k oPacket) string {
	k.state = "new"
	want := s.first(k)
	got := explain.Decide(m.p, m.rs, m.flow(&k, false))
	if got.Local && k.in == "eth1" && k.dport == 53 && !want.local {
		k.dst = oracleOwn[0] // intercepted: as if it had asked the router
		want = s.first(k)
	}
	same := want.accepted == got.Accept && (!want.accepted || want.local == got.Local)
	if same && want.accepted && !want.local &&
		(got.Seen.Dst.Addr() != want.seen.dst || k.proto != "icmp" && int(got.Seen.Dst.Port()) != want.seen.dport) {
		same = false
	}
	name := fmt.Sprintf("%s %v:%d to %v:%d from %s, mark %v: original %v (local %v, seen %v:%d), imported %v (%v, local %v, seen %v)", k.proto, k.src, k.sport, k.dst, k.dport, k.in, k.marked,
		want.accepted, want.local, want.seen.dst, want.seen.dport, got.Accept, got.Reason, got.Local, got.Seen.Dst)
	switch {
	case got.Accept && !same:
		if !m.announced(Permissive, &k, &want.seen) {
			return "more permissive: " + name
		}
	case !same && !want.local:
		if !m.hidden(&k) && got.Reason != reason.Martian && k.proto != "gre" &&
			!m.announced(Stricter, &k, &want.seen) && !(got.Reason == reason.HairpinUnsupported && len(m.p.SNAT) == 0) {
			return "stricter: " + name
		}
	case !same && k.proto == "icmp" && k.in == "eth0":
		if !m.announced(Stricter, &k, &want.seen) {
			return "stricter, of its own: " + name
		}
	}
	if !same || !want.accepted || want.local {
		return ""
	}
	// What answers, and what follows.
	f := want.seen
	answer := oPacket{in: f.out, out: f.in, src: f.dst, dst: f.src, sport: f.dport, dport: f.sport, proto: f.proto,
		state: "established", dnat: f.dnat, marked: f.marked}
	arrives := answer
	if masq := s.tables["nat"][1].rules; f.out == "eth0" && len(masq) > 0 && masq[0].m.matches(&f) {
		arrives.dst = oracleOwn[1]
	}
	v, _ := s.base("mangle", "PREROUTING", &arrives)
	was := v == "accept" && s.forwarded(answer).accepted
	is := explain.Decide(m.p, m.rs, m.flow(&answer, true))
	name = fmt.Sprintf("answer %s %v:%d to %v:%d from %s, mark %v: original %v, imported %v (%v)", f.proto,
		answer.src, answer.sport, answer.dst, answer.dport, answer.in, f.marked, was, is.Accept, is.Reason)
	switch {
	case is.Accept && !was && !m.announced(Permissive, &answer, &arrives):
		return "more permissive: " + name
	case !is.Accept && was && !m.announced(Stricter, &answer, &arrives) && is.Reason != reason.Martian:
		return "stricter: " + name
	}
	f.state, k.state, k.dnat = "established", "established", f.dnat
	v, _ = s.base("mangle", "PREROUTING", &k)
	if !(v == "accept" && s.forwarded(f).accepted) && !m.announced(Permissive, &want.seen, &f) {
		return "what follows passes: " + name
	}
	return ""
}

// importOracle imports a random rule set in one of the two forms.
func importOracle(s *oSet, nft bool) (*imported, error) {
	o := Options{File: "random", LAN: "eth1", WAN: "eth0", LANAddress: netip.MustParsePrefix("10.0.0.1/24"),
		WANAddress: netip.MustParsePrefix("203.0.113.10/24"),
		Gateway:    netip.MustParseAddr("203.0.113.1"), Partial: true, Links: &Links{Interfaces: []Link{{Name: "eth0",
			Addresses: []netip.Prefix{netip.MustParsePrefix("203.0.113.10/24"),
				netip.MustParsePrefix("203.0.113.11/24")}}}}}
	var m imported
	var err error
	if nft {
		m.res, err = NFT(s.nft(), o)
	} else {
		m.res, err = IPTables([]byte(s.iptables()), o)
	}
	if err != nil {
		return nil, err
	}
	var ds []policy.Diagnostic
	if m.p, ds = policy.Load("imported", m.res.YAML); m.p == nil {
		return nil, fmt.Errorf("%v", ds)
	}
	m.rs, err = compile.Compile(m.p)
	return &m, err
}

// TestRandomRuleSets: what a random rule set does with random packets is what the
// imported policy does, or a note about just these packets says that it does not,
// and in which direction. What the rule set does is worked out by code that shares
// nothing with the importer.
func TestRandomRuleSets(t *testing.T) {
	n, first := *sets, *firstSeed
	if testing.Short() {
		n = 300
	}
	same, quiet := 0, 0
	for seed := first; seed < first+n; seed++ {
		r := rand.New(rand.NewPCG(uint64(seed), 21))
		s := randomSet(r)
		nft := seed%2 == 1
		m, err := importOracle(s, nft)
		if err != nil {
			t.Fatalf("seed %d: %v\n%s", seed, err, s.iptables())
		}
		if !m.res.Permissive() {
			quiet++
		}
		for range 60 {
			k := randomPacket(r)
			if wrong := m.judge(s, k); wrong != "" {
				text, _ := json.Marshal(m.res.Notes)
				t.Fatalf("seed %d (nft %v): %s\n%s\n%s\n%s", seed, nft, wrong, s.iptables(), m.res.YAML, text)
			}
			same++
		}
	}
	if quiet < n/4 {
		t.Errorf("only %d of %d rule sets are imported without a note that they are more permissive: too few to show anything", quiet, n)
	}
}
