package router

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// An end is one end of TCP connections, slow and honest: it sends nothing but
// what RFC 9293 allows, though in any order, and takes what it may. A client
// begins a connection, a server listens.
type end struct {
	r      *rand.Rand
	server bool
	quiet  bool // sends nothing but what is due, and loses no time
	gone   bool // knows of no connection

	syn, peer, acked bool // its SYN is sent; the other's has come; its own is acknowledged
	iss, irs         uint32
	una, nxt         uint32 // first number that is not acknowledged; first that was never sent
	last             uint32 // number of its FIN
	edge             uint32 // it may send up to here
	rcv              uint32 // the number that it wants next
	promised         uint32 // the right edge of the window that it has offered
	fast             uint32 // data that go with its SYN
	window           uint32
	scale, shift     uint8 // of its own windows and the other's; scale is noScale if it has none
	fin              bool  // it has the other's FIN
}

// A seg is a segment as an end sends it.
type seg struct {
	flags    uint8
	seq, ack uint32
	n        uint32
	win      uint16
	scale    uint8
}

const noScale = 0xff

func (s *seg) end() uint32 {
	e := s.seq + s.n
	if s.flags&(fSYN|fFIN) != 0 {
		e++
	}
	return e
}

func later(a, b uint32) bool { return int32(a-b) > 0 }

func latest(a, b uint32) uint32 {
	if later(a, b) {
		return a
	}
	return b
}

func pickOf(r *rand.Rand, v ...uint32) uint32 { return v[r.IntN(len(v))] }

// begin makes the end new, with other numbers and some bytes to send.
func (e *end) begin() {
	r, first := e.r, e.last == 0
	*e = end{r: r, server: e.server, quiet: e.quiet, gone: e.server, scale: uint8(pickOf(r, 0, 1, 7, 14, noScale)),
		window: pickOf(r, 1, 1000, 65535, 1<<20, 1<<30-1), fast: pickOf(r, 0, 0, 100, 1400)}
	if e.quiet {
		e.window = 1 << 20
	}
	if e.iss = r.Uint32(); first {
		e.iss = pickOf(r, 0, 1<<31-700, 1<<32-700, e.iss)
	}
	e.una, e.nxt, e.edge = e.iss+1, e.iss, e.iss+1
	n := pickOf(r, 0, 1, 5000, 50_000)
	e.fast = min(e.fast, n)
	e.last = e.iss + 1 + n
}

// header returns a segment without data, with what the end acknowledges and
// offers now.
func (e *end) header(flags uint8, seq uint32) *seg {
	s := &seg{flags: flags, seq: seq, scale: noScale}
	w, shift := e.window, uint8(0)
	if !e.quiet {
		w = pickOf(e.r, w, w, w/2, 0)
	}
	if flags&fSYN != 0 {
		s.scale, w = e.scale, max(w, 1400) // or else a fast open may go beyond it
	} else if e.scale != noScale {
		shift = e.scale
	}
	s.win = uint16(min(w>>shift, 65535))
	if flags&fACK != 0 {
		s.ack = e.rcv
		e.promised = latest(e.promised, e.rcv+uint32(s.win)<<shift)
	}
	return s
}

