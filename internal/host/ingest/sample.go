package ingest

import (
	"errors"
	"math"
	"sort"
	"strconv"
	"strings"
)

// A Label is a label of a metric.
type Label struct{ Name, Value string }

// A Sample is one value of one metric, from one line of Prometheus' text
// format (version 0.0.4). Its labels are those of the metric, sorted by name; its
// value is from 0 to MaxValue.
type Sample struct {
	Name   string // the metric's, or that of a histogram's series
	Labels []Label
	Value  float64
	Metric *Metric
}

// MaxValue is the largest value of a sample: the firewall counts in 64 bits. The sum
// of all samples that a reader keeps is finite.
const MaxValue = 1 << 64

// Label returns a label's value, "" when there is none.
func (s *Sample) Label(name string) string {
	for _, l := range s.Labels {
		if l.Name == name {
			return l.Value
		}
	}
	return ""
}

// Key identifies the series: name and labels in Prometheus' text format.
func (s *Sample) Key() string {
	if len(s.Labels) == 0 {
		return s.Name
	}
	b := append(make([]byte, 0, 128), s.Name...)
	before := byte('{')
	for _, l := range s.Labels {
		b = append(b, before)
		b = append(b, l.Name...)
		b = append(b, '=')
		b = append(b, QuoteLabel(l.Value)...)
		before = ','
	}
	return string(append(b, '}'))
}

// String returns the sample as a line of the text format, without a time.
func (s *Sample) String() string { return s.Key() + " " + FormatValue(s.Value) }

// FormatValue writes a value as the text format does.
func FormatValue(v float64) string {
	switch {
	case math.IsInf(v, 1):
		return "+Inf"
	case math.IsInf(v, -1):
		return "-Inf"
	case math.IsNaN(v):
		return "NaN"
	case v == math.Trunc(v) && math.Abs(v) < 1<<53:
		return strconv.FormatInt(int64(v), 10)
	}
	return strconv.FormatFloat(v, 'g', -1, 64)
}

// maxLabels bounds the labels of one sample.
const maxLabels = 32

var (
	errName     = errors.New("not the name of a metric")
	errLabel    = errors.New("not a list of labels")
	errValue    = errors.New("not one number from 0 to 2^64")
	errNotOurs  = errors.New("not a metric of the schema")
	labelEscape = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)
)

// isName reports whether s is a metric's name, or a label's, which may hold
// no colon.
func isName(s string, colon bool) bool {
	for i := range len(s) {
		c := s[i]
		switch {
		case c|0x20 >= 'a' && c|0x20 <= 'z', c == '_', c == ':' && colon, c >= '0' && c <= '9' && i > 0:
		default:
			return false
		}
	}
	return s != ""
}

func parseSample(s string) (Sample, error) {
	end := strings.IndexAny(s, "{ ")
	if end < 0 || !isName(s[:end], true) {
		return Sample{}, errName
	}
	p, known := parts[s[:end]]
	m := Sample{Name: p.name, Metric: p.metric}
	s = s[end:]
	var err error
	if s[0] == '{' {
		if m.Labels, s, err = parseLabels(s[1:]); err != nil {
			return Sample{}, err
		}
	}
	f := strings.Fields(s)
	if len(f) != 1 {
		return Sample{}, errValue
	}
	if m.Value, err = parseValue(f[0]); err != nil {
		return Sample{}, err
	}
	if !known || p.suffix == "" && p.metric.Type == Histogram {
		return Sample{}, errNotOurs
	}
	return m, p.check(m.Labels)
}

// parseValue parses a value. NaN and infinities are refused: they would spread to
// sums, and JSON has neither.
func parseValue(s string) (float64, error) {
	v, err := strconv.ParseFloat(s, 64)
	if err != nil || strings.ContainsAny(s, "_xXpP+-") && !isExponent(s) ||
		!(v >= 0 && v <= MaxValue) || math.Signbit(v) {
		return 0, errValue
	}
	return v, nil
}

// isExponent reports whether the sign in a number is that of its exponent.
func isExponent(s string) bool {
	i := strings.IndexAny(s, "+-")
	return i > 0 && (s[i-1]|0x20) == 'e' && !strings.ContainsAny(s, "_xXpP")
}

// isBound reports whether s is the upper bound of a histogram's bucket.
func isBound(s string) bool {
	if s == "+Inf" {
		return true
	}
	_, err := parseValue(s)
	return err == nil
}

// parseLabels reads labels up to the closing brace and returns what follows.
func parseLabels(s string) ([]Label, string, error) {
	var ls []Label
	for {
		if strings.HasPrefix(s, "}") {
			sort.Slice(ls, func(i, j int) bool { return ls[i].Name < ls[j].Name })
			for i := 1; i < len(ls); i++ {
				if ls[i].Name == ls[i-1].Name {
					return nil, "", errLabel
				}
			}
			return ls, s[1:], nil
		}
		eq := strings.IndexByte(s, '=')
		if eq < 0 || !isName(s[:eq], false) || len(ls) == maxLabels || len(s) < eq+2 || s[eq+1] != '"' {
			return nil, "", errLabel
		}
		v, rest, ok := unquote(s[eq+2:])
		if !ok {
			return nil, "", errLabel
		}
		ls, s = append(ls, Label{s[:eq], v}), rest
		if strings.HasPrefix(s, ",") {
			s = s[1:]
		} else if !strings.HasPrefix(s, "}") {
			return nil, "", errLabel
		}
	}
}

// unquote reads a label's value up to its closing quote.
func unquote(s string) (v, rest string, ok bool) {
	if i := strings.IndexAny(s, `\"`); i >= 0 && s[i] == '"' {
		return s[:i], s[i+1:], true
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch c := s[i]; c {
		case '"':
			return b.String(), s[i+1:], true
		case '\\':
			i++
			if i == len(s) {
				return "", "", false
			}
			switch s[i] {
			case 'n':
				b.WriteByte('\n')
			case '"', '\\':
				b.WriteByte(s[i])
			default:
				return "", "", false
			}
		default:
			b.WriteByte(c)
		}
	}
	return "", "", false
}

// QuoteLabel writes a label's value as the text format does, with its quotes.
func QuoteLabel(v string) string { return `"` + labelEscape.Replace(v) + `"` }

// EscapeHelp writes a help text as the text format does.
func EscapeHelp(s string) string { return helpEscape.Replace(s) }

var helpEscape = strings.NewReplacer(`\`, `\\`, "\n", `\n`)
