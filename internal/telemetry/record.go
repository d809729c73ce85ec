package telemetry

import "sync/atomic"

// An Action is what was decided about a packet. Zero is invalid.
type Action uint8

// The actions.
const (
	_ Action = iota
	Accept
	Drop
	WouldAccept // a shadow rule's decision, which is not carried out
	WouldDrop
)

// String returns the action's name in events (ECS event.action).
func (a Action) String() string {
	switch a {
	case Accept:
		return "accept"
	case Drop:
		return "drop"
	case WouldAccept:
		return "would-accept"
	case WouldDrop:
		return "would-drop"
	}
	return "invalid"
}

// A Direction is the way a packet travels, as policies name it. Zero is
// invalid in a record.
type Direction uint8

// The directions.
const (
	_       Direction = iota
	Egress            // entered from the LAN
	Ingress           // entered from the WAN
)

// String returns the direction's name in events (ECS network.direction).
func (d Direction) String() string {
	switch d {
	case Egress:
		return "egress"
	case Ingress:
		return "ingress"
	}
	return "invalid"
}

// A Kind says what a record is about. Zero is invalid.
type Kind uint8

// The kinds of record.
const (
	_       Kind = iota
	Verdict      // the filter or the checks before it decided about a packet
	FlowEnd      // a flow left the table; Packets and Bytes are its totals
)

// A Record is one event as the packet path writes it: fixed size, no
// pointers. Addresses are 16 bytes in network order, IPv4 as ::ffff:a.b.c.d
// (RFC 4291 2.5.5.2); ports and counts are in host order.
type Record struct {
	Time           int64  // monotonic nanoseconds since boot
	FlowID         uint64 // 0 where no flow was made
	Packets, Bytes uint64 // FlowEnd: totals of both directions
	Duration       int64  // FlowEnd: nanoseconds from first to last packet
	Src, Dst       [16]byte
	XlatAddr       [16]byte // translated source (SNAT) or destination (DNAT), zero when not translated
	SrcPort        uint16   // ICMP echo: the identifier
	DstPort        uint16   // ICMP: type<<8 | code
	XlatPort       uint16
	EtherType      uint16
	Rule           uint32 // index of the deciding rule; len(rules) is the default action
	Kind           Kind
	Action         Action
	Reason         Reason
	Direction      Direction
	Proto          uint8 // IP protocol number
	Truncated      bool  // addresses and ports could not be read
	_              [2]byte
}

// A Ring hands records from the packet path (one producer) to the goroutine
// that renders them (one consumer). When it is full the newest record is
// dropped and counted: the path never waits.
type Ring struct {
	buf  []Record
	mask uint64
	_    [64]byte
	head atomic.Uint64 // written by the producer
	lost atomic.Uint64
	_    [48]byte
	tail atomic.Uint64 // written by the consumer
}

// NewRing makes a ring for at least n records.
func NewRing(n int) *Ring {
	c := 1
	for c < n {
		c <<= 1
	}
	return &Ring{buf: make([]Record, c), mask: uint64(c - 1)}
}

// Put stores a copy of r, or counts it as lost when the ring is full.
func (q *Ring) Put(r *Record) bool {
	h := q.head.Load()
	if h-q.tail.Load() >= uint64(len(q.buf)) {
		q.lost.Add(1)
		return false
	}
	q.buf[h&q.mask] = *r
	q.head.Store(h + 1)
	return true
}

// Get takes the oldest record into r, and reports whether there was one.
func (q *Ring) Get(r *Record) bool {
	t := q.tail.Load()
	if t == q.head.Load() {
		return false
	}
	*r = q.buf[t&q.mask]
	q.tail.Store(t + 1)
	return true
}

// Len returns the number of records waiting.
func (q *Ring) Len() int { return int(q.head.Load() - q.tail.Load()) }

// Lost returns how many records were dropped because the ring was full.
func (q *Ring) Lost() uint64 { return q.lost.Load() }