// emit returns something that the end may send now, or nil.
func (e *end) emit() *seg {
	switch {
	case e.gone || e.server && !e.syn:
		return nil
	case !e.peer:
		s := e.header(fSYN, e.iss)
		if !e.syn || e.r.IntN(2) == 0 {
			s.n = e.fast
		}
		e.syn, e.nxt = true, latest(e.nxt, s.end())
		return s
	case !e.acked && (!e.server || e.r.IntN(2) == 0): // SYN-RECEIVED
		return e.header(fSYN|fACK, e.iss)
	}
	s := e.header(fACK, e.nxt)
	n := e.r.IntN(6)
	if e.quiet {
		n = 5
	}
	switch {
	case n == 0:
	case n == 1 && e.acked && e.una == e.nxt: // keep-alive (RFC 9293 section 3.8.4)
		s.seq, s.n = e.nxt-1, uint32(e.r.IntN(2))
	case e.acked && e.una == e.edge && later(e.last, e.una): // window probe (section 3.8.6.1)
		s.seq, s.n = e.una, 1
	case n == 2: // what lies before has been lost
		if room := int32(min(e.edge-e.una, e.last-e.una)); room > 0 && !later(e.una, e.edge) && !later(e.una, e.last) {
			off := uint32(e.r.IntN(int(room) + 1))
			s.seq, s.n = e.una+off, min(1400, uint32(room)-off)
		}
	default:
		if s.seq = e.una; n == 3 {
			s.seq = e.nxt
		}
		if !later(s.seq, e.edge) && !later(s.seq, e.last) {
			s.n = min(e.edge-s.seq, e.last-s.seq, uint32(1+e.r.IntN(1400)))
		}
	}
	if s.seq+s.n == e.last && later(e.edge, e.last) {
		s.flags |= fFIN
	}
	e.nxt = latest(e.nxt, s.end())
	return s
}

// take handles a segment that has come and returns its answer, or nil.
func (e *end) take(s *seg) *seg {
	if e.gone && e.server && s.flags&(fSYN|fACK|fRST) == fSYN {
		e.begin()
		e.gone = false
		e.nxt = e.iss + 1
	}
	rst := s.flags&fRST != 0
	switch {
	case e.gone && rst:
		return nil
	case e.gone && s.flags&fACK != 0:
		return &seg{flags: fRST, seq: s.ack, scale: noScale}
	case e.gone:
		return &seg{flags: fRST | fACK, ack: s.end(), scale: noScale}
	case !e.peer:
		return e.open(s)
	case rst && s.seq == e.rcv:
		e.gone = true
		return nil
	case rst && (!later(s.seq, e.rcv) || later(s.seq, e.promised)):
		return nil
	case rst:
		return e.header(fACK, e.nxt) // a challenge
	case s.flags&fSYN != 0 && !e.acked && s.seq == e.irs && (s.flags&fACK == 0 || !later(s.ack, e.iss)):
		return e.header(fSYN|fACK, e.iss)
	case s.flags&fSYN != 0 && !e.acked && s.seq == e.irs: // both began
		e.acknowledged(s)
		return e.header(fACK, e.nxt)
	case s.flags&fSYN != 0:
		return e.header(fACK, e.nxt)
	case !e.acked && (!later(s.ack, e.iss) || later(s.ack, e.nxt)):
		return &seg{flags: fRST, seq: s.ack, scale: noScale}
	case later(s.ack, e.nxt) || later(s.seq, e.promised):
		return e.header(fACK, e.nxt)
	}
	e.acknowledged(s)
	if !later(s.seq, e.rcv) && later(s.end(), e.rcv) {
		e.rcv, e.fin = s.end(), s.flags&fFIN != 0
	}
	if s.end() != s.seq {
		return e.header(fACK, e.nxt)
	}
	return nil
}

// acknowledged notes what a segment acknowledges and offers.
func (e *end) acknowledged(s *seg) {
	shift := e.shift
	if s.flags&fSYN != 0 {
		shift = 0
	}
	e.acked = true
	e.una, e.edge = latest(e.una, s.ack), latest(e.edge, s.ack+uint32(s.win)<<shift)
}

// open handles what comes before the other's SYN has.
func (e *end) open(s *seg) *seg {
	fits := s.flags&fACK != 0 && later(s.ack, e.iss) && !later(s.ack, e.nxt)
	switch {
	case !e.server && !e.syn:
		return nil // it is about to begin, too
	case !e.server && s.flags&fRST != 0:
		e.gone = fits
		return nil
	case !e.server && s.flags&fACK != 0 && !fits:
		return &seg{flags: fRST, seq: s.ack, scale: noScale}
	case s.flags&fSYN == 0:
		return nil
	}
	e.peer, e.irs, e.rcv, e.promised = true, s.seq, s.seq+1, s.seq+1
	if s.scale == noScale || e.scale == noScale {
		e.scale = noScale
	} else {
		e.shift = s.scale
	}
	if !e.server && s.flags&fACK != 0 {
		e.acknowledged(s)
		return e.header(fACK, e.nxt)
	}
	e.syn, e.edge = true, e.iss+1+uint32(s.win)
	if e.server && e.r.IntN(2) == 0 {
		e.rcv = s.end() // it takes the data of a fast open
	}
	return e.header(fSYN|fACK, e.iss)
}

