package hostile

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/thurward/thurward/internal/host/dashboard"
	"github.com/thurward/thurward/internal/host/ingest"
	"github.com/thurward/thurward/internal/host/ingest/guesttest"
)

// A desk is a reader with a page, and a firewall that is honest and stays.
type desk struct {
	t     *testing.T
	path  string
	st    *dashboard.Receiver
	url   string // of the page, without its token
	token string
	good  *guesttest.Guest
	send  func(...string)
	said  chan string
}

const goodName = "203.0.113.10"

var machines atomic.Int64

func newDesk(t *testing.T) *desk {
	t.Helper()
	d := &desk{t: t, path: filepath.Join(t.TempDir(), "vsock"), said: make(chan string, 1000)}
	d.st = &dashboard.Receiver{Guest: "unix:" + ingest.GuestSocket(d.path), Tail: "unix:" + ingest.TailSocket(d.path), Page: "127.0.0.1:0", Token: dashboard.TokenPath(d.path),
		Say: func(what string, a ...any) {
			select {
			case d.said <- fmt.Sprintf(what, a...):
			default:
			}
		}}
	if err := d.st.Open(); err != nil {
		t.Fatal(err)
	}
	var ok bool
	if d.url, d.token, ok = strings.Cut(d.st.PageURL(), "/#token="); !ok {
		t.Fatal(d.st.PageURL())
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- d.st.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the reader ended with %v", err)
		}
	})
	d.good = &guesttest.Guest{Boot: "00112233445566778899aabbccddeeff", WAN: goodName + "/24", Start: time.Now().Add(-time.Hour)}
	d.send, _ = guesttest.Dial(t, ingest.GuestSocket(d.path))
	d.send(d.good.Hello(time.Now()))
	d.send(d.good.Snapshot()...)
	d.await("the honest firewall", func() bool { v := d.view(goodName); return v != nil && !v.Snapshot.IsZero() })
	return d
}

func (d *desk) await(what string, ok func() bool) {
	d.t.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			d.t.Fatalf("%s: not within 30 seconds", what)
		}
	}
}

func (d *desk) view(name string) *dashboard.View {
	for _, v := range d.st.Model.Views(time.Now()) {
		if v.Name == name {
			return &v
		}
	}
	return nil
}

// get fetches a path of the page.
func (d *desk) get(path, token string) (int, string) {
	d.t.Helper()
	r, err := http.NewRequest(http.MethodGet, d.url+path, nil)
	if err != nil {
		d.t.Fatal(err)
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	c := &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	a, err := c.Do(r)
	if err != nil {
		d.t.Fatal(err)
	}
	defer a.Body.Close()
	b, err := io.ReadAll(a.Body)
	if err != nil {
		d.t.Fatal(err)
	}
	return a.StatusCode, string(b)
}

// say sends lines as another machine until they are taken or it is cut off.
func (d *desk) say(machine string, lines ...string) net.Conn {
	d.t.Helper()
	c, err := guesttest.Conn(ingest.GuestSocket(d.path), machine)
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(20 * time.Second)) //nolint:errcheck // a test
	for _, l := range lines {
		if _, err := io.WriteString(c, l+"\n"); err != nil {
			break
		}
	}
	return c
}

func newMachine() string { return fmt.Sprintf("m%d", machines.Add(1)) }

const hello = `# HELLO {"service.instance.id":"bb","firewall.wan.address":"198.51.100.1/24"}`

// line is what a line of the text format may be, with our labels.
var line = regexp.MustCompile(`^(# (HELP|TYPE) thurward_[a-z0-9_]+ .*|thurward_[a-z0-9_]+\{[a-z_]+="(\\.|[^"\\])*"(,[a-z_]+="(\\.|[^"\\])*")*\} [0-9.e+]+)$`)

