package replay

import (
	"errors"
	"fmt"
	"io"
)

// maxIndexes is how many interfaces a capture of all interfaces may have.
const maxIndexes = 1 << 12

// An allSurvey finds the firewall's two sides in a capture of all its interfaces, as
// tcpdump -i any writes it.
type allSurvey struct {
	side    [2]*survey
	votes   map[uint32]*[2]int // by interface: frames that only the LAN's, only the WAN's side receives
	indexed bool
	index   [2]uint32
	sum     *AnySummary
}

// AnySummary counts the frames of a capture of all interfaces.
type AnySummary struct {
	File    string
	Frames  int
	Indexed bool      // the capture tells the interfaces apart
	Index   [2]uint32 // of the sides' interfaces; 0: not found
	Votes   [2]int    // frames by which they were found
	Others  int       // frames of other interfaces, or of a side that is not clear
	Alien   int       // frames that are no Ethernet frames
}

func newAllSurvey(side [2]*survey, sum *AnySummary) *allSurvey {
	return &allSurvey{side: side, votes: map[uint32]*[2]int{}, sum: sum}
}

// scan reads a capture of all interfaces to its end.
func (a *allSurvey) scan(r *reader) error {
	if !cooked(r.link) {
		return fmt.Errorf("%s: frames of link type %d do not tell which of them the host sent; "+
			"want Linux's cooked ones, as tcpdump -i any writes them (a capture of one side: --lan or --wan)", r.path, r.link)
	}
	a.indexed = r.link == linkSLL2
	for {
		f, err := r.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		a.sum.Frames++
		if s, ok := a.hint(&f); ok {
			a.side[s].vote(&f)
			if a.indexed && !f.env.loopback && f.env.way == received {
				v := a.votes[f.env.index]
				if v == nil {
					if len(a.votes) == maxIndexes {
						return fmt.Errorf("%s: frame %d: more than %d interfaces", r.path, r.n, maxIndexes)
					}
					v = new([2]int)
					a.votes[f.env.index] = v
				}
				v[s]++
			}
		}
	}
	a.sum.Alien = r.alien
	if lan, wan := a.side[LAN], a.side[WAN]; lan.disagree+wan.disagree > lan.agree+wan.agree {
		return fmt.Errorf("%s: the host that captured is not the firewall: it received what the firewall sends "+
			"(replay the capture as that of the host's side, with --lan or --wan)", r.path)
	}
	a.choose()
	return nil
}

// hint returns the side that a frame's addresses speak for. ok is false where they
// speak for none.
func (a *allSurvey) hint(f *frameIn) (Side, bool) {
	from, to, ok := ends(f.data)
	if !ok {
		return 0, false
	}
	lan, wan := a.side[LAN], a.side[WAN]
	on := func(v *survey, addr uint32) bool { return addr&uint32(v.mask) == uint32(v.net) }
	switch f.env.way {
	case received:
		switch {
		case on(lan, uint32(from)):
			return LAN, true
		case wan.own(to), on(wan, uint32(from)), on(lan, uint32(to)):
			return WAN, true
		}
	case sent:
		switch {
		case wan.own(from):
			return WAN, true
		case on(lan, uint32(to)):
			return LAN, true
		case on(lan, uint32(from)), on(wan, uint32(to)):
			return WAN, true
		}
	}
	return 0, false
}

// choose sets the sides' interfaces: those with the most votes, the smallest of several.
func (a *allSurvey) choose() {
	a.sum.Indexed = a.indexed
	for _, s := range []Side{LAN, WAN} {
		for i, v := range a.votes {
			if s == WAN && i == a.index[LAN] {
				continue
			}
			if n := a.sum.Votes[s]; v[s] > n || v[s] == n && n > 0 && i < a.index[s] {
				a.index[s], a.sum.Votes[s] = i, v[s]
			}
		}
	}
	a.sum.Index = a.index
}

// sideOf returns the side whose frame it is. ok is false for frames of other
// interfaces, and for those whose side is not clear.
func (a *allSurvey) sideOf(f *frameIn) (Side, bool) {
	if f.env.loopback {
		return 0, false
	}
	if !a.indexed {
		return a.hint(f)
	}
	for _, s := range []Side{LAN, WAN} {
		if a.index[s] != 0 && f.env.index == a.index[s] {
			return s, true
		}
	}
	return 0, false
}

// take returns which frames of the capture are a side's.
func (a *allSurvey) take(s Side) func(*frameIn) bool {
	return func(f *frameIn) bool {
		side, ok := a.sideOf(f)
		if !ok && s == LAN { // counted once
			a.sum.Others++
		}
		return ok && side == s
	}
}
