package ingest

import (
	"errors"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/thurward/thurward/internal/host/ecs"
)

// A Hello is the first line of a connection, by which a firewall describes itself.
// The zero Hello is a firewall that has not sent it.
type Hello struct {
	Fields ecs.Event // those of helloFields, of bounded length
	Boot   string    // service.instance.id, random at each boot
	// Booted is when the firewall started, by its own clock, or by the host's if
	// it has none. Zero if unknown.
	Booted time.Time
	NoTime bool // the firewall has no clock: its times count from 1970-01-01 at boot
	// Given is the name that the firewall's launcher has given it, "" for none. The
	// firewall itself does not choose it: see GivenAddress.
	Given string
	// Suffix distinguishes firewalls with the same name. The reader assigns it to
	// the connection; it is "" for the first one.
	Suffix string
}

// helloFields are the fields that are kept, each with its largest length in bytes.
var helloFields = map[string]int{
	ecs.StreamVersion: 20, ecs.Timestamp: 40,
	ecs.ServiceName: 32, ecs.ServiceVersion: 100, ecs.ServiceInstance: maxBoot,
	ecs.GitSHA: 64, ecs.Policy: 80, ecs.Clock: 20,
	ecs.LANName: 32, ecs.LANMAC: 32, ecs.LANAddress: 64,
	ecs.WANName: 32, ecs.WANMAC: 32, ecs.WANAddress: 64,
	ecs.Rules: 20, ecs.MaxFlows: 20, ecs.Uptime: 20, ecs.Connection: 20, ecs.LostLines: 20,
}

// maxBoot is the largest length of service.instance.id in bytes.
const maxBoot = 128

var (
	errHello      = errors.New("a HELLO without service.instance.id")
	errHelloField = errors.New("a field of the HELLO is too long, or not of its type")
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
		if _, list := v.([]any); list || len(t) > most || strings.ContainsFunc(t, isControl) {
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

// isControl reports whether r is a control character (C0 or C1, or DEL).
func isControl(r rune) bool { return r < 0x20 || r >= 0x7f && r < 0xa0 }

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

// Received sets Booted where the firewall's clock does not give it: to the time at
// which the host received the line, less the firewall's uptime.
func (h *Hello) Received(now time.Time) {
	if h.NoTime || h.Booted.IsZero() {
		if h.Booted = now.Add(-h.Fields.Duration(ecs.Uptime)); !ecs.ValidTime(h.Booted) {
			h.Booted = now
		}
	}
}

// When returns the time of an event: by the firewall's clock, or, if it has none,
// Booted and the event's time since boot. It is zero if the event has no valid
// time.
func (h *Hello) When(e ecs.Event) time.Time {
	t := e.Time()
	if e.Str(ecs.Clock) == "none" && !t.IsZero() && !h.Booted.IsZero() {
		if t = h.Booted.Add(t.Sub(time.Unix(0, 0))); !ecs.ValidTime(t) {
			return time.Time{}
		}
	}
	return t
}

// Name returns the firewall's name: the one that it was given, its WAN address, or else
// its WAN hardware address or its boot id, with the suffix.
func (h *Hello) Name() string { return h.base() + h.Suffix }

// base is the name without the suffix.
func (h *Hello) base() string {
	if h.Given != "" {
		return h.Given
	}
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