// unharmed checks that the honest firewall is there with all that it told, that
// what it tells now arrives, and that views, page, exposition and top work.
func (d *desk) unharmed() {
	d.t.Helper()
	before := d.view(goodName)
	if before == nil || !before.Connected || before.Boot != d.good.Boot {
		d.t.Fatalf("the honest firewall's picture: %+v", before)
	}
	d.send(d.good.Snapshot()...)
	d.send(d.good.Event(time.Now()))
	d.await("the honest firewall's next snapshot", func() bool { v := d.view(goodName); return v != nil && v.Snapshot.After(before.Snapshot) })
	began := time.Now()
	code, body := d.get("/api/v1/firewalls", d.token)
	var vs []dashboard.View
	if err := json.Unmarshal([]byte(body), &vs); code != 200 || err != nil {
		d.t.Errorf("the page: %d, %v", code, err)
	}
	good := false
	for i := range vs {
		if vs[i].Name == goodName {
			good = len(vs[i].Rules) == len(guesttest.Rules) && vs[i].Flows.Entries > 0 && vs[i].Stream.Malformed == 0
		}
		dashboard.Screen{Now: time.Now()}.Draw(&vs[i])
	}
	if !good {
		d.t.Errorf("the honest firewall on the page: %.500s", body)
	}
	code, body = d.get("/metrics", d.token)
	if code != 200 || !strings.Contains(body, `thurward_conntrack_capacity{instance="203.0.113.10"} 65536`+"\n") || strings.Count(body, `thurward_rule_accepts_total{rule_id="allow-web",instance="203.0.113.10"}`) != 1 {
		d.t.Errorf("the metrics: %d", code)
	}
	for _, l := range strings.Split(strings.TrimSuffix(body, "\n"), "\n") {
		if !line.MatchString(l) {
			d.t.Errorf("exposed: %q", l)
			break
		}
	}
	if took := time.Since(began); took > 10*time.Second {
		d.t.Errorf("page and metrics took %v", took)
	}
}

// lines makes an attack of lines after a HELLO, and its twin of honest ones, for
// which check holds afterwards.
func lines(name string, evil, honest late, check func(*dashboard.View) bool) attack {
	return attack{"stream/" + name,
		func(t *testing.T) {
			d := newDesk(t)
			d.say(newMachine(), append([]string{hello}, evil()...)...)
			d.await("the guest", func() bool { v := d.view("198.51.100.1"); return v != nil && v.Stream.Lines > 0 || len(d.said) > 0 })
			d.unharmed()
		},
		func(t *testing.T) {
			d := newDesk(t)
			d.say(newMachine(), append([]string{hello}, honest()...)...)
			d.await("what the honest one says", func() bool { v := d.view("198.51.100.1"); return v != nil && check(v) })
			d.unharmed()
		}}
}

// snapshot makes a snapshot of samples.
func snapshot(samples ...string) []string {
	out := []string{"# METRIC # SNAPSHOT 2026-11-24T12:00:00Z"}
	for _, s := range samples {
		out = append(out, "# METRIC "+s)
	}
	return append(out, "# METRIC # EOF")
}

func many(n int, format string) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprintf(format, i)
	}
	return out
}

// late makes lines when they are sent: all attacks' together are a gigabyte.
type late = func() []string

// testMemory is what this process itself may take, about: what the kernel says
// of the memory of a command has that of the process that started it in it
// (getrusage(2), ru_maxrss, is kept by execve).
const testMemory = 100 << 20

