package policy

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// A Policy is a validated rules.yaml.
type Policy struct {
	File       string
	Digest     [32]byte // SHA-256 of the file's bytes
	Interfaces []Interface
	Defaults   Defaults
	DNS        DNS
	Log        Log
	SNAT       []SNAT
	DNAT       []DNAT
	Rules      []Rule
	Tests      []Test
	Statements []Statement // never and always

	// What names of groups stand for. Rules have it in place of the names.
	AddressGroups map[string][]netip.Prefix
	PortGroups    map[string][]PortRange
}

// An Interface is one side of the firewall.
type Interface struct {
	Name    string
	LAN     bool // else WAN
	Prefix  netip.Prefix
	Gateway netip.Addr // zero: none
	MAC     [6]byte
	HasMAC  bool
	MTU     int // 0: the device's
}

// Defaults are what applies where no rule says otherwise. Timeouts are in
// seconds.
type Defaults struct {
	Action         ruleset.Action
	Line, Column   int // of the action
	MaxFlows       int
	SourceFlows    int // flows that one source may have at once; 0: no limit
	SourceRate     int // new flows that one source may begin in a second; 0: no limit
	Timeouts       map[string]int
	Reassemble     bool // fragments, instead of dropping them
	NoTimeExceeded bool
	NoMSSClamp     bool
	NoFlowEnd      bool
	NoResetUnknown bool
	SampleAccept   float64 // 0 to 1
	SampleDrop     float64 // 0 to 1
	DNSRate        int     // queries that one client may ask in a second
}

// DNS says how names are resolved.
type DNS struct {
	Upstreams []Upstream
	Resolvers []netip.Addr // name servers on the LAN
	Follow    bool         // resolve only names that a rule could use
	Intercept bool
	Block     []string // names and wildcards, lower case, without the dot at the end
	Private   []string // likewise: names that may have addresses of private networks
	TTLFloor  int      // seconds
	TTLGrace  int      // seconds
	MaxNames  int      // bindings

	PlainFallback bool // upstreams without TLS are asked when those with it are down
}

// Log says what causes no events. It is counted all the same.
type Log struct {
	Quiet       []verdict.Reason // drops for these reasons, in their order
	QuietGroups bool             // martians for multicast and broadcast addresses
}

// An Upstream is a name server that the DNS proxy asks.
type Upstream struct {
	Address    netip.Addr
	Port       int
	ServerName string // "": plain DNS; else the name of its TLS certificate
	CA         string // certificates of the authorities that may have signed it, in DER; "": those of the program
}

// A SNAT entry translates the sources of flows that leave by an interface.
type SNAT struct {
	Interface int          // index into Interfaces
	Source    netip.Prefix // zero: all
	External  []netip.Addr // empty: masquerade
	PortLo    int
	PortHi    int
	Line      int
	Column    int
	Path      string // in the document, as nat.snat[0]
}

// A DNAT entry gives a server on the LAN an address and ports on the WAN.
type DNAT struct {
	WAN       netip.Addr
	Ports     PortRange
	To        netip.Addr
	ToPort    int // for the first of Ports; the others follow
	Protocols []Protocol
	From      []netip.Prefix // empty: any source
	Hairpin   bool           // LAN hosts reach it by WAN too
	Line      int
	Column    int
	Path      string // in the document, as nat.dnat[0]
}

// A Rule is one rule; empty lists match anything.
type Rule struct {
	ID, Name     string
	Line, Column int
	Action       ruleset.Action
	Direction    verdict.Direction // Either: any
	Source       []netip.Prefix
	Destination  []netip.Prefix
	Ports        []PortRange
	Names        []string // exact, or with one label *. in front; lower case, without the dot at the end
	Protocols    []Protocol
	States       []State
	Shadow       bool   // counted and reported; the rules below decide
	Quiet        bool   // no events about what it decides
	SNI          bool   // the TLS server name must agree with the name
	Path         string // in the document, as rules[0]
}

// A State says whether a packet begins a flow or answers one.
type State uint8

// The states of rules.
const (
	New         State = ruleset.StateNew         // the first packet of a flow
	Established State = ruleset.StateEstablished // an answer
)

// String returns the state's word in rules.
func (s State) String() string {
	switch s {
	case New:
		return "new"
	case Established:
		return "established"
	}
	return "invalid"
}

