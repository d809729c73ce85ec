package conntrack

// A Path is the port where packets of a direction enter, and the one where they leave, by
// number from 0 to 7, with a bit for each that is on the WAN. A direction whose packets
// leave by the port where they enter is a hairpin.
type Path uint8

const (
	pathEgress  = 3 // shift of the port by which packets leave
	pathPort    = 7 // mask of a port
	pathToWAN   = 1 << 6
	pathFromWAN = 1 << 7
)

// NewPath returns the path from one port to another.
func NewPath(in, out int, fromWAN, toWAN bool) Path {
	p := Path(in&pathPort | out&pathPort<<pathEgress)
	if fromWAN {
		p |= pathFromWAN
	}
	if toWAN {
		p |= pathToWAN
	}
	return p
}

// Ingress returns the number of the port where packets enter.
func (p Path) Ingress() int { return int(p & pathPort) }

// Egress returns the number of the port where packets leave.
func (p Path) Egress() int { return int(p >> pathEgress & pathPort) }

// FromWAN reports whether packets enter from the WAN.
func (p Path) FromWAN() bool { return p&pathFromWAN != 0 }

// Hairpin reports whether packets leave by the port where they enter.
func (p Path) Hairpin() bool { return p.Ingress() == p.Egress() }

// Reverse returns the path of the other direction.
func (p Path) Reverse() Path {
	return NewPath(p.Egress(), p.Ingress(), p&pathToWAN != 0, p&pathFromWAN != 0)
}