func init() {
	debug.SetMemoryLimit(testMemory)
	entries := func(n float64) func(*dashboard.View) bool {
		return func(v *dashboard.View) bool { return v.Flows.Entries == n && v.Stream.Malformed == 0 }
	}
	flows := func(v string) []string {
		return snapshot("thurward_conntrack_entries "+v, "thurward_conntrack_capacity "+v)
	}
	rules := func(n int) func(*dashboard.View) bool {
		return func(v *dashboard.View) bool { return len(v.Rules) == n && v.Stream.Malformed == 0 }
	}
	rule := `thurward_rule_accepts_total{rule_id="a"} 1`
	add(
		// Numbers that cannot be.
		lines("nan", func() []string { return flows("NaN") }, func() []string { return flows("7") }, entries(7)),
		lines("infinity", func() []string { return flows("+Inf") }, func() []string { return flows("18446744073709551615") }, entries(1<<64)),
		lines("minus-infinity", func() []string { return flows("-Inf") }, func() []string { return flows("0") }, func(v *dashboard.View) bool { return !v.Snapshot.IsZero() }),
		lines("sum-overflows", func() []string { return snapshot(many(100, `thurward_rule_accepts_total{rule_id="%d"} 1.7e308`)...) }, func() []string { return snapshot(many(9, `thurward_rule_accepts_total{rule_id="%d"} 1e18`)...) }, rules(9)),
		lines("too-large-to-parse", func() []string { return flows("1e999") }, func() []string { return flows("1e9") }, entries(1e9)),
		lines("negative", func() []string { return flows("-1") }, func() []string { return flows("1") }, entries(1)),
		lines("bucket-nan", func() []string {
			return snapshot(`thurward_dns_lookup_duration_seconds_bucket{le="NaN"} 1`, "thurward_dns_lookup_duration_seconds_count 1")
		}, func() []string {
			return snapshot(`thurward_dns_lookup_duration_seconds_bucket{le="0.5"} 1`, `thurward_dns_lookup_duration_seconds_bucket{le="+Inf"} 1`, "thurward_dns_lookup_duration_seconds_count 1")
		}, func(v *dashboard.View) bool { return v.DNS.P50 > 0 }),
		lines("count-overflows", func() []string {
			return many(10, `{"event.action":"drop","source.ip":"10.0.0.%d","firewall.count":9223372036854775807}`)
		}, func() []string {
			return many(10, `{"event.action":"drop","source.ip":"10.0.0.%d","firewall.count":10}`)
		}, func(v *dashboard.View) bool { return len(v.Sources) == 10 && v.Sources[0].Count == 10 }),
		lines("lost-overflows", func() []string {
			return many(10, `{"event.action":"lines-lost","firewall.lost_lines":9223372036854775807,"firewall.lost_records":%d}`)
		}, func() []string {
			return many(1, `{"event.action":"lines-lost","firewall.lost_lines":%d,"firewall.lost_records":4}`)
		}, func(v *dashboard.View) bool { return v.Stream.Lost == 4 }),
		// Times that cannot be.
		lines("year-before-zero", func() []string {
			return many(3, `{"@timestamp":"-000%d-01-01T00:00:00Z","event.action":"drop","source.ip":"10.0.0.1"}`)
		}, func() []string {
			return many(3, `{"@timestamp":"2026-11-24T12:00:0%dZ","event.action":"drop","source.ip":"10.0.0.1"}`)
		}, func(v *dashboard.View) bool { return len(v.Recent) == 3 }),
		lines("year-after-9999", func() []string {
			return []string{`{"@timestamp":"9999-12-31T23:59:59.999999999Z","event.action":"drop","firewall.clock":"none"}`}
		}, func() []string {
			return []string{`{"@timestamp":"1970-01-01T00:00:01Z","event.action":"drop","firewall.clock":"none"}`}
		}, func(v *dashboard.View) bool { return len(v.Recent) == 1 }),
		// Names that are not the firewall's.
		lines("label-name", func() []string { return snapshot(`thurward_rule_accepts_total{__name__="thurward_up"} 1`) }, func() []string { return snapshot(rule) }, rules(1)),
		lines("label-instance", func() []string {
			return snapshot(`thurward_rule_accepts_total{instance="203.0.113.10",rule_id="allow-web"} 1`, `thurward_conntrack_capacity{instance="203.0.113.10"} 1`)
		}, func() []string { return snapshot(rule) }, rules(1)),
		lines("label-job", func() []string { return snapshot(`thurward_rule_accepts_total{job="node",rule_id="a"} 1`) }, func() []string { return snapshot(rule) }, rules(1)),
		lines("label-breaks-line", func() []string {
			return snapshot(`thurward_rule_accepts_total{rule_id="a\"} 1\nthurward_up{instance=\"203.0.113.10\"} 0\n#"} 1`)
		}, func() []string { return snapshot(`thurward_rule_accepts_total{rule_id="a \"b\""} 1`) }, rules(1)),
		lines("readers-own-metrics", func() []string { return snapshot("thurward_up 0", `thurward_up{instance="203.0.113.10"} 0`) }, func() []string { return snapshot(rule) }, rules(1)),
		lines("foreign-metrics", func() []string { return snapshot("node_load1 99", "up 0", `ALERTS{alertname="x"} 1`) }, func() []string { return snapshot(rule) }, rules(1)),
		lines("other-type", func() []string {
			return []string{"# METRIC # TYPE thurward_conntrack_entries counter", "# METRIC # TYPE thurward_conntrack_entries summary", "# METRIC # HELP thurward_conntrack_entries x\\n# TYPE y z"}
		}, func() []string { return []string{"# METRIC # TYPE thurward_conntrack_entries gauge"} }, func(v *dashboard.View) bool { return v.Stream.Lines == 2 && v.Stream.Malformed == 0 }),
		lines("series-twice", func() []string { return snapshot(rule, rule, rule) }, func() []string { return snapshot(rule) }, rules(1)),
		// Work and memory.
		lines("64-names-of-series", func() []string { return snapshot(many(15000, `thurward_rule_accepts_total{rule_id="%0100d"} 1`)...) }, func() []string { return snapshot(many(40, `thurward_rule_accepts_total{rule_id="%d"} 1`)...) }, rules(40)),
		lines("invented-names", func() []string { return snapshot(many(15000, `thurward_invented_%d_total 1`)...) }, func() []string { return snapshot(rule) }, rules(1)),
		lines("quadratic-pools", func() []string {
			return snapshot(append(many(25000, `thurward_nat_port_pool_in_use{external_ip="%d",proto="tcp"} 1`), many(25000, `thurward_nat_port_pool_size{external_ip="%d",proto="tcp"} 2`)...)...)
		}, func() []string {
			return snapshot(`thurward_nat_port_pool_in_use{external_ip="198.51.100.1",proto="tcp"} 1`, `thurward_nat_port_pool_size{external_ip="198.51.100.1",proto="tcp"} 2`)
		}, func(v *dashboard.View) bool { return len(v.NAT) == 1 && v.NAT[0].Size == 2 }),
		lines("snapshot-without-end", func() []string { return many(30000, `# METRIC thurward_rule_accepts_total{rule_id="%d"} 1`) }, func() []string { return snapshot(rule) }, rules(1)),
		lines("only-ends", func() []string {
			return strings.Split(strings.Repeat("# METRIC # SNAPSHOT x\n# METRIC # EOF\n", 5000), "\n")
		}, func() []string { return snapshot(rule) }, rules(1)),
		lines("long-label", func() []string {
			return snapshot(`thurward_rule_accepts_total{rule_id="` + strings.Repeat("x", 16000) + `"} 1`)
		}, func() []string {
			return snapshot(`thurward_rule_accepts_total{rule_id="` + strings.Repeat("x", 63) + `"} 1`)
		}, rules(1)),
		lines("long-field-names", func() []string { return many(20, `{"`+strings.Repeat("k", 8000)+`":{"%d":1}}`) }, func() []string { return []string{`{"event.action":"drop","source.ip":"10.0.0.1","a":{"b":{"c":1}}}`} }, func(v *dashboard.View) bool { return len(v.Recent) == 1 }),
		lines("long-verdicts", func() []string {
			return many(200, `{"event.action":"drop","event.reason":"rule","network.direction":"egress","source.ip":"10.0.0.%d","destination.ip":"1.1.1.1","destination.domain":"`+strings.Repeat("a", 15000)+`"}`)
		}, func() []string {
			return []string{`{"event.action":"drop","source.ip":"10.0.0.1","destination.domain":"a.example"}`}
		}, func(v *dashboard.View) bool { return len(v.Names) == 1 }),
		lines("ever-new-names", func() []string { return many(5000, `{"event.action":"drop","destination.domain":"n%d.example"}`) }, func() []string { return many(20, `{"event.action":"drop","destination.domain":"n%d.example"}`) }, func(v *dashboard.View) bool { return len(v.Names) == 10 }),
		// Another firewall's identity.
		identity("takes-over-address", `# HELLO {"service.instance.id":"bb","firewall.wan.address":"203.0.113.10/24"}`),
		identity("takes-over-boot", `# HELLO {"service.instance.id":"00112233445566778899aabbccddeeff","firewall.wan.address":"203.0.113.10/24"}`),
		identity("long-hello", `# HELLO {"service.instance.id":"bb","firewall.wan.address":"203.0.113.10/24"}`+strings.Repeat(" ", ingest.MaxLine)),
		identity("address-in-boot", `# HELLO {"service.instance.id":"203.0.113.10"}`),
		identity("names-the-other-as-sender", hello, "# FROM "+goodName, `{"event.action":"drop","source.ip":"192.0.2.66"}`),
		attack{"stream/all-connections", func(t *testing.T) {
			d := newDesk(t)
			m := newMachine()
			for range 3 * ingest.MaxConns {
				d.say(m)
			}
			for i := range 20 { // others have room
				d.say(newMachine(), fmt.Sprintf(`# HELLO {"service.instance.id":"b%d","firewall.wan.address":"198.51.100.%d/24"}`, i, i))
			}
			d.await("twenty others", func() bool { return len(d.st.Model.Views(time.Now())) == 21 })
			d.unharmed()
		}, func(t *testing.T) {
			d := newDesk(t)
			m := newMachine()
			for range 5 { // a firewall that connects again
				d.say(m, hello).Close()
			}
			d.say(m, append([]string{hello}, flows("9")...)...)
			d.await("the last connection", func() bool { v := d.view("198.51.100.1"); return v != nil && v.Flows.Entries == 9 })
			d.unharmed()
		}},
		attack{"stream/ever-other-names", func(t *testing.T) {
			d := newDesk(t)
			m := newMachine()
			for i := range 100 {
				d.say(m, fmt.Sprintf(`# HELLO {"service.instance.id":"b%d","firewall.wan.address":"198.51.100.%d/24"}`, i, i)).Close()
			}
			if n := len(d.st.Model.Views(time.Now())); n > 2 {
				t.Errorf("%d firewalls", n)
			}
			d.unharmed()
		}, func(t *testing.T) {
			d := newDesk(t)
			for i := range 10 {
				d.say(newMachine(), fmt.Sprintf(`# HELLO {"service.instance.id":"b%d","firewall.wan.address":"198.51.100.%d/24"}`, i, i))
			}
			d.await("ten others", func() bool { return len(d.st.Model.Views(time.Now())) == 11 })
			d.unharmed()
		}},
		cutOff("no-hello", ingest.ErrNoHello, `{"event.action":"drop"}`),
		cutOff("two-hellos", ingest.ErrTwice, hello, hello),
		cutOff("no-line-at-all", ingest.ErrMalformed, append([]string{hello}, many(2000, "no line %d")...)...),
		attack{"stream/takes-all-memory", worst, func(t *testing.T) { // a policy of ten thousand rules
			d := newDesk(t)
			ids := many(10000, "rule-%d")
			var all []string
			for _, id := range ids {
				for _, n := range []string{"accepts", "drops", "shadows"} {
					all = append(all, fmt.Sprintf(`thurward_rule_%s_total{rule_id=%q} 1`, n, id))
				}
			}
			d.say(newMachine(), append([]string{hello}, snapshot(all...)...)...)
			d.await("all of it", func() bool {
				v := d.view("198.51.100.1")
				return v != nil && !v.Snapshot.IsZero() && v.Stream.Refused == 0
			})
			d.unharmed()
			if _, body := d.get("/metrics", d.token); strings.Count(body, `instance="198.51.100.1"`) < 30000 {
				t.Error("some of its metrics are missing")
			}
		}},
	)
}

