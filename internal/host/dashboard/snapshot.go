package dashboard

import (
	"iter"
	"math"
	"slices"
	"sort"
	"strconv"
	"time"

	"github.com/thurward/thurward/internal/host/ingest"
)

// A Snapshot is all metrics of a firewall at one time, with the values of the snapshot
// before. It does not change, so that it can be read without a lock.
type Snapshot struct {
	at   time.Time
	span time.Duration // since the one before; 0 if there is none
	by   map[*ingest.Metric][]point
}

// A point is one series of a snapshot.
type point struct {
	*id
	value, last float64
	two         bool // last is set
}

// of returns the series of a metric. A nil snapshot has none.
func (s *Snapshot) of(name string) []point {
	if s == nil {
		return nil
	}
	return s.by[ingest.NamedMetric(name)]
}

// At returns when the snapshot was received.
func (s *Snapshot) At() time.Time { return s.at }

// Samples yields the series of a metric, in the order in which the firewall first sent
// them. The caller must not change their labels.
func (s *Snapshot) Samples(metric string) iter.Seq[ingest.Sample] {
	return func(yield func(ingest.Sample) bool) {
		for _, p := range s.of(metric) {
			if !yield(ingest.Sample{Name: p.name, Labels: p.labels, Value: p.value, Metric: p.metric}) {
				return
			}
		}
	}
}

// grown returns the increase of a counter since the snapshot before. A counter that
// has decreased was reset to zero.
func (p *point) grown() float64 {
	if !p.two {
		return 0
	}
	if p.value < p.last {
		return p.value
	}
	return p.value - p.last
}

// rate returns the increase of a counter per second.
func (s *Snapshot) rate(p *point) float64 {
	if s.span <= 0 {
		return 0
	}
	return p.grown() / s.span.Seconds()
}

func (s *Snapshot) value(p *point) float64 { return p.value }

// sum returns the sum of a metric's values, or of their rates. It is finite, since
// values are.
func (s *Snapshot) sum(name string, of func(*Snapshot, *point) float64) float64 {
	t := 0.0
	ps := s.of(name)
	for i := range ps {
		t += of(s, &ps[i])
	}
	return t
}

// sumBy is sum by the value of one label, or of two.
func (s *Snapshot) sumBy(name string, of func(*Snapshot, *point) float64, labels ...string) map[[2]string]float64 {
	m := map[[2]string]float64{}
	ps := s.of(name)
	for i := range ps {
		var k [2]string
		for j, l := range labels {
			k[j] = ps[i].label(l)
		}
		m[k] += of(s, &ps[i])
	}
	return m
}

var (
	value = (*Snapshot).value
	rate  = (*Snapshot).rate
)

// quantile estimates a quantile of a histogram, by the observations between
// the last two snapshots, or by all if there were none; 0 without any.
func (s *Snapshot) quantile(name string, q float64) float64 {
	type bucket struct{ le, n, all float64 }
	var b []bucket
	ps := s.of(name)
	for i := range ps {
		p := &ps[i]
		le, err := strconv.ParseFloat(p.label("le"), 64)
		if p.name != name+"_bucket" || err != nil {
			continue
		}
		n := p.value
		if p.two && p.value >= p.last {
			n -= p.last
		}
		b = append(b, bucket{le, n, p.value})
	}
	sort.Slice(b, func(i, j int) bool { return b[i].le < b[j].le })
	if len(b) == 0 {
		return 0
	}
	if b[len(b)-1].n == 0 {
		for i := range b {
			b[i].n = b[i].all
		}
	}
	want := q * b[len(b)-1].n
	if want <= 0 {
		return 0
	}
	low, below := 0.0, 0.0
	for _, x := range b {
		if x.n >= want {
			if math.IsInf(x.le, 1) {
				return low
			}
			return low + (x.le-low)*(want-below)/max(x.n-below, 1e-9)
		}
		low, below = x.le, x.n
	}
	return low
}

// A summary is what a view shows of a snapshot. It is computed once, without the lock.
type summary struct {
	load, acceptRate, dropRate float64
	rules                      []Rule // the most frequent
	all                        []Rule // in the firewall's order, no more than maxRules
	drops                      []Reason
	flows                      Flows
	nat                        []Pool
	dns                        DNS
	interfaces                 []Interface
	queue, dropped             float64
	point                      Point
}

