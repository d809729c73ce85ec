package dashboard

import (
	"time"

	"github.com/thurward/thurward/internal/host/ecs"
	"github.com/thurward/thurward/internal/host/ingest"
)

// A View is what is shown of one firewall. Rates are per second, between the last two
// snapshots of its metrics.
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

// A Rule counts the packets that a rule decided.
type Rule struct {
	ID      string  `json:"id"`
	Accepts float64 `json:"accepts"`
	Drops   float64 `json:"drops"`
	Rate    float64 `json:"rate"`
}

// A Reason counts the packets that were dropped for it, or queries with an outcome.
type Reason struct {
	Reason string  `json:"reason"`
	Total  float64 `json:"total"`
	Rate   float64 `json:"rate"`
}

// Flows is the state of the flow table.
type Flows struct {
	Entries   float64 `json:"entries"`
	Capacity  float64 `json:"capacity"`
	Inserts   float64 `json:"inserts"` // per second
	Evictions float64 `json:"evictions"`
}

// A Pool is the external ports of one address and protocol.
type Pool struct {
	Address string  `json:"address"`
	Proto   string  `json:"proto"`
	InUse   float64 `json:"in_use"`
	Size    float64 `json:"size"` // 0 if unknown
}

// DNS is the state of the DNS proxy.
type DNS struct {
	Outcomes  []Reason `json:"outcomes"`
	Rate      float64  `json:"rate"`
	P50       float64  `json:"p50"` // seconds
	P99       float64  `json:"p99"`
	Bindings  float64  `json:"bindings"` // names with addresses at present
	Evictions float64  `json:"evictions"`
}

// An Interface is the rates of one interface.
type Interface struct {
	Name      string  `json:"name"`
	RxPackets float64 `json:"rx_packets"`
	RxBits    float64 `json:"rx_bits"`
	TxPackets float64 `json:"tx_packets"`
	TxBits    float64 `json:"tx_bits"`
}

// Stream is the state of the telemetry itself.
type Stream struct {
	Queue     float64 `json:"queue"`   // lines that wait in the firewall to be sent
	Dropped   float64 `json:"dropped"` // lines that the firewall dropped since boot
	Lost      int64   `json:"lost"`    // lines and events, as lines-lost reports
	Lines     int64   `json:"lines"`   // received
	Malformed int64   `json:"malformed"`
	Refused   int64   `json:"refused"` // samples that were not kept
}

// A Verdict is one event as text.
type Verdict struct {
	At      time.Time `json:"at"`
	Action  string    `json:"action"`
	Text    string    `json:"text"`
	Explain string    `json:"explain,omitempty"`

	Rule        string `json:"rule,omitempty"`
	Source      string `json:"source,omitempty"`
	Destination string `json:"destination,omitempty"`
	Name        string `json:"name,omitempty"`
	talk        talk
}

// A Point is one point of the plots.
type Point struct {
	At      time.Time `json:"at"`
	Accepts float64   `json:"accepts"` // packets per second
	Drops   float64   `json:"drops"`
	LANBits float64   `json:"lan_bits"` // bits per second received from the LAN
	WANBits float64   `json:"wan_bits"` // and from the WAN
	Flows   float64   `json:"flows"`
	Queries float64   `json:"queries"` // per second
	Ports   float64   `json:"ports"`
	Queue   float64   `json:"queue"`
}

// Lengths of the lists in a view.
const (
	viewRules  = 50
	viewCounts = 10
	viewRecent = 100
)

// view returns what is shown of a firewall.
func (f *firewall) view(now time.Time) View {
	f.tick(now)
	h := f.hello.Fields
	u := f.sum
	if u == nil {
		u = nothing
	}
	v := View{
		Name: f.name, Boot: f.hello.Boot, Version: h.Str(ecs.ServiceVersion), GitSHA: h.Str(ecs.GitSHA),
		Policy: h.Str(ecs.Policy), Clock: h.Str(ecs.Clock), LAN: h.Str(ecs.LANAddress), WAN: h.Str(ecs.WANAddress),
		Booted: f.hello.Booted, Connected: f.connected > 0, LastLine: f.lastLine,
		Load: u.load, AcceptRate: u.acceptRate, DropRate: u.dropRate,
		Rules: u.rules, Drops: u.drops, Flows: u.flows, NAT: u.nat, DNS: u.dns, Interfaces: u.interfaces,
		Stream: Stream{
			Queue: u.queue, Dropped: u.dropped, Lost: f.lost,
			Malformed: f.lines[ingest.Malformed], Refused: f.metrics.refused,
		},
		Names: f.names.top(viewCounts), Sources: f.sources.top(viewCounts),
		History: f.history,
	}
	if f.snap != nil {
		v.Snapshot = f.snap.at
	}
	if v.History == nil {
		v.History = []Point{}
	}
	for _, n := range f.lines {
		v.Stream.Lines += n
	}
	n := int64(0)
	for _, e := range f.events {
		n = add(n, e)
	}
	v.EventRate = float64(n) / window
	v.Recent = f.newest()
	v.Recent = v.Recent[:min(len(v.Recent), viewRecent)]
	return v
}

// nothing is the summary before the first snapshot.
var nothing = (&Snapshot{}).summary()

// Fill returns used divided by size, from 0 to 1; 0 if the size is not known.
func Fill(used, size float64) float64 {
	if !(size > 0) || !(used > 0) {
		return 0
	}
	if used >= size { // before the division: both may be infinite
		return 1
	}
	return used / size
}
