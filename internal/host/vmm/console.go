package vmm

import (
	"strconv"
	"strings"
	"time"

	"github.com/thurward/thurward/internal/shared/printable"
)

// A LineKind is what a line of the console is.
type LineKind uint8

// The kinds of line. Output is everything that is not one of the others, such as
// the lines of a crash report.
const (
	Output    LineKind = iota
	Ready              // the rules are live
	EventLine          // one verdict or flow, as JSON
	Refused            // the firewall refuses to start
	Crashed            // the firewall crashed; a report follows, then a reset
	ProbeOK            // the kernel is up: the end of a probe boot
	Stopped            // the firewall ends in order, because it was asked to
	Gateway            // the gateway has been heard for the first time
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
	{eventPrefix, EventLine},
	{"thurward: refusing to start: ", Refused},
	{"thurward: crash: ", Crashed},
	{"thurward: probe ok", ProbeOK},
	{"thurward: stopped: ", Stopped},
	{"thurward: gateway ", Gateway},
}

// ParseLine recognises a line of the console by its beginning: the rest may repeat
// text that the firewall got from elsewhere. Only escape sequences that firmware
// leaves before the first line are skipped. Text is safe for a terminal, except for
// that of an event, which is JSON and is not changed.
func ParseLine(s string) Line {
	s = strings.TrimRight(s, "\r\n")
	rest := afterEscapes(s)
	for _, p := range prefixes {
		after, ok := strings.CutPrefix(rest, p.text)
		switch {
		case !ok:
		case p.kind == EventLine:
			return Line{Kind: p.kind, Text: rest, Rest: after}
		default:
			return Line{Kind: p.kind, Text: shown(rest), Rest: shown(after)}
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

// ReadyInfo is the content of the ready line.
type ReadyInfo struct {
	Version string
	Policy  string // sha256:…
	LAN     string // address of the LAN interface
	WAN     string
	Boot    time.Duration // guest time from its first instruction to ready; 0 if unknown
}

// ParseReady decodes the fields of a ready line. Unknown fields are ignored.
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
			us, _ := strconv.ParseUint(v, 10, 32) // 0 if it is not a number
			r.Boot = time.Duration(us) * time.Microsecond
		}
	}
	return r
}
