package packet

import (
	"encoding/binary"

	"github.com/thurward/thurward/internal/shared/verdict"
)

// Sizes and offsets of headers, in bytes.
const (
	EthLen      = 14
	MinIPv4     = 20
	TCPLen      = 20
	UDPLen      = 8
	ICMPLen     = 8
	ARPLen      = 28
	offEthType  = 12
	offTotalLen = 2
	offFrag     = 6
	offTTL      = 8
	offProto    = 9
	offID       = 4
	offSum      = 10
	offTCPSum   = 16
	offSrc      = 12
	offDst      = 16

	flagDF     = 0x4000 // in the word at offFrag
	flagMF     = 0x2000
	fragOffset = 0x1fff // in units of 8 bytes
)

// EtherTypes.
const (
	TypeIPv4 = 0x0800
	TypeARP  = 0x0806
	TypeIPv6 = 0x86dd
)

// IP protocol numbers.
const (
	ICMP = 1
	TCP  = 6
	UDP  = 17
)

// TCP flags.
const (
	FIN = 1 << 0
	SYN = 1 << 1
	RST = 1 << 2
	PSH = 1 << 3
	ACK = 1 << 4
)

// ICMP types that are handled differently.
const (
	EchoReply    = 0
	Unreachable  = 3
	EchoRequest  = 8
	TimeExceeded = 11
	ParamProblem = 12
)

// ICMP codes of Unreachable.
const (
	HostUnreachable = 1
	PortUnreachable = 3
	FragNeeded      = 4
	Prohibited      = 13
)

// A Class is how a packet is tracked.
type Class uint8

// The classes. Zero is invalid.
const (
	_              Class = iota
	ClassTCP             // TCP
	ClassUDP             // UDP
	ClassICMPQuery       // ICMP echo request or reply; both ports are its identifier
	ClassICMPError       // ICMP error about another packet
	ClassOther           // anything else: not tracked (including source quench, RFC 6633)
)

// A Packet is what ParseIPv4 reads from a frame. Numbers are in host order. SrcPort and
// DstPort are valid for TCP, UDP and ICMP queries; Seq to Payload and Flags for TCP;
// ICMPType and ICMPCode when Proto is ICMP.
type Packet struct {
	Src, Dst         Addr
	SrcPort, DstPort uint16
	Proto            uint8
	Class            Class
	TTL              uint8
	Flags            uint8  // of TCP
	L4               uint16 // offset of the transport header from the frame's start
	Total            uint16 // length of the IP packet
	EtherType        uint16
	Window           uint16
	Seq, Ack         uint32
	Payload          uint16 // bytes after the TCP header
	ICMPType         uint8
	ICMPCode         uint8
	DF               bool // don't fragment
	Fragment         bool
	Parts            uint8 // of a reassembled datagram: the number of further fragments, whose payload is not in the frame
}

// Type returns the frame's EtherType, or 0 when it is too short to have one.
func Type(f []byte) uint16 {
	if len(f) < EthLen {
		return 0
	}
	return binary.BigEndian.Uint16(f[offEthType:])
}

// ParseIPv4 reads the IPv4 packet in an Ethernet frame and its transport header into p, and
// returns the frame's length without trailing padding. The reason is 0 for a packet that
// satisfies RFC 1812 section 5.2.2 and the rules of its transport protocol; otherwise p may
// be filled in part. Checksums of IPv4, ICMP, TCP and UDP are verified.
func ParseIPv4(f []byte, p *Packet) (n int, reason verdict.Reason) {
	*p = Packet{EtherType: TypeIPv4}
	if len(f) < EthLen+MinIPv4 {
		return 0, verdict.MalformedPacket
	}
	ip := f[EthLen:]
	vihl := ip[0]
	hl := int(vihl&15) * 4
	total := int(binary.BigEndian.Uint16(ip[offTotalLen:]))
	if vihl>>4 != 4 || hl < MinIPv4 || total < hl || total > len(ip) {
		return 0, verdict.MalformedPacket
	}
	p.Src = Addr(binary.BigEndian.Uint32(ip[offSrc:]))
	p.Dst = Addr(binary.BigEndian.Uint32(ip[offDst:]))
	p.Proto, p.TTL, p.Total = ip[offProto], ip[offTTL], uint16(total)
	p.L4 = uint16(EthLen + hl)
	if hl == MinIPv4 {
		if !headerValid((*[MinIPv4]byte)(ip)) {
			return 0, verdict.MalformedPacket
		}
	} else if Sum(ip[:hl], 0) != 0xffff || !optionsValid(ip[MinIPv4:hl]) {
		return 0, verdict.MalformedPacket
	}
	frag := binary.BigEndian.Uint16(ip[offFrag:])
	p.DF = frag&flagDF != 0
	if frag&(flagMF|fragOffset) != 0 {
		p.Fragment = true
		return 0, verdict.FragmentedIPv4
	}
	return EthLen + total, parseTransport(ip[hl:total], p, total-hl, 0)
}

