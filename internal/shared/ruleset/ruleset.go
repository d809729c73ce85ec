// Package ruleset defines the ruleset: a rules.yaml compiled into
// flat, pointer-free, little-endian tables that the image carries read-only. The
// host's compiler writes it with Encode; the firewall opens it with Open, which
// checks it and then uses it in place.
package ruleset

import (
	"github.com/thurward/thurward/internal/shared/verdict"
)

// Version is the layout's version. Open refuses any other.
const Version = 6

// Magic is the first eight bytes of a ruleset.
const Magic = "THURWPOL"

// HeaderSize is the length of the header in bytes; tables follow it.
const HeaderSize = 256

// An Addr is a network-layer address in network order; an IPv4 address is
// stored as ::ffff:a.b.c.d (RFC 4291 section 2.5.5.2). The zero Addr means
// that there is none.
type Addr [16]byte

// An Action decides what happens to a packet. Zero is invalid.
type Action uint8

// The actions of a rule and of the default.
const (
	_ Action = iota
	Accept
	Deny   // drop silently
	Reject // drop, and notify the sender: TCP RST, else ICMP 3/13 (RFC 5508 REQ-8)
)

// State bits of a match. A flow's first packet in its original direction has
// StateNew; its first packet in the reply direction has StateEstablished.
// The verdict of a direction's first packet is kept for the flow's life.
const (
	StateNew         = 1 << 0
	StateEstablished = 1 << 1
)

// A Role says on which side of the firewall an interface is. Zero is invalid.
type Role uint8

// The roles.
const (
	_ Role = iota
	LAN
	WAN
)

// String returns the role as people write it.
func (r Role) String() string {
	switch r {
	case LAN:
		return "LAN"
	case WAN:
		return "WAN"
	}
	return "invalid"
}

// A Text names a stretch of the ruleset's string table.
type Text struct{ Off, Len uint32 }

// What happens to IPv4 fragments.
const (
	FragmentsDrop       = 0
	FragmentsReassemble = 1
)

// Flags of Settings. All are switched off in a policy that does not set them.
const (
	FlagNoTimeExceeded = 1 << iota // no ICMP time exceeded
	FlagNoMSSClamp                 // the MSS of TCP handshakes stays as it is
	FlagDNSFollow                  // only names that a rule could use are resolved
	FlagDNSIntercept               // plain DNS to other servers is answered by the proxy
	FlagNoFlowEnd                  // no events when flows end
	FlagQuietGroups                // no events about packets dropped as martian that are for a multicast or broadcast address
	FlagResetUnknown               // TCP segments of no connection that could have begun are answered by a RST
	flagsEnd
)

// Settings holds the policy's defaults. Timeouts are in seconds.
type Settings struct {
	DefaultAction  Action
	Fragments      uint8 // FragmentsDrop or FragmentsReassemble
	_              [2]uint8
	Flags          uint32
	MaxFlows       uint32 // capacity of the flow table
	SourceFlows    uint32 // flows that one source may have at once; 0: no limit
	SourceRate     uint32 // new flows that one source may begin in a second; 0: no limit
	SampleAccept   uint32 // share of accepted flows that get a span, in 1/(2^32-1)
	SampleDrop     uint32 // share of dropped ones
	DNSRate        uint32 // queries that one client may ask in a second; 0: DefaultDNSRate
	DNSNames       uint32 // bindings of names that are kept; 0: DefaultDNSNames
	DNSFloor       uint32 // shortest time a binding lasts, whatever its TTL
	DNSGrace       uint32 // time added to a binding's TTL
	TCPSynSent     uint32
	TCPSynRecv     uint32
	TCPEstablished uint32
	TCPFinWait     uint32
	TCPCloseWait   uint32
	TCPLastAck     uint32
	TCPTimeWait    uint32
	TCPClose       uint32
	UDPUnreplied   uint32
	UDPIdle        uint32 // replied UDP
	ICMPEcho       uint32
	Quiet          uint32 // drops for reason r cause no event where bit r is set
	_              [1]uint32
}

// An Upstream is a name server that the DNS proxy asks. The first that works is
// taken.
type Upstream struct {
	Address    Addr
	ServerName Text // with TLS: the name that its certificate must have
	CA         Text // with TLS: certificates of the authorities that may have signed it, in DER, one after the other; empty: those of the program
	Port       uint16
	TLS        uint8 // 1: DNS over TLS (RFC 7858)
	_          [5]uint8
}

// A Resolver is a name server on the LAN, whose answers are learned for all
// clients: it asks on their behalf.
type Resolver struct{ Address Addr }