// identity makes an attack by which a guest wants to be the honest firewall.
// Its twin is a firewall of its own.
func identity(name string, evil ...string) attack {
	return attack{"stream/" + name, func(t *testing.T) {
		d := newDesk(t)
		before := d.view(goodName)
		d.say(newMachine(), append(evil, snapshot("thurward_conntrack_entries 1")...)...)
		d.await("the guest", func() bool { return len(d.st.Model.Views(time.Now())) > 1 || len(d.said) > 0 })
		if v := d.view(goodName); v.Flows != before.Flows || v.Boot != before.Boot || len(v.Sources) != len(before.Sources) {
			t.Errorf("the honest firewall's picture has changed: %+v", v)
		}
		d.unharmed()
	}, func(t *testing.T) {
		d := newDesk(t)
		d.say(newMachine(), append([]string{hello}, snapshot("thurward_conntrack_entries 1")...)...)
		d.await("the other firewall", func() bool { v := d.view("198.51.100.1"); return v != nil && v.Flows.Entries == 1 })
		d.unharmed()
	}}
}

// cutOff makes an attack that ends its connection, and is told. Its twin goes on.
func cutOff(name string, why error, evil ...string) attack {
	return attack{"stream/" + name, func(t *testing.T) {
		d := newDesk(t)
		d.say(newMachine(), evil...)
		select {
		case s := <-d.said:
			if !strings.Contains(s, why.Error()) {
				t.Errorf("told: %s", s)
			}
		case <-time.After(20 * time.Second):
			t.Error("it is not told")
		}
		d.unharmed()
	}, func(t *testing.T) {
		d := newDesk(t)
		c := d.say(newMachine(), hello, `{"event.action":"drop"}`, "one bad line", "# FUTURE")
		d.await("its lines", func() bool { v := d.view("198.51.100.1"); return v != nil && v.Stream.Lines == 4 })
		fmt.Fprintln(c, `{"event.action":"drop"}`)
		d.await("another line", func() bool { return d.view("198.51.100.1").Stream.Lines == 5 })
		if len(d.said) > 0 {
			t.Error(<-d.said)
		}
		d.unharmed()
	}}
}
