package policy

import (
	"fmt"
	"net/netip"
	"time"
)

// A Flow describes the first packet of one direction of a flow, as it arrives.
// The addresses of an answer (Established) are those of the hosts at both ends,
// as rules see them.
type Flow struct {
	FromLAN     bool
	Protocol    Protocol
	Src, Dst    netip.AddrPort // IPv4; port 0: none given
	FQDN        string         // name by which the source knows Dst, "" for none
	Naming      Naming         // how it knows it
	Ago         time.Duration  // NameExpired: for how long the name has expired
	Established bool           // it answers a flow that was accepted
}

// String returns the flow as people write it.
func (f Flow) String() string {
	end := func(a netip.AddrPort) string {
		if a.Port() == 0 {
			return a.Addr().String()
		}
		return a.String()
	}
	s := fmt.Sprintf("%s %s to %s", f.Protocol, end(f.Src), end(f.Dst))
	switch {
	case f.FQDN == "":
	case f.Naming == NameExpired:
		s += fmt.Sprintf(" (%s, expired %v ago)", f.FQDN, f.Ago)
	case f.Naming == NameOthers:
		s += " (" + f.FQDN + ", as another host knows it)"
	default:
		s += " (" + f.FQDN + ")"
	}
	side, state := "wan", ""
	if f.FromLAN {
		side = "lan"
	}
	if f.Established {
		state = ", an answer"
	}
	return s + " from the " + side + state
}

// A Naming says how the source of a flow knows the name of its destination.
type Naming uint8

// The ways.
const (
	NameKnown   Naming = iota // it has resolved it, and the name has not expired
	NameExpired               // it has, and the name has expired
	NameOthers                // another host has; the source has not
)