// parseTransport reads the transport header at the beginning of l4. The transport packet
// has n bytes; those that are not in l4 have the sum rest.
func parseTransport(l4 []byte, p *Packet, n int, rest uint64) verdict.Reason {
	switch p.Proto {
	case TCP:
		if len(l4) < TCPLen {
			return verdict.MalformedPacket
		}
		off := int(l4[12]>>4) * 4
		if off < TCPLen || off > len(l4) || Sum(l4, pseudo(p, n)+rest) != 0xffff {
			return verdict.MalformedPacket
		}
		p.Class = ClassTCP
		p.SrcPort, p.DstPort = binary.BigEndian.Uint16(l4), binary.BigEndian.Uint16(l4[2:])
		p.Seq, p.Ack = binary.BigEndian.Uint32(l4[4:]), binary.BigEndian.Uint32(l4[8:])
		p.Flags, p.Window = l4[13]&0x3f, binary.BigEndian.Uint16(l4[14:])
		p.Payload = uint16(n - off)
		if p.SrcPort == 0 || p.DstPort == 0 {
			return verdict.MalformedPacket
		}
	case UDP:
		if len(l4) < UDPLen || int(binary.BigEndian.Uint16(l4[4:])) != n {
			return verdict.MalformedPacket
		}
		if binary.BigEndian.Uint16(l4[6:]) != 0 && Sum(l4, pseudo(p, n)+rest) != 0xffff {
			return verdict.MalformedPacket
		}
		p.Class = ClassUDP
		p.SrcPort, p.DstPort = binary.BigEndian.Uint16(l4), binary.BigEndian.Uint16(l4[2:])
		if p.DstPort == 0 {
			return verdict.MalformedPacket
		}
	case ICMP:
		if len(l4) < ICMPLen || Sum(l4, rest) != 0xffff {
			return verdict.MalformedPacket
		}
		p.ICMPType, p.ICMPCode = l4[0], l4[1]
		switch p.ICMPType {
		case EchoRequest, EchoReply:
			p.Class = ClassICMPQuery
			p.SrcPort = binary.BigEndian.Uint16(l4[4:])
			p.DstPort = p.SrcPort
		case Unreachable, TimeExceeded, ParamProblem:
			p.Class = ClassICMPError
		default:
			p.Class = ClassOther
		}
	default:
		p.Class = ClassOther
	}
	return 0
}

// optionsValid reports whether IPv4 options are valid (RFC 791 section 3.1): each has its
// length, and all end inside the header. Source routes are invalid: a sender could use them
// to evade the policy (RFC 7126).
func optionsValid(o []byte) bool {
	for i := 0; i < len(o); {
		switch o[i] {
		case 0: // end of list
			return true
		case 1: // no operation
			i++
			continue
		case 131, 137: // loose, strict source route
			return false
		}
		if i+1 >= len(o) || o[i+1] < 2 || i+int(o[i+1]) > len(o) {
			return false
		}
		i += int(o[i+1])
	}
	return true
}

// pseudo returns the partial sum of TCP's and UDP's pseudo-header.
func pseudo(p *Packet, n int) uint64 {
	s, d := uint64(p.Src), uint64(p.Dst)
	return s + d + uint64(p.Proto) + uint64(n)
}
