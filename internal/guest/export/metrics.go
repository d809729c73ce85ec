package export

import (
	"strconv"
)

// A MetricType is a metric's type in the Prometheus text format. Zero is
// invalid.
type MetricType uint8

// The types.
const (
	_ MetricType = iota
	Counter
	Gauge
	// Histogram has integer observations. Its values are the counts of the buckets, not
	// cumulative, one for each bound and one for what is above the last, and then the sum
	// of all observations.
	Histogram
)

func (t MetricType) String() string {
	switch t {
	case Counter:
		return "counter"
	case Gauge:
		return "gauge"
	case Histogram:
		return "histogram"
	}
	return "untyped"
}

// A Family is a metric with all its series. Each part of the firewall makes the families of
// its counters once, at start.
type Family struct {
	Name, Help string
	Type       MetricType
	N          int // number of values; 0: 1
	// Labels appends the labels of value i as between the braces of the text format, made
	// by Label; nil: none. It is called beside the packet path and must not read variable
	// data.
	Labels func(dst []byte, i int) []byte
	// Fill stores the N current values; of several workers those that the worker has. It is
	// called by the goroutine that owns the counters and must be fast.
	Fill func(v []uint64)
	// Bounds are a histogram's upper bounds in units of Scale, in order.
	Bounds []uint64
	// Scale divides values as they are written: 1e9 makes seconds of
	// nanoseconds. 0 is 1.
	Scale uint64
	// Most says that of several workers' values the largest is theirs, not the sum.
	Most bool

	v     []uint64
	parts []*Family // the same of other workers
}

// One makes a metric of one value.
func One(typ MetricType, name, help string, value *uint64) Family {
	return Family{Name: name, Help: help, Type: typ, Fill: func(v []uint64) { v[0] = *value }}
}

// Const makes a metric that is always 1 and has labels (an info metric).
func Const(name, help, labels string) Family {
	return Family{Name: name, Help: help, Type: Gauge,
		Labels: func(dst []byte, _ int) []byte { return append(dst, labels...) },
		Fill:   func(v []uint64) { v[0] = 1 }}
}

// Label appends name="value", with a comma in front of it unless it is the
// first.
func Label(dst []byte, first bool, name, value string) []byte {
	if !first {
		dst = append(dst, ',')
	}
	dst = append(dst, name...)
	dst = append(dst, '=', '"')
	for i := range len(value) {
		switch c := value[i]; c {
		case '\\', '"':
			dst = append(dst, '\\', c)
		case '\n':
			dst = append(dst, '\\', 'n')
		default:
			dst = append(dst, c)
		}
	}
	return append(dst, '"')
}

// LabelOf returns a Labels function for values that have one label, whose
// value for number i is value(i).
func LabelOf(name string, value func(i int) string) func([]byte, int) []byte {
	return func(dst []byte, i int) []byte { return Label(dst, true, name, value(i)) }
}

// Metrics is a set of families and one snapshot of their values.
type Metrics struct {
	families []Family
	bytes    int
}

// Add adds families.
func (m *Metrics) Add(fs ...Family) {
	for _, f := range fs {
		if f.Type == Histogram {
			f.N = len(f.Bounds) + 2
		}
		f.N = max(f.N, 1)
		f.Scale = max(f.Scale, 1)
		f.v = make([]uint64, f.N)
		m.bytes += 8 * f.N
		m.families = append(m.families, f)
	}
}

// AddSums adds families of one worker, of which others have the same, in others: a value is the
// sum of theirs, as far as each has it. The others are complete, and have been filled when Fill
// is called.
func (m *Metrics) AddSums(others []*Metrics, fs ...Family) {
	n := len(m.families)
	m.Add(fs...)
	for i := range m.families[n:] {
		f := &m.families[n+i]
		for _, o := range others {
			for j := range o.families {
				if p := &o.families[j]; p.Name == f.Name && p.N == f.N {
					f.parts = append(f.parts, p)
				}
			}
		}
	}
}

// Bytes returns the memory of the values in bytes.
func (m *Metrics) Bytes() int { return m.bytes }

// Fill takes a snapshot. The packet loop calls it between two batches, so that all values
// are consistent.
func (m *Metrics) Fill() {
	for i := range m.families {
		f := &m.families[i]
		if len(f.parts) > 0 {
			clear(f.v) // the last sums are in those that Fill leaves to the others
		}
		f.Fill(f.v)
		for _, p := range f.parts {
			for j, v := range p.v[:len(f.v)] {
				if f.Most {
					f.v[j] = max(f.v[j], v)
				} else {
					f.v[j] += v
				}
			}
		}
	}
}

// metricPrefix begins the lines of metrics.
const metricPrefix = "# METRIC "

// A metricCursor writes a set of metrics line by line, so that no memory for the whole text
// is needed.
type metricCursor struct {
	m      *Metrics
	family int
	line   int // of the family: 0 HELP, 1 TYPE, then the values
	sum    uint64
}

// next appends the next line without a newline, and reports whether there was
// one.
func (c *metricCursor) next(dst []byte) ([]byte, bool) {
	if c.m == nil || c.family >= len(c.m.families) {
		return dst, false
	}
	f := &c.m.families[c.family]
	b := append(dst, metricPrefix...)
	switch c.line {
	case 0:
		b = append(b, "# HELP "...)
		b = append(b, f.Name...)
		b = append(b, ' ')
		b = append(b, f.Help...)
	case 1:
		b = append(b, "# TYPE "...)
		b = append(b, f.Name...)
		b = append(b, ' ')
		b = append(b, f.Type.String()...)
		c.sum = 0
	default:
		b = c.value(b, f, c.line-2)
	}
	lines := 2 + f.N
	if f.Type == Histogram {
		lines++ // _count
	}
	if c.line++; c.line == lines {
		c.family, c.line = c.family+1, 0
	}
	return b, true
}

// value appends value i of a family.
func (c *metricCursor) value(b []byte, f *Family, i int) []byte {
	b = append(b, f.Name...)
	if f.Type == Histogram {
		return c.bucket(b, f, i)
	}
	if f.Labels != nil {
		b = append(b, '{')
		b = f.Labels(b, i)
		b = append(b, '}')
	}
	return appendScaled(append(b, ' '), f.v[i], f.Scale)
}

// bucket appends line i of a histogram: the cumulative buckets, then _sum and _count.
func (c *metricCursor) bucket(b []byte, f *Family, i int) []byte {
	n := len(f.Bounds)
	switch {
	case i <= n:
		c.sum += f.v[i]
		b = append(b, `_bucket{le="`...)
		if i < n {
			b = appendScaled(b, f.Bounds[i], f.Scale)
		} else {
			b = append(b, "+Inf"...)
		}
		b = append(b, `"} `...)
		return strconv.AppendUint(b, c.sum, 10)
	case i == n+1:
		return appendScaled(append(b, "_sum "...), f.v[n+1], f.Scale)
	}
	return strconv.AppendUint(append(b, "_count "...), c.sum, 10)
}

func appendScaled(b []byte, v, scale uint64) []byte {
	if scale == 1 {
		return strconv.AppendUint(b, v, 10)
	}
	return strconv.AppendFloat(b, float64(v)/float64(scale), 'g', -1, 64)
}