// done reports that all of the end's data and its FIN have been acknowledged,
// and it has those of the other.
func (e *end) done() bool { return e.fin && e.una == e.last+1 }

// A course is a lab with two such ends, and wires between them and it.
type course struct {
	*lab
	r    *rand.Rand
	seed uint64
	ends [2]*end
	wire [2][]*seg // on the way to the firewall
	past [2][]*seg // from it to the other end
	port uint16
	sure bool // both ends have known all of the connection: whatever they send must pass
	log  []string
}

func newCourse(t *testing.T, seed uint64) *course {
	r := rand.New(rand.NewPCG(seed, 1))
	few := func(p *ruleset.Policy) { p.SNAT[0].PortHi = 8191 } // ports: a lab is made sooner
	c := &course{lab: newLabWith(t, few, "accept egress", established), r: r, seed: seed, ends: [2]*end{{r: r}, {r: r, server: true}}, sure: true}
	c.e.events = nil
	c.ends[lan].begin()
	c.ends[wan].begin()
	return c
}

func (c *course) fail(f string, a ...any) {
	c.t.Helper()
	for _, s := range c.log[max(0, len(c.log)-60):] {
		c.t.Log(s)
	}
	c.t.Fatalf("seed %d: "+f, append([]any{c.seed}, a...)...)
}

// send puts an end's segments on its wire.
func (c *course) send(i int, s *seg) {
	if s != nil {
		c.wire[i] = append(c.wire[i], s)
	}
}

// cross takes the segment at place j of a wire through the firewall.
func (c *course) cross(i, j int) {
	s := c.wire[i][j]
	c.wire[i] = append(c.wire[i][:j:j], c.wire[i][j+1:]...)
	p := tcpSeg(host, 4000, web, 80, s.flags, s.seq, s.ack)
	if i == wan {
		p = tcpSeg(web, 80, ours, c.port, s.flags, s.seq, s.ack)
	}
	p.win, p.data = s.win, make([]byte, s.n)
	if s.scale != noScale {
		p.opts = []byte{1, 3, 3, s.scale}
	}
	vs, _ := c.put(i, p)
	name := [...]string{"client", "server"}[i]
	state := "none"
	if c.e.flows.Len() > 0 {
		state = c.e.flows.Dir(0).State.String()
	}
	c.log = append(c.log, fmt.Sprintf("%s: flags %02x seq %d len %d ack %d window %d scale %d; passed %d, %s", name, s.flags, s.seq, s.n, s.ack, s.win, s.scale, len(vs), state))
	if len(vs) == 1 {
		c.past[i] = append(c.past[i], s)
		if i == lan {
			c.port = vs[0].SrcPort
		}
		return
	}
	if c.sure && c.e.flows.Len() > 0 && (c.ends[1-i].peer || s.flags&fSYN != 0) { // in SYN-SENT an end takes nothing else
		c.fail("dropped: %v", c.e.c.DropReasons[verdict.ConntrackInvalid])
	}
}

