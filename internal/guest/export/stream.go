package export

import (
	"bytes"
	"math"
	"sync/atomic"

	"github.com/thurward/thurward/internal/shared/event"
)

// A Link is a connection to the reader of the stream. The stream re-establishes it.
type Link interface {
	// Poll runs the link.
	Poll()
	// Connect begins to connect. It does nothing unless the link is Closed.
	Connect()
	// Close resets the connection.
	Close()
	// State returns closed, connecting or open.
	State() LinkState
	// Buffer returns room for data, or nil when there is none now.
	Buffer() []byte
	// Send queues the first n bytes of the last Buffer; Flush transmits them.
	Send(n int)
	Flush()
}

// A LinkState is a link's. Zero is closed.
type LinkState uint8

// The states.
const (
	LinkClosed LinkState = iota
	LinkConnecting
	LinkOpen
)

// Intervals and time-outs in nanoseconds.
const (
	metricsEvery = int64(10e9)
	beatEvery    = int64(1e9)
	firstRetry   = int64(100e6)
	lastRetry    = int64(5e9)
	connectLimit = int64(2e9)
	lasting      = int64(5e9) // a connection this long resets the pause between attempts
	tellLoss     = int64(1e9) // between two reports of losses
)

// Bounds of one step, so that packets do not wait for long.
const (
	stepRecords = 1024
	stepLines   = 64
	outBytes    = 8 << 10 // lines are rendered ahead of sending up to this
)

// MaxLine is the length of the longest line in bytes.
const MaxLine = 16 << 10

// StreamConfig is what a stream works with.
type StreamConfig struct {
	Rings     event.Rings // of the workers
	Context   *Context
	Identity  Identity
	Link      Link                               // nil: records are only shown to Tap
	Metrics   *Metrics                           // of the packet loop: see Snapshot
	Local     *Metrics                           // of the goroutine that calls Step
	Tap       func(r *event.Record, name []byte) // called with every record; may be nil
	Queue     int                                // size of the queue in bytes; 0: 1 MB
	Records   int                                // records taken in one step; 0: 1024
	NoFlowEnd bool                               // no events at the end of flows
}

// defaultQueue is the default size of the queue in bytes: about 6900 events.
const defaultQueue = 1 << 20

// A Stream renders records, metrics and spans as lines and sends them over a link. One
// goroutine calls Step; the packet loop calls Wanted and Snapshot. It neither blocks nor
// allocates.
type Stream struct {
	c    StreamConfig
	q    *queue
	agg  aggregator
	seq  uint64
	name []byte
	rec  event.Record

	out  []byte // rendered lines, sent up to sent
	sent int

	conn      uint64 // number of connections made
	opened    int64  // when the connection was made
	connected bool
	asked     int64 // when Connect was called; 0: not
	retry     int64 // when Connect may be called next
	pause     int64 // between two attempts

	shot      atomic.Uint32 // state of the snapshot: shotIdle …
	cursor    metricCursor
	part      int // part of the snapshot being written: part…
	nextShot  int64
	moved     atomic.Pointer[instance]
	loops     atomic.Uint32 // calls of Alive
	beaten    uint32        // loops at the last beat
	nextBeat  int64
	backlog   bool // lines were left that could have been sent
	greeted   bool // the first snapshot of this connection is rendered
	toldLines uint64
	toldRing  uint64
	lostSince int64
	nextLoss  int64
	ringLost  uint64

	linesSent, bytesSent, lostInOut uint64
}

// States of the snapshot: unused, to be filled by the packet loop, to be read by the
// stream.
const (
	shotIdle = iota
	shotWanted
	shotReady
)

// Parts of a snapshot, in order.
const (
	partNone = iota
	partLoop
	partLocal
	partEnd
)

