package ingest

import (
	"errors"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/thurward/thurward/internal/host/ecs"
)

// A Hello is the first line of a connection: who sends. The zero Hello is a
// sender that has not said.
type Hello struct {
	Fields ecs.Event // those of helloFields, of bounded length
	Boot   string
	// Booted is when the firewall started, by its own clock, or by the
	// host's if it has none; zero when not known.
	Booted time.Time
	NoTime bool // the firewall has no clock: its times count from 1970-01-01 at boot
	// Suffix tells firewalls apart that say the same of themselves; the reader
	// gives it by the connection. It is "" for the first.
	Suffix string
}

// helloFields are the fields that are kept, each with the largest length of its
// text.
var helloFields = map[string]int{
	ecs.StreamVersion: 20, ecs.Timestamp: 40,
	ecs.ServiceName: 32, ecs.ServiceVersion: 100, ecs.ServiceInstance: maxBoot,
	ecs.GitSHA: 64, ecs.Policy: 80, ecs.Clock: 20,
	ecs.LANName: 32, ecs.LANMAC: 32, ecs.LANAddress: 64,
	ecs.WANName: 32, ecs.WANMAC: 32, ecs.WANAddress: 64,
	ecs.Rules: 20, ecs.MaxFlows: 20, ecs.Uptime: 20, ecs.Connection: 20, ecs.LostLines: 20,
}

// maxBoot bounds the length of a boot's id.
const maxBoot = 128

var (
	errHello      = errors.New("a HELLO without service.instance.id")
	errHelloField = errors.New("a field of the HELLO is too long, or not what its name says")
)

func parseHello(s string) (Hello, error) {
	all, err := ecs.Parse(s)
	if err != nil {
		return Hello{}, err
	}
	e := ecs.Event{}
	for name, most := range helloFields {
		v, ok := all[name]
		if !ok {
			continue
		}
		t := ecs.Text(v)
		if _, list := v.([]any); list || len(t) > most || strings.ContainsFunc(t, func(r rune) bool { return r < 0x20 || r >= 0x7f && r < 0xa0 }) {
			return Hello{}, errHelloField
		}
		e[name] = v
	}
	h := Hello{Fields: e, Boot: e.Str(ecs.ServiceInstance), NoTime: e.Str(ecs.Clock) == "none"}
	if h.Boot == "" || strings.ContainsFunc(h.Boot, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == '#' }) {
		return Hello{}, errHello
	}
	for _, name := range []string{ecs.LANAddress, ecs.WANAddress} {
		if a := e.Str(name); a != "" && !isAddress(a) {
			return Hello{}, errHelloField
		}
	}
	for _, name := range []string{ecs.LANMAC, ecs.WANMAC} {
		if a := e.Str(name); a != "" {
			if _, err := net.ParseMAC(a); err != nil {
				return Hello{}, errHelloField
			}
		}
	}
	if t := e.Time(); !t.IsZero() && !h.NoTime {
		h.Booted = t.Add(-e.Duration(ecs.Uptime))
	}
	if !ecs.ValidTime(h.Booted) {
		h.Booted = time.Time{}
	}
	return h, nil
}

// isAddress reports whether s is an address, with or without the length of its
// prefix.
func isAddress(s string) bool {
	_, err := netip.ParsePrefix(s)
	if err != nil {
		a, e := netip.ParseAddr(s)
		return e == nil && a.Zone() == ""
	}
	return true
}

// Received completes what a firewall without a clock cannot know: it booted
// its up-time before the host received the line.
func (h *Hello) Received(now time.Time) {
	if h.NoTime || h.Booted.IsZero() {
		if h.Booted = now.Add(-h.Fields.Duration(ecs.Uptime)); !ecs.ValidTime(h.Booted) {
			h.Booted = now
		}
	}
}

// When returns when an event happened by the best clock there is: the
// firewall's, or, if it has none, its boot by the host's clock and the time
// since. It is zero when the event does not say, or names no time that can be.
func (h *Hello) When(e ecs.Event) time.Time {
	t := e.Time()
	if e.Str(ecs.Clock) == "none" && !t.IsZero() && !h.Booted.IsZero() {
		if t = h.Booted.Add(t.Sub(time.Unix(0, 0))); !ecs.ValidTime(t) {
			return time.Time{}
		}
	}
	return t
}

// Name returns how to call the firewall: its address on the WAN, or what else
// tells it from others.
func (h *Hello) Name() string { return h.said() + h.Suffix }

// said is the name by what the firewall says.
func (h *Hello) said() string {
	if a, _, _ := strings.Cut(h.Fields.Str(ecs.WANAddress), "/"); a != "" {
		return a
	}
	if m := h.Fields.Str(ecs.WANMAC); m != "" {
		return m
	}
	if h.Boot != "" {
		return h.Boot
	}
	return "unknown"
}
