package conntrack

// A State is where a flow is in its life. Zero is a free record.
type State uint8

// The states. Those of TCP follow RFC 9293 as a middlebox sees them; the
// letter after the underscore is what both ends have sent.
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
	UDPReplied         // UDP: packets of both directions
	Echo               // ICMP query
	NumStates
)

var stateNames = [NumStates]string{"free", "syn_sent", "syn_recv", "established", "fin_wait", "close_wait", "last_ack",
	"time_wait", "close", "udp_unreplied", "udp", "icmp_echo"}

// String returns the state's name.
func (s State) String() string {
	if s < NumStates {
		return stateNames[s]
	}
	return "invalid"
}

// halfOpen reports whether a flow in this state may be sacrificed for a new
// one when the table is full: nobody has answered, or all is over.
func (s State) halfOpen() bool {
	return s == SynSent || s == SynRecv || s == UDPUnreplied || s == TimeWait || s == Close
}

// Timeouts holds, by state, how long a flow may be idle, in nanoseconds.
type Timeouts [NumStates]int64

func (t *Timeouts) of(s State) int64 {
	if s >= NumStates {
		return 0
	}
	return t[s]
}

// setState changes a flow's state in both directions.
func (t *Table) setState(r Ref, s State) { t.Dir(r).State, t.Dir(r^1).State = s, s }

// SetReplied notes that a UDP flow has had an answer.
func (t *Table) SetReplied(r Ref) { t.setState(r, UDPReplied) }

// SetHairpin notes that both ends of a flow are on the side of its first packet.
func (t *Table) SetHairpin(r Ref) {
	a, b := t.Dir(r), t.Dir(r^1)
	a.Hairpin, b.Hairpin, b.FromWAN = true, true, a.FromWAN
}
