package verdict

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

// A Direction is the way a packet travels, as policies name it. Zero is either
// way, in a rule, and invalid elsewhere.
type Direction uint8

// The directions.
const (
	Either  Direction = iota
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
