package conntrack

// A State is the state of a flow. Zero is a free record.
type State uint8

// The states. Those of TCP follow RFC 9293 section 3.3.2 as a middlebox sees them.
const (
	_            State = iota
	SynSent            // TCP: SYN seen
	SynRecv            // TCP: SYN and SYN-ACK (or a simultaneous SYN) seen
	Established        // TCP: handshake complete
	FinWait            // TCP: one side has closed
	CloseWait          // TCP: that FIN has been acknowledged
	LastAck            // TCP: both sides have closed
	TimeWait           // TCP: both FINs acknowledged
	Close              // TCP: reset
	UDPUnreplied       // UDP: packets of one direction only
	UDPBrief           // the same, to a well-known port (below 1024)
	UDPReplied         // UDP: packets of both directions, and the initiator has sent again after an answer
	UDPQuery           // UDP: an answered query: to port 53, or as UDPAnswered from the WAN or to a well-known port
	UDPAnswered        // UDP: packets of both directions, the initiator's all before the first answer
	Echo               // ICMP query
	NumStates
)

var stateNames = [NumStates]string{"free", "syn_sent", "syn_recv", "established", "fin_wait", "close_wait", "last_ack",
	"time_wait", "close", "udp_unreplied", "udp_brief", "udp", "udp_query", "udp_answered", "icmp_echo"}

// String returns the state's name.
func (s State) String() string {
	if s < NumStates {
		return stateNames[s]
	}
	return "invalid"
}

// spare returns how readily a flow in this state is evicted for a new one when the table is
// full: 0 is never, and the highest first. Flows that are over come before unanswered ones,
// and those before answered ones.
func (s State) spare() int {
	switch s {
	case TimeWait, Close:
		return spareOver
	case SynSent, UDPUnreplied, UDPBrief, UDPQuery:
		return spareUnanswered
	case SynRecv, UDPAnswered, Echo:
		return 1
	}
	return 0
}

// Values of spare: flows that are over, and those that were answered once at most.
const (
	spareOver       = 3
	spareUnanswered = 2
)

// Over reports whether a flow in this state is over, and only kept for late packets.
func (s State) Over() bool { return s.spare() == spareOver }

// Timeouts are the idle timeouts of flows by state, in nanoseconds.
type Timeouts [maxStates]int64

// maxStates is the next power of two above the states: a State masked with it needs no
// bounds check.
const maxStates = 16

func (t *Timeouts) of(s State) int64 { return t[s&(maxStates-1)] }

// setState changes a flow's state in both directions, and takes them off the fast path
// until they are marked again.
func (t *Table) setState(r Ref, s State) {
	a, b := t.Dir(r), t.Dir(r^1)
	t.turn(r, a.State, s)
	a.State, b.State = s, s
	a.fast, b.fast = 0, 0
}

// Unmarked returns a copy of the direction without the mark of MarkFast.
func (d *Dir) Unmarked() Dir {
	c := *d
	c.fast = 0
	return c
}

// Fast returns the direction's path if its packets take the fast path, else 0.
func (d *Dir) Fast() Path { return d.fast }

// MarkFast puts a direction on the fast path if its packets need no further decision until
// its flow's state changes: see IsFast. Only established TCP connections and UDP flows have
// such directions; a hairpin has none.
func (t *Table) MarkFast(r Ref) {
	d := t.Dir(r)
	if d.Verdict != Accepted || d.Path.Hairpin() {
		return
	}
	switch d.State {
	case Established, UDPReplied:
		d.fast = d.Path
	case UDPUnreplied, UDPBrief:
		if !r.Reply() {
			d.fast = d.Path
		}
	case UDPQuery, UDPAnswered:
		if r.Reply() || t.dns(r) {
			d.fast = d.Path
		}
	}
}

// dns reports whether a UDP flow is of queries to port 53.
func (t *Table) dns(r Ref) bool { return t.Dir(r|1).Key.SrcPort == 53 }

// UDPState returns the state in which a UDP flow to a port begins. To a well-known port its
// timeout may be shorter (RFC 4787 REQ-5a).
func UDPState(port uint16) State {
	if port < 1024 {
		return UDPBrief
	}
	return UDPUnreplied
}

// UDP advances the state for a packet of direction r of a UDP flow. An answer alone does
// not prove that the source is genuine: a server answers forged datagrams as well. Only
// when the initiator sends again after an answer is the flow firm.
func (t *Table) UDP(r Ref) {
	d := t.Dir(r)
	switch d.State {
	case UDPUnreplied, UDPBrief:
		if !r.Reply() {
			return
		}
		s := UDPAnswered
		if d.State == UDPBrief || t.dns(r) || t.Dir(r^1).Path.FromWAN() {
			s = UDPQuery
		}
		t.setState(r, s)
	case UDPAnswered, UDPQuery:
		if !r.Reply() && !t.dns(r) {
			t.setState(r, UDPReplied)
		}
	}
}