// step does one thing of many: an end sends, or the network carries something,
// loses it, brings it twice, or out of order.
func (c *course) step() {
	i := c.r.IntN(2)
	near := func(n int) int { return c.r.IntN(min(n, 3)) }
	switch c.r.IntN(4) {
	case 0:
		c.send(i, c.ends[i].emit())
	case 1, 2:
		if q := c.wire[i]; len(q) > 0 {
			j := near(len(q))
			switch c.r.IntN(10) {
			case 0, 1:
				c.wire[i] = append(q[:j:j], q[j+1:]...)
			case 2:
				c.wire[i] = append(q, q[j])
				fallthrough
			default:
				c.cross(i, j)
			}
		}
	}
	if q := c.past[i]; len(q) > 0 {
		j := near(len(q))
		s := q[j]
		if c.r.IntN(10) != 0 { // or else it comes twice
			c.past[i] = append(q[:j:j], q[j+1:]...)
		}
		if c.r.IntN(5) != 0 {
			c.send(1-i, c.ends[1-i].take(s))
		}
	}
}

// settle lets the network be perfect until ok holds.
func (c *course) settle(what string, ok func() bool) {
	c.t.Helper()
	for _, e := range c.ends {
		e.quiet, e.window = true, 1<<20
	}
	for n := range 1000 {
		if ok() {
			return
		}
		for i, e := range c.ends {
			switch {
			case e.gone && !e.server:
				e.begin()
			case e.server && e.syn && !e.acked && n%200 == 199: // it gives up on a handshake
				e.gone = true
			}
			c.send(i, e.emit())
		}
		for range 4 {
			for i := range c.ends {
				for len(c.wire[i]) > 0 {
					c.cross(i, 0)
				}
				for len(c.past[i]) > 0 {
					s := c.past[i][0]
					c.past[i] = c.past[i][1:]
					c.send(1-i, c.ends[1-i].take(s))
				}
			}
		}
		c.pass(0.1)
	}
	c.fail("never %s: client %+v, server %+v", what, *c.ends[lan], *c.ends[wan])
}

// TestRFC5382_REQ2_HonestEndsOverABadNetwork: two ends that keep to RFC 9293, and
// a network that loses, repeats and reorders on both sides of the firewall.
// Whatever they send passes, and in the end all has arrived.
func TestRFC5382_REQ2_HonestEndsOverABadNetwork(t *testing.T) {
	for seed := range uint64(200) {
		c := newCourse(t, seed)
		for range 60 + c.r.IntN(300) {
			c.step()
		}
		c.settle("done", func() bool { return c.ends[lan].done() && c.ends[wan].done() })
		if s := c.e.flows.Dir(0).State.String(); s != "time_wait" {
			c.fail("state %s", s)
		}
	}
}

// TestRFC9293_S3_5_1_EndsThatForget: besides, either end may abort a connection or forget
// it at any time. The other learns of it, and the next connection between the same ports is
// established.
func TestRFC9293_S3_5_1_EndsThatForget(t *testing.T) {
	for seed := range uint64(200) {
		c := newCourse(t, seed)
		c.sure = false
		for range 3 {
			for range c.r.IntN(100) {
				c.step()
			}
			for i, e := range c.ends {
				switch c.r.IntN(3) {
				case 0:
					if !e.gone && e.peer {
						c.send(i, e.header(fRST|fACK, e.nxt))
					}
					e.gone = true
				case 1:
					e.gone = true
				}
			}
			for range c.r.IntN(30) {
				c.step()
			}
			e := c.ends[lan]
			e.begin()
			e.quiet = false
		}
		c.settle("done", func() bool { return c.ends[lan].done() && c.ends[wan].done() })
	}
}

// TestRFC5382_REQ2a_BothBeginOverABadNetwork: the same with two ends that both
// begin. What comes from outside before the SYN from inside is the policy's.
func TestRFC5382_REQ2a_BothBeginOverABadNetwork(t *testing.T) {
	for seed := range uint64(200) {
		c := newCourse(t, seed)
		for _, e := range c.ends {
			e.server = false
			e.begin()
			e.fast = 0
		}
		c.port = 4000 // preserved
		for range 60 + c.r.IntN(300) {
			c.step()
		}
		c.settle("done", func() bool { return c.ends[lan].done() && c.ends[wan].done() })
		if s := c.e.flows.Dir(0).State.String(); s != "time_wait" {
			c.fail("state %s", s)
		}
	}
}
