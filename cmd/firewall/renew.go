package main

import (
	"github.com/thurward/thurward/internal/guest/sys"
	"github.com/thurward/thurward/internal/guest/virtio"
)

// Pauses between attempts to set up a network device that was given up, in nanoseconds: the
// first attempt is made at once, and the pause doubles. One that has worked for calm begins
// a new row.
const (
	firstRenew = int64(1e9)
	mostRenew  = int64(60e9)
	calm       = int64(60e9)
	lookEvery  = int64(1e9) // between two looks at a device's status
)

// A renewal decides when a device is set up again.
type renewal struct {
	next  int64 // the next attempt
	pause int64 // after it
	since int64 // when the device began to work
	last  string
}

// due reports whether an attempt is made now. It is asked while the device is given up.
func (r *renewal) due(now int64) bool {
	if r.since != 0 && now-r.since >= calm {
		r.pause, r.next = 0, 0
	}
	r.since = 0
	if now < r.next {
		return false
	}
	r.pause = min(max(2*r.pause, firstRenew), mostRenew)
	r.next = now + r.pause
	return true
}

// worked notes that the attempt was a success.
func (r *renewal) worked(now int64) { r.since, r.last = now, "" }

// news reports whether a reason is another than the last one, which was reported.
func (r *renewal) news(why string) bool {
	if why == r.last {
		return false
	}
	r.last = why
	return true
}

// renew looks at the devices, and sets one up again that was given up: it had broken
// virtio's rules, asked for a reset, or reset itself. The other one goes on meanwhile, but that
// several workers stand still for as long as it takes. Each
// reason is reported once until the device works again.
func (p *ports) renew(now int64, t *team) {
	look := now >= p.look
	if look {
		p.look = now + lookEvery
		if n, _ := sys.Bounded(); n > 0 {
			sys.Stats() // has the kernel tell what the IOMMU has refused
		}
	}
	for i, n := range [...]*virtio.Net{p.lan, p.wan} {
		name, r := [...]string{"the lan", "the wan"}[i]+" interface", &p.renewals[i]
		if look {
			n.Look()
		}
		why := n.Stopped()
		if why == "" || !r.due(now) {
			continue
		}
		if r.news(why) {
			say(name + " has stopped: " + why)
		}
		lost := t.lost(i)
		var err error
		if t.pause(func() { err = n.Renew() }); err != nil {
			if r.news(err.Error()) {
				say(name + " cannot be set up again: " + err.Error())
			}
			continue
		}
		r.worked(now)
		say(name + " was reset and works again; frames lost: " + itoa(int(t.lost(i)-lost)))
	}
}