func (s *Snapshot) summary() *summary {
	u := &summary{
		load:       s.sum("thurward_packet_loop_busy_seconds_total", rate) / max(s.sum("thurward_workers", value), 1),
		acceptRate: s.sum("thurward_rule_accepts_total", rate), dropRate: s.sum("thurward_drops_total", rate),
		drops: s.reasons("thurward_drops_total", "drop_reason"),
		flows: Flows{s.sum("thurward_conntrack_entries", value), s.sum("thurward_conntrack_capacity", value),
			s.sum("thurward_conntrack_inserts_total", rate), s.sum("thurward_conntrack_evictions_total", value)},
		nat: s.pools(),
		dns: DNS{
			Outcomes:  s.reasons("thurward_dns_queries_total", "outcome"),
			Rate:      s.sum("thurward_dns_queries_total", rate),
			P50:       s.quantile("thurward_dns_lookup_duration_seconds", 0.5),
			P99:       s.quantile("thurward_dns_lookup_duration_seconds", 0.99),
			Bindings:  s.sum("thurward_fqdn_set_size", value),
			Evictions: s.sum("thurward_fqdn_set_evictions_total", value),
		},
		interfaces: s.interfaces(),
		queue:      s.sum("thurward_vsock_send_queue_depth", value),
		dropped:    s.sum("thurward_vsock_dropped_lines_total", value),
	}
	u.all = s.rules()
	u.rules = frequent(u.all)
	received := s.sumBy("thurward_interface_receive_bytes_total", rate, "interface")
	u.point = Point{
		At: s.at.UTC(), Accepts: u.acceptRate, Drops: u.dropRate,
		LANBits: 8 * received[[2]string{"lan"}], WANBits: 8 * received[[2]string{"wan"}],
		Flows: u.flows.Entries, Queries: u.dns.Rate,
		Ports: s.sum("thurward_nat_port_pool_in_use", value), Queue: u.queue,
	}
	return u
}

// rules returns what rules have decided, in the order in which the firewall first told of
// them.
func (s *Snapshot) rules() []Rule {
	rs := []Rule{}
	at := map[string]int{}
	get := func(p *point) *Rule {
		id := p.label("rule_id")
		i, ok := at[id]
		if !ok {
			if len(rs) == maxRules {
				return &Rule{}
			}
			i = len(rs)
			at[id], rs = i, append(rs, Rule{ID: id})
		}
		return &rs[i]
	}
	ps := s.of("thurward_rule_accepts_total")
	for i := range ps {
		r := get(&ps[i])
		r.Accepts, r.Rate = r.Accepts+ps[i].value, r.Rate+s.rate(&ps[i])
	}
	ps = s.of("thurward_rule_drops_total")
	for i := range ps {
		r := get(&ps[i])
		r.Drops, r.Rate = r.Drops+ps[i].value, r.Rate+s.rate(&ps[i])
	}
	return rs
}

// frequent returns the rules that are shown of many.
func frequent(all []Rule) []Rule {
	rs := slices.Clone(all)
	sort.Slice(rs, func(i, j int) bool {
		a, b := rs[i], rs[j]
		if a.Rate != b.Rate {
			return a.Rate > b.Rate
		}
		if x, y := a.Accepts+a.Drops, b.Accepts+b.Drops; x != y {
			return x > y
		}
		return a.ID < b.ID
	})
	return shown(rs)
}

// shown cuts a list to the length that is shown, in memory of its own.
func shown[T any](l []T) []T {
	if len(l) <= viewRules {
		return l
	}
	return append(make([]T, 0, viewRules), l[:viewRules]...)
}

// reasons lists a counter by one label, without zeros.
func (s *Snapshot) reasons(name, label string) []Reason {
	rs := []Reason{}
	ps := s.of(name)
	for i := range ps {
		if p := &ps[i]; p.value > 0 {
			rs = append(rs, Reason{p.label(label), p.value, s.rate(p)})
		}
	}
	sort.Slice(rs, func(i, j int) bool {
		a, b := rs[i], rs[j]
		if a.Rate != b.Rate {
			return a.Rate > b.Rate
		}
		if a.Total != b.Total {
			return a.Total > b.Total
		}
		return a.Reason < b.Reason
	})
	return shown(rs)
}

func (s *Snapshot) pools() []Pool {
	ps := []Pool{}
	size := s.sumBy("thurward_nat_port_pool_size", value, "external_ip", "proto")
	for k, used := range s.sumBy("thurward_nat_port_pool_in_use", value, "external_ip", "proto") {
		ps = append(ps, Pool{k[0], k[1], used, size[k]})
	}
	sort.Slice(ps, func(i, j int) bool {
		return ps[i].Address < ps[j].Address || ps[i].Address == ps[j].Address && ps[i].Proto < ps[j].Proto
	})
	return shown(ps)
}

func (s *Snapshot) interfaces() []Interface {
	is := []Interface{}
	of := func(name string) map[[2]string]float64 { return s.sumBy(name, rate, "interface") }
	rx, rxBytes := of("thurward_interface_receive_packets_total"), of("thurward_interface_receive_bytes_total")
	tx, txBytes := of("thurward_interface_transmit_packets_total"), of("thurward_interface_transmit_bytes_total")
	for k, n := range rx {
		is = append(is, Interface{k[0], n, 8 * rxBytes[k], tx[k], 8 * txBytes[k]})
	}
	sort.Slice(is, func(i, j int) bool { return is[i].Name < is[j].Name })
	return shown(is)
}
