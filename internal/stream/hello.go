package stream

import (
	"strings"
	"time"
)

// A Hello is the first line of a connection: who sends. The zero Hello is a
// sender that has not said.
type Hello struct {
	Fields Event // all of it
	Boot   string
	// Booted is when the firewall started, by its own clock, or by the
	// host's if it has none; zero when not known.
	Booted time.Time
	NoTime bool // the firewall has no clock: its times count from 1970-01-01 at boot
}

// maxBoot bounds the length of a boot's id.
const maxBoot = 128

func parseHello(s string) (Hello, error) {
	e, err := parseEvent(s)
	if err != nil {
		return Hello{}, err
	}
	h := Hello{Fields: e, Boot: e.Str("service.instance.id"), NoTime: e.Str("firewall.clock") == "none"}
	if h.Boot == "" || len(h.Boot) > maxBoot || strings.ContainsAny(h.Boot, "\n ") {
		return Hello{}, errHello
	}
	if t := e.Time(); !t.IsZero() && !h.NoTime {
		h.Booted = t.Add(-time.Duration(e.Int("firewall.uptime_ns")))
	}
	return h, nil
}

// Received completes what a firewall without a clock cannot know: it booted
// its up-time before the host received the line.
func (h *Hello) Received(now time.Time) {
	if h.NoTime || h.Booted.IsZero() {
		h.Booted = now.Add(-time.Duration(h.Fields.Int("firewall.uptime_ns")))
	}
}

// When returns when an event happened by the best clock there is: the
// firewall's, or, if it has none, its boot by the host's clock and the time
// since. It is zero when the event does not say.
func (h *Hello) When(e Event) time.Time {
	t := e.Time()
	if e.Str("firewall.clock") == "none" && !t.IsZero() && !h.Booted.IsZero() {
		return h.Booted.Add(t.Sub(time.Unix(0, 0)))
	}
	return t
}

// Name returns how to call the firewall: its address on the WAN, or what else
// tells it from others.
func (h *Hello) Name() string {
	if a, _, _ := strings.Cut(h.Fields.Str("firewall.wan.address"), "/"); a != "" {
		return a
	}
	if m := h.Fields.Str("firewall.wan.mac"); m != "" {
		return m
	}
	if h.Boot != "" {
		return h.Boot
	}
	return "unknown"
}
