// Package event holds what the firewall tells about its decisions as it crosses
// from the packet path to the goroutine that renders it: records of a fixed size,
// and the ring between the two.
package event

import (
	"unsafe"

	"github.com/thurward/thurward/internal/shared/verdict"
)

// A Kind says what a record is about. Zero is invalid.
type Kind uint8

// The kinds of record.
const (
	_              Kind = iota
	Verdict             // the filter or the checks before it decided about a packet
	FlowEnd             // a flow left the table; Packets and Bytes are its totals
	DNSQuery            // a client's query to the DNS proxy is done with; the name is the question's
	UpstreamFailed      // a TLS connection to an upstream, which is Dst, came to nothing; the name is the reason in words
)

// A Record is one event as the packet path writes it: fixed size, no
// pointers. Addresses are 16 bytes in network order, IPv4 as ::ffff:a.b.c.d
// (RFC 4291 2.5.5.2); ports and counts are in host order. A name that belongs
// to it travels beside it: see Ring.PutNamed.
type Record struct {
	Time           int64  // monotonic nanoseconds since boot: of a verdict; of a flow's last packet; of a query's answer
	FlowID         uint64 // 0 where no flow was made
	Packets, Bytes uint64 // FlowEnd: totals of both directions
	ReplyPackets   uint64 // FlowEnd: of them, in the reply direction
	ReplyBytes     uint64
	Duration       int64    // nanoseconds: FlowEnd, from first to last packet; DNSQuery, from query to answer; a Count above 1, from the first to the last
	Lookup         uint64   // number of the DNS query since boot, from 1: DNSQuery, its own; Verdict and FlowEnd, the one by which the name was learned, 0 when there is none
	Seq            uint64   // event.sequence; the stream sets it
	Src, Dst       [16]byte // DNSQuery: the client, and the server that it asked
	XlatAddr       [16]byte // translated source (SNAT) or destination (DNAT), zero when not translated; DNSQuery: the first address of the answer
	SrcPort        uint16   // ICMP echo: the identifier
	DstPort        uint16   // ICMP: type<<8 | code
	XlatPort       uint16
	EtherType      uint16
	QType          uint16 // DNSQuery: type of the question (RFC 1035 3.2.2)
	DNS            verdict.DNSOutcome
	NameLen        uint8  // length of the name beside the record, 0 when there is none
	Rule           uint32 // index of the deciding rule; len(rules) is the default action
	Ago            uint32 // NameExpired: for how many seconds the name had expired, rounded up
	Count          uint32 // number of like events that this record stands for; 0 is 1
	Kind           Kind
	Action         verdict.Action
	Reason         verdict.Reason
	Direction      verdict.Direction
	Proto          uint8 // IP protocol number
	Truncated      bool  // addresses and ports could not be read
	XlatDst        bool  // XlatAddr is the destination's
	Hint           verdict.Hint
	Lines          uint8            // in a sender's queue: the kinds of line that it becomes, as the sender numbers them
	TLS            verdict.TLSClass // UpstreamFailed
	Answer         bool             // Verdict: it is the first packet of the answers of a flow
	_              [1]byte
}

// RecordSize is the size of a Record in bytes.
const RecordSize = int(unsafe.Sizeof(Record{}))