// NewStream makes a stream.
func NewStream(c StreamConfig) *Stream {
	if c.Queue == 0 {
		c.Queue = defaultQueue
	}
	if c.Records == 0 {
		c.Records = stepRecords
	}
	if c.Metrics == nil {
		c.Metrics = &Metrics{}
	}
	if c.Local == nil {
		c.Local = &Metrics{}
	}
	s := &Stream{c: c, pause: firstRetry, name: make([]byte, 0, event.MaxName), out: make([]byte, 0, outBytes+3*MaxLine)}
	if c.Link != nil {
		s.q = newQueue(c.Queue)
	}
	s.agg.emit = s.enqueue
	c.Local.Add(s.metrics()...)
	return s
}

// StreamBytes is the memory of a stream with a link and the default queue, in bytes.
const StreamBytes = defaultQueue + outBytes + 3*MaxLine + places*(8+event.RecordSize+event.MaxName+1)

// Wanted reports whether the packet loop is to call Snapshot.
func (s *Stream) Wanted() bool { return s.shot.Load() == shotWanted }

// Snapshot takes a snapshot of the packet loop's metrics. Only the packet loop may call it,
// when Wanted reports true.
func (s *Stream) Snapshot() {
	s.c.Metrics.Fill()
	s.shot.Store(shotReady)
}

// Alive records that the packet loop runs. Only the packet loop may call it, before each Step
// that it causes; a beat is sent only if it has been called since the last one.
func (s *Stream) Alive() { s.loops.Add(1) }

// An instance is what tells the streams of machines with one history apart.
type instance struct {
	boot   string
	tracer *Tracer
}

// Moved has the stream go on as another instance, with another boot id and other trace ids: the
// state of the machine was saved or restored, and another one may run with the same. The
// receiver is connected to anew. Any goroutine may call it. t is nil where there are no spans.
func (s *Stream) Moved(boot string, t *Tracer) { s.moved.Store(&instance{boot, t}) }

// Step does a bounded amount of work, and reports whether there is more to do at once.
// Otherwise it is to be called again at the time that Next returns, or when records have
// arrived or the link has changed. Without lines it only takes records, the smaller part of
// the work: the caller has packets to forward. There is more to do then if there is anything
// to be sent, which nothing else would ask for.
func (s *Stream) Step(now int64, lines bool) (more bool) {
	more = s.take(now)
	if s.c.Link == nil {
		return more
	}
	s.agg.expire(now)
	s.c.Link.Poll()
	if i := s.moved.Swap(nil); i != nil {
		s.c.Identity.Boot, s.c.Context.Tracer = i.boot, i.tracer
		s.c.Link.Close()
	}
	s.connect(now)
	if s.connected {
		if lines {
			s.backlog = s.send(now)
		} else { // the next step with lines shows whether there is room
			s.backlog = s.backlog || s.q.lines > 0 || s.shot.Load() == shotReady
		}
		more = more || s.backlog
		more = more || s.Wanted() // the packet loop will take it soon
	}
	return more
}

// Next returns the time at which Step must be called even if nothing has happened.
func (s *Stream) Next() int64 {
	next := int64(math.MaxInt64)
	if s.c.Link == nil {
		return next
	}
	if s.agg.live > 0 {
		next = s.agg.due
	}
	switch s.c.Link.State() {
	case LinkOpen:
		if s.part == partNone && s.shot.Load() == shotIdle {
			next = min(next, s.nextShot)
		}
		if len(s.out) == 0 && s.greeted && s.part == partNone {
			next = min(next, s.nextBeat)
		}
		if len(s.out) == 0 && s.anyLoss() {
			next = min(next, s.nextLoss)
		}
	case LinkConnecting:
		next = min(next, s.asked+connectLimit)
	default:
		next = min(next, s.retry)
	}
	return next
}

// take moves records from the ring to the aggregator and the queue.
func (s *Stream) take(now int64) (more bool) {
	for range s.c.Records {
		var ok bool
		if s.name, ok = s.c.Rings.GetNamed(&s.rec, s.name[:0]); !ok {
			break
		}
		if s.c.Tap != nil && !s.c.Context.quiet(&s.rec) {
			s.c.Tap(&s.rec, s.name)
		}
		if s.c.Link == nil {
			continue
		}
		if aggregates(&s.rec) {
			s.agg.add(&s.rec, s.name)
		} else {
			s.enqueue(&s.rec, s.name)
		}
	}
	if lost := s.c.Rings.Lost(); lost != s.ringLost {
		s.seq += lost - s.ringLost
		s.ringLost = lost
		s.noteLoss(now)
	}
	return s.c.Rings.Len() > 0
}