// A PortRange is inclusive.
type PortRange struct{ Lo, Hi int }

// LAN returns the interface on the LAN, or nil.
func (p *Policy) LAN() *Interface { return p.side(true) }

// WAN returns the interface on the WAN, or nil.
func (p *Policy) WAN() *Interface { return p.side(false) }

func (p *Policy) side(lan bool) *Interface {
	for i := range p.Interfaces {
		if p.Interfaces[i].LAN == lan {
			return &p.Interfaces[i]
		}
	}
	return nil
}

// Timeout is a connection-tracking timeout: its name in the policy, what it is
// without one, and what it is for.
type Timeout struct {
	Name    string
	Default int
	Doc     string
}

// Timeouts lists them. The defaults follow RFC 5382 REQ-5 (established at
// least 2 h 4 min, transitory at least 4 min), RFC 4787 REQ-5 (UDP 5 min) and
// RFC 5508 REQ-2 (ICMP 60 s); a handshake that is not answered, which RFC 7857
// lets us cut short, is kept for less.
var Timeouts = []Timeout{
	{"tcp_syn_sent", ruleset.DefaultTCPTransitory, "TCP: a SYN that has not been answered"},
	{"tcp_syn_recv", ruleset.DefaultTCPTransitory, "TCP: a handshake that has not been completed"},
	{"tcp_established", ruleset.DefaultTCPEstablished, "TCP: an open connection"},
	{"tcp_fin_wait", ruleset.DefaultTCPTransitory, "TCP: one side has closed"},
	{"tcp_close_wait", ruleset.DefaultTCPTransitory, "TCP: that has been acknowledged"},
	{"tcp_last_ack", ruleset.DefaultTCPTransitory, "TCP: both sides have closed"},
	{"tcp_time_wait", ruleset.DefaultTCPTransitory, "TCP: both have been acknowledged"},
	{"tcp_close", ruleset.DefaultTCPTransitory, "TCP: reset"},
	{"udp_unreplied", ruleset.DefaultUDPUnreplied, "UDP in one direction only, to a port below 1024, and DNS queries that were answered; other ports have at least 120 s, but no more than udp_idle"},
	{"udp_idle", ruleset.DefaultUDPIdle, "UDP: packets in both directions"},
	{"icmp_echo", ruleset.DefaultICMPEcho, "ICMP echo"},
}

// Limits and ports of DNS.
const (
	MaxTTLGrace    = 86400 // seconds
	DNSPort        = 53
	DNSOverTLSPort = 853
)

// DefaultRule returns the index of a rule that stands for the default action, as
// ruleset.Policy.DefaultRule does.
func (p *Policy) DefaultRule() int { return len(p.Rules) }

// RuleID returns the id of the rule that decided, or that of the default action
// as events name it.
func (p *Policy) RuleID(rule int) string {
	if rule >= 0 && rule != p.DefaultRule() {
		return p.Rules[rule].ID
	}
	return p.Defaults.Action.DefaultRuleID()
}

// IsExternal reports whether an address is the firewall's on the WAN.
func (p *Policy) IsExternal(a netip.Addr) bool {
	if a == p.WAN().Prefix.Addr() {
		return true
	}
	for i := range p.SNAT {
		if slices.Contains(p.SNAT[i].External, a) {
			return true
		}
	}
	for i := range p.DNAT {
		if p.DNAT[i].WAN == a {
			return true
		}
	}
	return false
}

// Elsewhere returns an address on neither side's network: one for documentation
// (RFC 5737), which no rule is likely to be about.
func (p *Policy) Elsewhere() netip.Addr {
	for _, a := range []netip.Addr{netip.AddrFrom4([4]byte{192, 0, 2, 1}), netip.AddrFrom4([4]byte{198, 51, 100, 1}), netip.AddrFrom4([4]byte{203, 0, 113, 1})} {
		if !slices.ContainsFunc(p.Interfaces, func(f Interface) bool { return f.Prefix.IsValid() && f.Prefix.Contains(a) }) {
			return a
		}
	}
	return netip.AddrFrom4([4]byte{8, 8, 8, 8})
}

// String returns a port or a range as rules have it.
func (r PortRange) String() string {
	if r.Lo == r.Hi {
		return fmt.Sprint(r.Lo)
	}
	return fmt.Sprintf("%d-%d", r.Lo, r.Hi)
}
