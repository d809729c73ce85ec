// Package event has the records of the firewall's events, which are of fixed size, and the
// ring that passes them from the packet path to the goroutine that renders them.
package event

import (
	"unsafe"

	"github.com/thurward/thurward/internal/shared/verdict"
)

// A Kind is the kind of a record. Zero is invalid.
type Kind uint8

// The kinds of record.
const (
	_              Kind = iota
	Verdict             // a decision about a packet, by the filter or the checks before it
	FlowEnd             // a flow was removed; Packets and Bytes are its totals
	DNSQuery            // a client's query to the DNS proxy has ended; the name is the question's
	UpstreamFailed      // a TLS connection to the upstream Dst failed; the name is the reason in words
	ClockAdjusted       // the time of day was wrong by Duration, and has been corrected
	PacketsLate         // Packets batches of packets took longer than they may, the longest Duration
)

// A Record is one event as the packet path writes it. Its size is fixed, and it contains no
// pointers. Addresses are 16 bytes in network order, IPv4 as ::ffff:a.b.c.d (RFC 4291
// section 2.5.5.2); ports and counts are in host order. Its name, if any, is kept beside
// it: see Ring.PutNamed.
type Record struct {
	Time           int64  // monotonic nanoseconds since boot: of a verdict; of a flow's last packet; of a query's answer
	FlowID         uint64 // 0: no flow
	Packets, Bytes uint64 // FlowEnd: totals of both directions
	ReplyPackets   uint64 // FlowEnd: of these, in the reply direction
	ReplyBytes     uint64
	Duration       int64    // nanoseconds: FlowEnd, of the flow; DNSQuery, until the answer; ClockAdjusted, what was added, may be negative; PacketsLate, the longest; Count above 1, of all events
	Lookup         uint64   // number of a DNS query, from 1: DNSQuery, its own; else the one that bound the name, 0: none
	Seq            uint64   // event.sequence; the stream sets it
	Src, Dst       [16]byte // DNSQuery: the client, and the server that the query was sent to
	XlatAddr       [16]byte // translated source or destination, zero: none; DNSQuery: the answer's first address
	SrcPort        uint16   // ICMP echo: the identifier
	DstPort        uint16   // ICMP: type<<8 | code
	XlatPort       uint16
	EtherType      uint16
	QType          uint16 // DNSQuery: type of the question (RFC 1035 section 3.2.2)
	DNS            verdict.DNSOutcome
	NameLen        uint8  // length of the name beside the record, 0 when there is none
	Rule           uint32 // index of the deciding rule; len(rules) is the default action
	Ago            uint32 // NameExpired: seconds since the name expired, rounded up
	Count          uint32 // number of identical events that this record stands for; 0 is 1
	Kind           Kind
	Action         verdict.Action
	Reason         verdict.Reason
	Direction      verdict.Direction
	Proto          uint8 // IP protocol number
	Truncated      bool  // addresses and ports could not be parsed
	XlatDst        bool  // XlatAddr is a destination
	Hint           verdict.Hint
	Lines          uint8            // in an exporter's queue: the kinds of line to render
	TLS            verdict.TLSClass // UpstreamFailed
	Answer         bool             // Verdict: the first packet of a flow's reply direction
	_              [1]byte
}

// RecordSize is the size of a Record in bytes.
const RecordSize = int(unsafe.Sizeof(Record{}))