// enqueue queues a record, with the lines to render of it.
func (s *Stream) enqueue(r *event.Record, name []byte) {
	r.Lines = lineEvent
	if r.Kind == event.FlowEnd && s.c.NoFlowEnd || s.c.Context.quiet(r) {
		r.Lines = 0
	}
	if t := s.c.Context.Tracer; t != nil && endsSpan(r) && t.Span(r).ok {
		r.Lines |= lineSpan
	}
	if r.Lines == 0 {
		return
	}
	if r.Lines&lineEvent != 0 {
		s.seq++
		r.Seq = s.seq
	}
	before := s.q.dropped
	s.q.push(r, name)
	if s.q.dropped != before {
		s.noteLoss(r.Time)
	}
}

func (s *Stream) noteLoss(now int64) {
	if s.lostSince == 0 {
		s.lostSince = max(now, 1)
	}
}

// Dropped returns the number of lines that were lost: dropped from the queue,
// or rendered and not sent when a connection ended.
func (s *Stream) Dropped() uint64 {
	if s.q == nil {
		return 0
	}
	return s.q.dropped + s.lostInOut
}

// connect establishes the connection, and notices its end.
func (s *Stream) connect(now int64) {
	switch s.c.Link.State() {
	case LinkOpen:
		if !s.connected {
			s.begin(now)
		}
	case LinkConnecting:
		if now-s.asked >= connectLimit {
			s.c.Link.Close()
			s.backOff(now)
		}
	case LinkClosed:
		if s.connected {
			s.end(now)
		}
		if s.asked != 0 { // the attempt was refused
			s.backOff(now)
		}
		if now >= s.retry {
			s.asked = max(now, 1)
			s.c.Link.Connect()
			s.c.Link.Flush()
			if s.c.Link.State() == LinkClosed {
				s.backOff(now)
			}
		}
	}
}

func (s *Stream) backOff(now int64) {
	s.asked = 0
	s.retry = now + s.pause
	s.pause = min(2*s.pause, lastRetry)
}

// begin renders the first line of a connection.
func (s *Stream) begin(now int64) {
	s.connected, s.greeted, s.backlog, s.opened, s.asked = true, false, false, now, 0
	s.conn++
	s.out, s.sent = s.out[:0], 0
	s.line(appendHello(s.out, &s.c.Identity, s.c.Context, now, s.conn, s.Dropped()))
	s.part, s.nextLoss, s.nextBeat = partNone, now, now+beatEvery
	s.loss(now)
	s.wantShot(now)
}

// wantShot requests a snapshot of the packet loop. One taken for an earlier connection may
// be old: it is taken again.
func (s *Stream) wantShot(now int64) {
	s.nextShot = now + metricsEvery
	s.shot.Store(shotWanted)
}

// end counts the lines that were rendered and not sent.
func (s *Stream) end(now int64) {
	s.connected = false
	lost := uint64(0)
	// A line that was sent in part was not received either.
	from := bytes.LastIndexByte(s.out[:s.sent], '\n') + 1
	if s.sent == len(s.out) {
		from = s.sent
	}
	for rest := s.out[from:]; len(rest) > 0; {
		n := bytes.IndexByte(rest, '\n') + 1
		if n == 0 {
			n = len(rest)
		}
		if rest[0] == '{' || bytes.HasPrefix(rest, []byte("# SPAN ")) {
			lost++
		}
		rest = rest[n:]
	}
	if lost > 0 {
		s.lostInOut += lost
		s.noteLoss(now)
	}
	s.out, s.sent = s.out[:0], 0
	if now-s.opened >= lasting {
		s.pause = firstRetry
	}
	s.backOff(now)
}
