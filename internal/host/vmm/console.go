package vmm

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/thurward/thurward/internal/shared/printable"
)

// A LineKind says what a line of the console is.
type LineKind uint8

// The kinds of line. Output is everything that is not one of the others: a
// crash report's lines, for one.
const (
	Output    LineKind = iota
	Ready              // the rules are live
	EventLine          // one verdict or flow, as JSON
	Refused            // the firewall will not start
	Crashed            // something went wrong; a report follows, then a reset
	ProbeOK            // the kernel is up, which was all that was asked for
)

// A Line is one line of the console.
type Line struct {
	Kind LineKind
	Text string // the whole line, without its end
	Rest string // what follows the kind's prefix
}

// prefixes of the console contract, most specific first.
var prefixes = []struct {
	text string
	kind LineKind
}{
	{"thurward: ready ", Ready},
	{"thurward: event ", EventLine},
	{"thurward: refusing to start: ", Refused},
	{"thurward: crash: ", Crashed},
	{"thurward: probe ok", ProbeOK},
}

// ParseLine recognises a line of the console by what it begins with: what stands
// further on may be the words of somebody else that the firewall repeats. Only
// the escape sequences that firmware leaves in front of the first line are
// passed over. Text is safe for a terminal but for that of an event, which is
// JSON and stays as it is.
func ParseLine(s string) Line {
	s = strings.TrimRight(s, "\r\n")
	said := afterEscapes(s)
	for _, p := range prefixes {
		rest, ok := strings.CutPrefix(said, p.text)
		switch {
		case !ok:
		case p.kind == EventLine:
			return Line{Kind: p.kind, Text: said, Rest: rest}
		default:
			return Line{Kind: p.kind, Text: shown(said), Rest: shown(rest)}
		}
	}
	return Line{Text: shown(s)}
}

// afterEscapes returns s without the escape sequences that it begins with
// (ECMA-48 sections 5.3 to 5.5: ESC and a final byte, or CSI, parameters and a
// final byte).
func afterEscapes(s string) string {
	for len(s) >= 2 && s[0] == 0x1b {
		n := 1
		if s[1] == '[' {
			for n = 2; n < len(s) && s[n] >= 0x20 && s[n] < 0x40; n++ {
			}
		}
		if n == len(s) {
			return s
		}
		s = s[n+1:]
	}
	return s
}

// shown makes a line printable; tabs, which indent Go's stack traces, stay.
func shown(s string) string {
	parts := strings.Split(s, "\t")
	for i, p := range parts {
		parts[i] = printable.String(p, maxLine)
	}
	return strings.Join(parts, "\t")
}

// ReadyInfo is what the ready line says.
type ReadyInfo struct {
	Version string
	Policy  string // sha256:…
	LAN     string // address of the LAN interface
	WAN     string
	BootUS  int64 // microseconds of guest time from its first instruction to ready; 0 when not said
}

// ParseReady reads the fields of a ready line. Unknown fields are left alone.
func ParseReady(l Line) ReadyInfo {
	var r ReadyInfo
	for _, f := range strings.Fields(l.Rest) {
		k, v, _ := strings.Cut(f, "=")
		switch k {
		case "version":
			r.Version = v
		case "policy":
			r.Policy = v
		case "lan":
			r.LAN = v
		case "wan":
			r.WAN = v
		case "boot_us":
			r.BootUS, _ = strconv.ParseInt(v, 10, 64)
		}
	}
	return r
}

// An Event is the part of an ECS event that the launcher uses; JSON has it
// whole. Ports and addresses are empty or zero where the event has none.
type Event struct {
	Action, Reason, RuleID     string
	Direction, Transport       string
	SrcIP, DstIP, XlatIP       string
	SrcPort, DstPort, XlatPort uint16
	JSON                       string
}

// ecs mirrors the events' JSON, in which names may be dotted or nested.
type ecs struct {
	Event struct {
		Action, Reason, Kind string
	}
	Rule        struct{ ID, Name string }
	Source      endpoint
	Destination endpoint
	Network     struct {
		Transport, Direction string
		Translated           struct {
			Address string
			Port    uint16
		}
	}
}

type endpoint struct {
	IP   string
	Port uint16
}

// maxEvent is how long an event may be in bytes; the image's are below 2 KB.
const maxEvent = 8 << 10

// ParseEvent reads an event line.
func ParseEvent(l Line) (Event, error) {
	if len(l.Rest) > maxEvent {
		return Event{}, fmt.Errorf("%d bytes, at most %d are read", len(l.Rest), maxEvent)
	}
	var flat map[string]json.RawMessage
	if err := json.Unmarshal([]byte(l.Rest), &flat); err != nil {
		return Event{}, err
	}
	nested := map[string]any{}
	for k, v := range flat {
		var x any
		if err := json.Unmarshal(v, &x); err != nil {
			return Event{}, err
		}
		nest(nested, strings.Split(k, "."), x)
	}
	b, err := json.Marshal(nested)
	if err != nil {
		return Event{}, err
	}
	var e ecs
	if err := json.Unmarshal(b, &e); err != nil {
		return Event{}, err
	}
	return Event{
		Action: e.Event.Action, Reason: e.Event.Reason, RuleID: e.Rule.ID,
		Direction: e.Network.Direction, Transport: e.Network.Transport,
		SrcIP: e.Source.IP, DstIP: e.Destination.IP, XlatIP: e.Network.Translated.Address,
		SrcPort: e.Source.Port, DstPort: e.Destination.Port, XlatPort: e.Network.Translated.Port,
		JSON: l.Rest,
	}, nil
}

// nest puts v at a path of nested maps; a map at the end is merged.
func nest(m map[string]any, path []string, v any) {
	for _, k := range path[:len(path)-1] {
		next, ok := m[k].(map[string]any)
		if !ok {
			next = map[string]any{}
			m[k] = next
		}
		m = next
	}
	last := path[len(path)-1]
	if add, ok := v.(map[string]any); ok {
		for k, x := range add {
			nest(m, append([]string{last}, strings.Split(k, ".")...), x)
		}
		return
	}
	m[last] = v
}
