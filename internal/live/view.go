package live

import (
	"math"
	"sort"
	"time"
)

// A View is the picture of one firewall. Rates are per second, between the
// last two snapshots of its metrics.
type View struct {
	Name      string    `json:"name"`
	Boot      string    `json:"boot"`
	Version   string    `json:"version"`
	GitSHA    string    `json:"git_sha"`
	Policy    string    `json:"policy"`
	Clock     string    `json:"clock"`
	LAN       string    `json:"lan"`
	WAN       string    `json:"wan"`
	Booted    time.Time `json:"booted"`
	Connected bool      `json:"connected"`
	LastLine  time.Time `json:"last_line"`
	Snapshot  time.Time `json:"snapshot"` // of the metrics; zero before the first

	EventRate  float64     `json:"event_rate"` // over the last ten seconds
	Load       float64     `json:"load"`       // share of its processor that is used, 0 to 1
	AcceptRate float64     `json:"accept_rate"`
	DropRate   float64     `json:"drop_rate"`
	Rules      []Rule      `json:"rules"` // by rate, then by number
	Drops      []Reason    `json:"drops"` // by rate, then by number
	Flows      Flows       `json:"flows"`
	NAT        []Pool      `json:"nat"`
	DNS        DNS         `json:"dns"`
	Interfaces []Interface `json:"interfaces"`
	Stream     Stream      `json:"stream"`
	Names      []Count     `json:"denied_names"`
	Sources    []Count     `json:"denied_sources"`
	Recent     []Verdict   `json:"recent"` // the newest first
	History    []Point     `json:"history"`
}

// A Rule is how often a rule decided.
type Rule struct {
	ID      string  `json:"id"`
	Accepts float64 `json:"accepts"`
	Drops   float64 `json:"drops"`
	Rate    float64 `json:"rate"`
}

// A Reason is how often packets were dropped for it.
type Reason struct {
	Reason string  `json:"reason"`
	Total  float64 `json:"total"`
	Rate   float64 `json:"rate"`
}

// Flows is the flow table.
type Flows struct {
	Entries   float64 `json:"entries"`
	Capacity  float64 `json:"capacity"`
	Inserts   float64 `json:"inserts"` // a second
	Evictions float64 `json:"evictions"`
}

// A Pool is one address and protocol whose ports translate flows.
type Pool struct {
	Address string  `json:"address"`
	Proto   string  `json:"proto"`
	InUse   float64 `json:"in_use"`
	Size    float64 `json:"size"` // 0 when not told
}

// DNS is the proxy.
type DNS struct {
	Outcomes  []Reason `json:"outcomes"`
	Rate      float64  `json:"rate"`
	P50       float64  `json:"p50"` // seconds
	P99       float64  `json:"p99"`
	Bindings  float64  `json:"bindings"` // names learned at the moment
	Evictions float64  `json:"evictions"`
}

// An Interface is what passes one side, by second.
type Interface struct {
	Name      string  `json:"name"`
	RxPackets float64 `json:"rx_packets"`
	RxBits    float64 `json:"rx_bits"`
	TxPackets float64 `json:"tx_packets"`
	TxBits    float64 `json:"tx_bits"`
}

// Stream is the health of the telemetry itself.
type Stream struct {
	Queue     float64 `json:"queue"`   // what waits in the firewall to be sent
	Dropped   float64 `json:"dropped"` // lines that the firewall dropped since boot
	Lost      int64   `json:"lost"`    // lines and events of which lines-lost told
	Lines     int64   `json:"lines"`   // read here
	Malformed int64   `json:"malformed"`
	Refused   int64   `json:"refused"` // samples beyond the limit of series
}

// A Verdict is one event as text.
type Verdict struct {
	At      time.Time `json:"at"`
	Action  string    `json:"action"`
	Text    string    `json:"text"`
	Explain string    `json:"explain,omitempty"`
}

// A Point is one point of the plots.
type Point struct {
	At      time.Time `json:"at"`
	Accepts float64   `json:"accepts"` // packets a second
	Drops   float64   `json:"drops"`
	LANBits float64   `json:"lan_bits"` // bits a second that came in from the LAN
	WANBits float64   `json:"wan_bits"` // and from the WAN
	Flows   float64   `json:"flows"`
	Queries float64   `json:"queries"` // a second
	Ports   float64   `json:"ports"`
	Queue   float64   `json:"queue"`
}

// What a view shows of long lists.
const (
	viewRules  = 50
	viewCounts = 10
)

