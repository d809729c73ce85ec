package policy

import "net/netip"

// A Policy is a validated rules.yaml.
type Policy struct {
	File       string
	Digest     [32]byte // SHA-256 of the file's bytes
	Interfaces []Interface
	Defaults   Defaults
	SNAT       []SNAT
	Rules      []Rule
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
	Accept   bool
	MaxFlows int
	Timeouts map[string]int
}

// A SNAT entry translates the sources of flows that leave by an interface.
type SNAT struct {
	Interface int // index into Interfaces
	Source    netip.Prefix
	External  netip.Addr // zero: masquerade
	PortLo    int
	PortHi    int
}

// A Rule is one rule; empty lists match anything.
type Rule struct {
	ID, Name     string
	Line, Column int
	Accept       bool
	Direction    string // "egress", "ingress" or ""
	Source       []netip.Prefix
	Destination  []netip.Prefix
	Ports        []PortRange
	Protocols    []string
	States       []string
}

// A PortRange is inclusive.
type PortRange struct{ Lo, Hi int }

// Timeout is a connection-tracking timeout: its name in the policy, what it is
// without one, and the least that is allowed.
type Timeout struct {
	Name    string
	Default int
	Doc     string
}

// Timeouts lists them. The defaults follow RFC 5382 REQ-5 (established at
// least 2 h 4 min, transitory at least 4 min), RFC 4787 REQ-5 (UDP 5 min) and
// RFC 5508 REQ-2 (ICMP 60 s); a handshake that nobody answers, which RFC 7857
// lets us cut short, is kept for less.
var Timeouts = []Timeout{
	{"tcp_syn_sent", 30, "TCP: a SYN that has not been answered"},
	{"tcp_syn_recv", 60, "TCP: a handshake that has not been completed"},
	{"tcp_established", 7440, "TCP: an open connection"},
	{"tcp_fin_wait", 240, "TCP: one side has closed"},
	{"tcp_close_wait", 240, "TCP: that has been acknowledged"},
	{"tcp_last_ack", 30, "TCP: both sides have closed"},
	{"tcp_time_wait", 240, "TCP: both have been acknowledged"},
	{"tcp_close", 10, "TCP: reset"},
	{"udp_unreplied", 30, "UDP: packets in one direction only"},
	{"udp_idle", 300, "UDP: packets in both directions"},
	{"icmp_echo", 60, "ICMP echo"},
}

// DefaultMaxFlows is the capacity of the flow table.
const DefaultMaxFlows = 65536
