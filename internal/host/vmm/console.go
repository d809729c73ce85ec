package vmm

import (
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
	Stopped            // the firewall ends in good order, because somebody wanted it to
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
	{"thurward: stopped: ", Stopped},
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
