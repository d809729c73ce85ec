package ingest

import (
	"errors"
	"strings"
	"unicode/utf8"

	"github.com/thurward/thurward/internal/host/ecs"
)

// MaxLine is the largest length of a line in bytes, its end not counted. The
// firewall's own lines are far shorter.
const MaxLine = ecs.MaxBytes

// A Kind says what a line is. Zero is invalid.
type Kind uint8

// The kinds of line.
const (
	_            Kind = iota
	EventKind         // {…}
	SampleKind        // # METRIC name{label="value"} 1
	HelpKind          // # METRIC # HELP name text
	TypeKind          // # METRIC # TYPE name counter
	SnapshotKind      // # METRIC # SNAPSHOT time: the beginning of a snapshot
	EOFKind           // # METRIC # EOF: its end
	SpanKind          // # SPAN {…}
	HelloKind         // # HELLO {…}
	BeatKind          // # BEAT time: the packet loop runs
	FromKind          // # FROM name: of the firewall whose lines follow, in a stream of several
	Unknown           // # and anything else, or a metric not in the schema: of a newer firewall, to be ignored
	Malformed         // none of these, or one of these that cannot be read
)

// String returns the kind's name, as counters of lines use it.
func (k Kind) String() string {
	switch k {
	case EventKind:
		return "event"
	case SampleKind:
		return "sample"
	case HelpKind:
		return "help"
	case TypeKind:
		return "type"
	case SnapshotKind:
		return "snapshot"
	case EOFKind:
		return "eof"
	case SpanKind:
		return "span"
	case HelloKind:
		return "hello"
	case BeatKind:
		return "beat"
	case FromKind:
		return "from"
	case Unknown:
		return "unknown"
	case Malformed:
		return "malformed"
	}
	return "invalid"
}

// An Item is one line. Beside Kind and Raw only the field of its kind is set.
type Item struct {
	Kind   Kind
	Raw    string // the line without its end, at most MaxLine bytes; may be not UTF-8 if malformed
	Event  ecs.Event
	Sample Sample
	Meta   Meta
	Span   Span
	Hello  Hello
	From   string // the firewall's name, assigned by the reader
	Err    error  // why it is malformed
}

// Meta is a metric's help text or its type. Readers show those of Metric, not those
// of the guest.
type Meta struct {
	Name, Text string
	Metric     *Metric
}

// Why a line is malformed.
var (
	ErrCut     = errors.New("ends in the middle: the connection broke")
	errFrom    = errors.New("not the name of a firewall")
	errType    = errors.New("not the metric's type")
	errUnknown = errors.New("neither an event, nor # METRIC, # SPAN or # HELLO")
)

// The prefixes of lines.
const (
	metricPrefix = "# METRIC "
	spanPrefix   = "# SPAN "
	helloPrefix  = "# HELLO "
	beatPrefix   = "# BEAT "
	fromPrefix   = "# FROM "
)

// maxFrom is the largest length of a firewall's name in bytes: a boot's id and a
// suffix.
const maxFrom = maxBoot + 8

// Parse decodes one line, given without its end. It always returns an Item: of a
// line that it cannot decode one that is Malformed, with the reason in Err.
func Parse(line string) Item {
	it := Item{Raw: line}
	it.Kind, it.Err = it.parse(line)
	if it.Err != nil {
		it = Item{Kind: Malformed, Raw: line, Err: it.Err}
	}
	return it
}

func (it *Item) parse(line string) (Kind, error) {
	if len(line) > MaxLine {
		it.Raw = line[:MaxLine]
		return Malformed, ecs.ErrTooLong
	}
	if !utf8.ValidString(line) {
		return Malformed, ecs.ErrUTF8
	}
	var err error
	switch {
	case strings.HasPrefix(line, "{"):
		it.Event, err = ecs.Parse(line)
		return EventKind, err
	case strings.HasPrefix(line, metricPrefix):
		return it.parseMetric(line[len(metricPrefix):])
	case strings.HasPrefix(line, spanPrefix):
		it.Span, err = parseSpan(line[len(spanPrefix):])
		return SpanKind, err
	case strings.HasPrefix(line, helloPrefix):
		it.Hello, err = parseHello(line[len(helloPrefix):])
		return HelloKind, err
	case strings.HasPrefix(line, beatPrefix):
		return BeatKind, nil
	case strings.HasPrefix(line, fromPrefix):
		if it.From = line[len(fromPrefix):]; len(it.From) > maxFrom || it.From == "" {
			return FromKind, errFrom
		}
		return FromKind, nil
	case strings.HasPrefix(line, "# "):
		return Unknown, nil
	}
	return Malformed, errUnknown
}

func (it *Item) parseMetric(s string) (Kind, error) {
	var err error
	switch {
	case strings.HasPrefix(s, "# HELP "):
		if it.Meta, err = parseMeta(s[len("# HELP "):]); err != nil {
			return HelpKind, err
		}
		if it.Meta.Metric == nil {
			return Unknown, nil
		}
		it.Meta.Text = helpEscapes.Replace(it.Meta.Text)
		return HelpKind, nil
	case strings.HasPrefix(s, "# TYPE "):
		if it.Meta, err = parseMeta(s[len("# TYPE "):]); err != nil {
			return TypeKind, err
		}
		if it.Meta.Metric == nil {
			return Unknown, nil
		}
		if it.Meta.Text != string(it.Meta.Metric.Type) {
			return TypeKind, errType
		}
		return TypeKind, nil
	case s == "# EOF":
		return EOFKind, nil
	case strings.HasPrefix(s, "# SNAPSHOT "):
		return SnapshotKind, nil
	case strings.HasPrefix(s, "#"):
		return Unknown, nil // a comment
	}
	it.Sample, err = parseSample(s)
	if err == errNotOurs {
		return Unknown, nil
	}
	return SampleKind, err
}

var helpEscapes = strings.NewReplacer(`\\`, `\`, `\n`, "\n")

func parseMeta(s string) (Meta, error) {
	name, text, _ := strings.Cut(s, " ")
	if !isName(name, true) {
		return Meta{}, errName
	}
	if m := NamedMetric(name); m != nil {
		return Meta{m.Name, text, m}, nil
	}
	return Meta{}, nil
}