// view makes the picture.
func (f *firewall) view(now time.Time) View {
	f.tick(now)
	h := f.hello.Fields
	v := View{
		Name: f.hello.Name(), Boot: f.hello.Boot, Version: h.Str("service.version"), GitSHA: h.Str("firewall.git_sha"), Policy: h.Str("firewall.policy"),
		Clock: h.Str("firewall.clock"), LAN: h.Str("firewall.lan.address"), WAN: h.Str("firewall.wan.address"), Booted: f.hello.Booted,
		Connected: f.connected > 0, LastLine: f.lastLine, Snapshot: f.snapshot,
		Load:       f.sum("thurward_packet_loop_busy_seconds_total", rate),
		AcceptRate: f.sum("thurward_rule_accepts_total", rate), DropRate: f.sum("thurward_drops_total", rate),
		Rules: f.rules(), Drops: f.reasons("thurward_drops_total", "drop_reason"),
		Flows: Flows{f.sum("thurward_conntrack_entries", value), f.sum("thurward_conntrack_capacity", value),
			f.sum("thurward_conntrack_inserts_total", rate), f.sum("thurward_conntrack_evictions_total", value)},
		DNS: DNS{Outcomes: f.reasons("thurward_dns_queries_total", "outcome"), Rate: f.sum("thurward_dns_queries_total", rate),
			P50: f.quantile("thurward_dns_lookup_duration_seconds", 0.5), P99: f.quantile("thurward_dns_lookup_duration_seconds", 0.99),
			Bindings: f.sum("thurward_fqdn_set_size", value), Evictions: f.sum("thurward_fqdn_set_evictions_total", value)},
		Stream: Stream{Queue: f.sum("thurward_vsock_send_queue_depth", value), Dropped: f.sum("thurward_vsock_dropped_lines_total", value),
			Lost: f.lost, Malformed: f.lines["malformed"], Refused: f.refused},
		Names: f.names.top(viewCounts), Sources: f.sources.top(viewCounts),
		History: append([]Point{}, f.history...),
	}
	for _, n := range f.lines {
		v.Stream.Lines += n
	}
	n := int64(0)
	for _, e := range f.events {
		n += e
	}
	v.EventRate = float64(n) / window
	v.NAT, v.Interfaces = f.pools(), f.interfaces()
	v.Recent = make([]Verdict, 0, len(f.recent))
	for i := range f.recent {
		v.Recent = append(v.Recent, f.recent[(f.next+len(f.recent)-1-i)%len(f.recent)])
	}
	return v
}

func (f *firewall) rules() []Rule {
	m := map[string]*Rule{}
	get := func(id string) *Rule {
		if m[id] == nil {
			m[id] = &Rule{ID: id}
		}
		return m[id]
	}
	for _, s := range f.byName["thurward_rule_accepts_total"] {
		r := get(s.Label("rule_id"))
		r.Accepts, r.Rate = r.Accepts+s.Value, r.Rate+s.rate()
	}
	for _, s := range f.byName["thurward_rule_drops_total"] {
		r := get(s.Label("rule_id"))
		r.Drops, r.Rate = r.Drops+s.Value, r.Rate+s.rate()
	}
	rs := make([]Rule, 0, len(m))
	for _, r := range m {
		rs = append(rs, *r)
	}
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
	return rs[:min(len(rs), viewRules)]
}

// reasons lists a counter by one label; those that never counted are left out.
func (f *firewall) reasons(name, label string) []Reason {
	rs := []Reason{}
	for _, s := range f.byName[name] {
		if s.Value > 0 {
			rs = append(rs, Reason{s.Label(label), s.Value, s.rate()})
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
	return rs[:min(len(rs), viewRules)]
}

func (f *firewall) pools() []Pool {
	ps := []Pool{}
	for _, s := range f.byName["thurward_nat_port_pool_in_use"] {
		a, p := s.Label("external_ip"), s.Label("proto")
		ps = append(ps, Pool{a, p, s.Value, f.sum("thurward_nat_port_pool_size", value, "external_ip", a, "proto", p)})
	}
	sort.Slice(ps, func(i, j int) bool {
		return ps[i].Address < ps[j].Address || ps[i].Address == ps[j].Address && ps[i].Proto < ps[j].Proto
	})
	return ps[:min(len(ps), viewRules)]
}

func (f *firewall) interfaces() []Interface {
	is := []Interface{}
	for _, s := range f.byName["thurward_interface_receive_packets_total"] {
		n := s.Label("interface")
		is = append(is, Interface{n, s.rate(), 8 * f.sum("thurward_interface_receive_bytes_total", rate, "interface", n),
			f.sum("thurward_interface_transmit_packets_total", rate, "interface", n), 8 * f.sum("thurward_interface_transmit_bytes_total", rate, "interface", n)})
	}
	sort.Slice(is, func(i, j int) bool { return is[i].Name < is[j].Name })
	return is[:min(len(is), viewRules)]
}

// Fill returns how full something is, from 0 to 1; 0 when its size is not
// known.
func Fill(used, size float64) float64 {
	if size <= 0 || math.IsNaN(used) {
		return 0
	}
	return min(max(used/size, 0), 1)
}