// An Interface is one side of the firewall.
type Interface struct {
	Address   Addr
	Gateway   Addr // next hop of the default route; zero when there is none
	Name      Text
	PrefixLen uint8 // of Address, in the bits of its own family (0 to 32 for IPv4)
	Role      Role
	HasMAC    uint8 // 1 when MAC is set
	_         uint8
	MAC       [6]uint8 // hardware address by which the NIC is found
	MTU       uint16   // 0: what the device says, else DefaultMTU
	_         [4]uint8
}

// A SNAT entry translates the source of flows that leave by an interface. The
// first whose Source covers a flow's source decides. Entries that follow it
// with the same Source, Interface and ports name further external addresses of
// the same pool, among which a host keeps the one it was given (RFC 4787 REQ-2).
type SNAT struct {
	Source, SourceMask Addr   // which sources; mask zero matches all
	External           Addr   // external address; zero: the interface's own (masquerade)
	Interface          uint32 // index into Interfaces
	PortLo, PortHi     uint16 // pool of external ports and ICMP identifiers, inclusive
}

// A DNAT entry gives a server behind the firewall an address and ports on its
// WAN side. It applies to packets whose source is in From and whose destination
// is External, at one of its ports. Ports PortLo to PortHi become ToPort and
// those that follow it.
type DNAT struct {
	From, FromMask Addr
	External       Addr
	To             Addr
	PortLo, PortHi uint16 // inclusive
	ToPort         uint16
	Proto          uint8  // IP protocol number, TCP or UDP
	Hairpin        uint8  // 1: LAN hosts reach the server by External too (RFC 4787 REQ-9)
	Line           uint32 // of rules.yaml
	_              [4]uint8
}

// A Mode says what a rule's match does. Zero enforces.
type Mode uint8

// The modes of a rule.
const (
	Enforce Mode = iota
	Shadow       // counted and reported; the rules below decide
)

// A Rule is what the operator wrote, without its conditions.
type Rule struct {
	ID, Name Text
	Line     uint32 // of rules.yaml
	Action   Action
	Mode     Mode
	SNI      uint8 // 1: the TLS server name must be one that the client resolved to this address
	Quiet    uint8 // 1: what it decides causes no events
}

// A Name is a pattern of destination names: one name, or with Wildcard all that
// have exactly one label in front of it.
type Name struct {
	Text     Text // lower case, without the dot at the end and without "*."
	Wildcard uint8
	_        [7]uint8
}

// A Match is one set of conditions of a rule. A rule whose fields are lists
// has one match for each combination, in order; the first match of a packet
// decides. A packet matches when src&SrcMask == Src, dst&DstMask == Dst,
// and every other set condition holds. A condition on the destination's name
// holds when the source has resolved a name of that pattern to the destination,
// through the firewall's DNS proxy.
type Match struct {
	Src, SrcMask   Addr
	Dst, DstMask   Addr
	PortLo, PortHi uint16 // destination port, inclusive; 0 and 65535: any, also for protocols without ports
	Proto          uint8  // IP protocol number, 0: any
	Direction      verdict.Direction
	State          uint8 // StateNew, StateEstablished or both; 0: any
	Action         Action
	Rule           uint32 // index into Rules
	Name           uint32 // 1 + index into Names; 0: any destination
}

// A Policy is an opened ruleset. Its slices point into the ruleset.
type Policy struct {
	Digest     [32]byte // SHA-256 of rules.yaml, byte for byte
	Settings   Settings
	Interfaces []Interface
	SNAT       []SNAT
	DNAT       []DNAT
	Names      []Name
	Upstreams  []Upstream
	Resolvers  []Resolver
	Blocked    []Name // names that the DNS proxy refuses
	Private    []Name // names that may have addresses of private networks, or of the firewall's own
	Rules      []Rule
	Matches    []Match
	Strings    []byte
	Classifier Classifier
}

// Text returns the string that t names, or "" when t lies outside the table.
// It allocates nothing; the result points into the ruleset.
func (p *Policy) Text(t Text) string {
	if uint64(t.Off)+uint64(t.Len) > uint64(len(p.Strings)) {
		return ""
	}
	return unsafeString(p.Strings[t.Off : t.Off+t.Len])
}

// Interface returns the interface with the given role, or nil.
func (p *Policy) Interface(r Role) *Interface {
	for i := range p.Interfaces {
		if p.Interfaces[i].Role == r {
			return &p.Interfaces[i]
		}
	}
	return nil
}

// DefaultRule is the rule index that stands for the default action.
func (p *Policy) DefaultRule() uint32 { return uint32(len(p.Rules)) }
