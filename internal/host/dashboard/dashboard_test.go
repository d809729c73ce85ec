package dashboard

import (
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/thurward/thurward/internal/host/ingest"
)

var start = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

// feed adds lines to the model at a time.
func feed(m *Model, s *ingest.Source, at time.Time, lines ...string) {
	for _, l := range lines {
		it := ingest.Parse(l)
		if it.Kind == ingest.HelloKind {
			it.Hello.Received(at)
			s.Hello = it.Hello
		}
		m.Add(s, it, at)
	}
}

func hello(boot, wan string) string {
	return fmt.Sprintf(`# HELLO {"service.instance.id":%q,"service.version":"1.0","@timestamp":"2026-11-24T12:00:00Z","firewall.uptime_ns":1000000000,"firewall.wan.address":%q,"firewall.policy":"sha256:ab"}`, boot, wan)
}

// metrics is a snapshot in which all counters have increased n times.
func metrics(n int) []string {
	return strings.Split(strings.NewReplacer("$10", fmt.Sprint(10*n), "$100", fmt.Sprint(100*n), "$1", fmt.Sprint(n)).Replace(`# METRIC # SNAPSHOT 2026-11-24T12:00:00Z
# METRIC # HELP thurward_rule_accepts_total Packets that a rule accepted.
# METRIC # TYPE thurward_rule_accepts_total counter
# METRIC thurward_rule_accepts_total{rule_id="a"} $100
# METRIC thurward_rule_accepts_total{rule_id="b"} 5
# METRIC thurward_rule_drops_total{rule_id="default-deny"} $10
# METRIC # TYPE thurward_drops_total counter
# METRIC thurward_drops_total{drop_reason="no_matching_allow_rule"} $10
# METRIC thurward_drops_total{drop_reason="martian"} 0
# METRIC thurward_conntrack_entries 42
# METRIC thurward_conntrack_capacity 100
# METRIC thurward_interface_receive_packets_total{interface="lan"} $100
# METRIC thurward_interface_receive_bytes_total{interface="lan"} $100
# METRIC thurward_nat_port_pool_in_use{external_ip="203.0.113.10",proto="tcp"} 7
# METRIC thurward_nat_port_pool_size{external_ip="203.0.113.10",proto="tcp"} 70
# METRIC thurward_packet_loop_busy_seconds_total $1
# METRIC thurward_dns_queries_total{outcome="answered"} $10
# METRIC # TYPE thurward_dns_lookup_duration_seconds histogram
# METRIC thurward_dns_lookup_duration_seconds_bucket{le="0.01"} $1
# METRIC thurward_dns_lookup_duration_seconds_bucket{le="0.1"} $10
# METRIC thurward_dns_lookup_duration_seconds_bucket{le="+Inf"} $10
# METRIC thurward_dns_lookup_duration_seconds_sum $1
# METRIC thurward_dns_lookup_duration_seconds_count $10
# METRIC # EOF`), "\n")
}

func TestView(t *testing.T) {
	m, s := NewModel(), &ingest.Source{}
	feed(m, s, start, hello("aa", "203.0.113.10/24"))
	feed(m, s, start, metrics(1)...)
	feed(m, s, start.Add(10*time.Second), metrics(2)...)
	feed(m, s, start.Add(12*time.Second),
		`{"@timestamp":"2026-11-24T12:00:12Z","event.action":"drop","event.reason":"no_matching_allow_rule","rule.id":"default-deny","source.ip":"10.0.0.9","destination.ip":"1.1.1.1","destination.domain":"bad.example","network.transport":"tcp","network.direction":"egress","firewall.count":30}`,
		`{"@timestamp":"2026-11-24T12:00:12Z","event.action":"dns-query","event.reason":"blocked","dns.question.name":"ads.example"}`,
		`{"event.action":"lines-lost","firewall.lost_lines":3,"firewall.lost_records":1}`, `nonsense`)
	vs := m.Views(start.Add(13 * time.Second))
	if len(vs) != 1 {
		t.Fatal(vs)
	}
	v := vs[0]
	if v.Name != "203.0.113.10" || !v.Connected || v.AcceptRate != 10 || v.DropRate != 1 || v.Flows != (Flows{42, 100, 0, 0}) || v.EventRate != 3.2 || v.Load != 0.1 {
		t.Errorf("%+v", v)
	}
	if len(v.Rules) != 3 || v.Rules[0] != (Rule{"a", 200, 0, 10}) || v.Rules[1] != (Rule{"default-deny", 0, 20, 1}) {
		t.Errorf("%+v", v.Rules)
	}
	if len(v.Drops) != 1 || v.Drops[0] != (Reason{"no_matching_allow_rule", 20, 1}) || v.NAT[0] != (Pool{"203.0.113.10", "tcp", 7, 70}) || v.Interfaces[0].RxBits != 80 {
		t.Errorf("%+v %+v %+v", v.Drops, v.NAT, v.Interfaces)
	}
	// 1 of 10 queries within 10 ms, the others within 100.
	if want := 0.01 + 0.09*4/9; math.Abs(v.DNS.P50-want) > 1e-9 || v.DNS.P99 < 0.09 || v.DNS.P99 > 0.1 {
		t.Errorf("median %v, want %v; 99 %% %v", v.DNS.P50, want, v.DNS.P99)
	}
	if len(v.Names) != 2 || v.Names[0] != (Count{"bad.example", 30}) || v.Sources[0] != (Count{"10.0.0.9", 30}) || v.Stream.Lost != 4 || v.Stream.Malformed != 1 {
		t.Errorf("%+v %+v %+v", v.Names, v.Sources, v.Stream)
	}
	if len(v.Recent) != 2 || v.Recent[0].Action != "lines-lost" || !strings.Contains(v.Recent[1].Explain, "--dst 1.1.1.1") || len(v.History) != 1 || v.History[0].Accepts != 10 {
		t.Errorf("%+v %+v", v.Recent, v.History)
	}
	m.Gone(s)
	if v := m.Views(start.Add(time.Minute))[0]; v.Connected || v.EventRate != 0 {
		t.Errorf("after the end: %+v", v)
	}
}

// TestViewAfterRestart: the counters of another boot start from zero, and there is no
// rate from the difference.
func TestViewAfterRestart(t *testing.T) {
	m, a, b := NewModel(), &ingest.Source{}, &ingest.Source{}
	feed(m, a, start, append([]string{hello("aa", "203.0.113.10/24")}, metrics(50)...)...)
	m.Gone(a)
	feed(m, b, start.Add(10*time.Second), append([]string{hello("bb", "203.0.113.10/24")}, metrics(1)...)...)
	vs := m.Views(start.Add(11 * time.Second))
	if len(vs) != 1 || vs[0].Boot != "bb" || vs[0].AcceptRate != 0 || vs[0].Rules[0].Accepts != 100 || !vs[0].Connected {
		t.Errorf("%+v", vs)
	}
}

// TestBounds: a firewall that sends ever new names and series uses bounded memory.
func TestBounds(t *testing.T) {
	m, s := NewModel(), &ingest.Source{}
	feed(m, s, start, hello("aa", "203.0.113.10/24"))
	sample := func(i int) {
		feed(m, s, start, fmt.Sprintf(`# METRIC thurward_rule_accepts_total{rule_id="%0*d"} 1`, ingest.MaxLabelValue, i))
	}
	for i := range 100000 {
		sample(i)
	}
	for i := range 2000 {
		feed(m, s, start, fmt.Sprintf(`{"event.action":"drop","source.ip":"10.0.%d.%d","destination.domain":"n%d.example"}`, i/250, i%250, i), fmt.Sprintf("# METRIC # HELP m%d x", i))
	}
	for range 50 {
		feed(m, s, start, `{"event.action":"drop","source.ip":"192.0.2.77"}`)
	}
	f := m.firewalls["203.0.113.10"]
	if n := len(f.metrics.series); n < 40000 || int64(n)+f.metrics.refused != 100000 || f.metrics.bytes > maxBytes || m.bytes != f.metrics.bytes || len(f.names) > topKeys || len(f.sources) > topKeys || len(f.recent) > recentMax || len(f.history) > historyMax {
		t.Errorf("%d series, %d refused, %d names, %d sources, %d recent, %d points", len(f.metrics.series), f.metrics.refused, len(f.names), len(f.sources), len(f.recent), len(f.history))
	}
	if top := f.sources.top(1); top[0].Key != "192.0.2.77" {
		t.Errorf("the most frequent source was missed: %v", top)
	}
	for i := range 3 * maxFirewalls {
		feed(m, &ingest.Source{}, start.Add(time.Duration(i)*time.Second), hello(fmt.Sprint("boot", i), fmt.Sprintf("10.%d.%d.1/24", i/200, i%200)))
	}
	if len(m.firewalls) > maxFirewalls || len(m.open) > maxFirewalls {
		t.Errorf("%d firewalls", len(m.firewalls))
	}
}

// TestExposition: the exposition has the last whole snapshot, and passes Prometheus'
// check.
func TestExposition(t *testing.T) {
	m := NewModel()
	for i, wan := range []string{"203.0.113.10/24", "203.0.113.20/24"} {
		s := &ingest.Source{}
		feed(m, s, start, hello(fmt.Sprint("b", i), wan))
		golden, err := os.ReadFile("../../guest/export/testdata/metrics.golden")
		if err != nil {
			t.Fatal(err)
		}
		feed(m, s, start, strings.Split(strings.TrimSpace(string(golden)), "\n")...)
		feed(m, s, start, `# METRIC thurward_conntrack_entries 43`, `# METRIC # EOF`, `# METRIC # SNAPSHOT x`, `# METRIC thurward_uptime_seconds 1`, `garbage`)
	}
	var b strings.Builder
	if err := m.WriteMetrics(&b, start); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`thurward_conntrack_entries{instance="203.0.113.10"} 43`,
		"# TYPE thurward_dns_lookup_duration_seconds histogram\n", `thurward_dns_lookup_duration_seconds_bucket{le="+Inf",instance="203.0.113.10"} 4`,
		`thurward_rule_accepts_total{rule_id="default-deny",instance="203.0.113.20"} 2`, `thurward_up{instance="203.0.113.20"} 1`, `thurward_stream_malformed_lines_total{instance="203.0.113.10"} 1`,
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %s", want)
		}
	}
	if strings.Contains(b.String(), "uptime") || strings.Count(b.String(), "# TYPE thurward_conntrack_entries ") != 1 {
		t.Errorf("%s", b.String())
	}
	promtool(t, b.String())
	// A firewall that has been gone for long is down, and says nothing more.
	b.Reset()
	for s := range m.open {
		m.Gone(s)
	}
	if err := m.WriteMetrics(&b, start.Add(staleAfter+time.Second)); err != nil || strings.Contains(b.String(), "conntrack") || !strings.Contains(b.String(), `thurward_up{instance="203.0.113.20"} 0`) {
		t.Errorf("%v\n%s", err, b.String())
	}
}

// promtool runs Prometheus' check over an exposition.
func promtool(t *testing.T, text string) {
	t.Helper()
	path, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("promtool is missing (apt-get install prometheus)")
	}
	cmd := exec.Command(path, "check", "metrics")
	cmd.Stdin = strings.NewReader(text)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("promtool: %v\n%s\n%s", err, out, text)
	}
}

func TestPage(t *testing.T) {
	m, s := NewModel(), &ingest.Source{}
	feed(m, s, start, append([]string{hello("aa", "203.0.113.10/24")}, metrics(1)...)...)
	h := m.Page(func() time.Time { return start }, Access{Tokens: []string{"session", "of-a-file"}})
	get := func(method, host, path string) *httptest.ResponseRecorder {
		r := httptest.NewRequest(method, "http://"+host+path, nil)
		r.Header.Set("Authorization", "Bearer of-a-file")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w
	}
	for _, c := range []struct {
		method, host, path string
		code               int
		want               string
	}{
		{"GET", "127.0.0.1:9464", "/", 200, "<title>thurward</title>"},
		{"GET", "localhost:9464", "/app.js", 200, "use strict"},
		{"GET", "[::1]:9464", "/style.css", 200, "--bg"},
		{"GET", "127.0.0.1", "/metrics", 200, "thurward_conntrack_entries{instance="},
		{"GET", "evil.example:9464", "/api/v1/firewalls", 403, "localhost only"},
		{"GET", "192.0.2.1", "/", 403, ""},
		{"POST", "127.0.0.1", "/api/v1/firewalls", 405, ""},
		{"GET", "127.0.0.1", "/nothing", 404, ""},
	} {
		w := get(c.method, c.host, c.path)
		if w.Code != c.code || !strings.Contains(w.Body.String(), c.want) {
			t.Errorf("%s %s%s: %d %.100q", c.method, c.host, c.path, w.Code, w.Body)
		}
		if w.Code == 200 && !strings.Contains(w.Header().Get("Content-Security-Policy"), "default-src 'none'") {
			t.Error("no content security policy")
		}
	}
	var vs []View
	if err := json.Unmarshal(get("GET", "127.0.0.1", "/api/v1/firewalls").Body.Bytes(), &vs); err != nil || len(vs) != 1 || vs[0].Flows.Entries != 42 {
		t.Errorf("%v %+v", err, vs)
	}
	// Rules in words, and one of them.
	m.policies = &Policies{}
	for i := range 2 * maxPolicies {
		m.policies.Add(Policy{Digest: fmt.Sprint("sha256:", i)})
	}
	m.policies.Add(Policy{Digest: "sha256:ab", Rules: []RuleText{{ID: "b", Action: "accept", Matches: []string{"everything"}}}})
	if n := len(m.policies.all); n != maxPolicies {
		t.Errorf("%d policies are remembered", n)
	}
	const rules, one = "/api/v1/rules?firewall=203.0.113.10", "/api/v1/detail?firewall=203.0.113.10&kind=rule&key=b"
	if b := get("GET", "127.0.0.1", rules).Body.String(); !strings.HasPrefix(b, `{"rules":[{"id":"b","accepts":5,`) || !strings.Contains(b, `"text":{"id":"b","action":"accept","matches":["everything"]}`) {
		t.Error(b)
	}
	if b := get("GET", "127.0.0.1", one).Body.String(); !strings.Contains(b, `"kind":"rule","key":"b","rule":{"id":"b","accepts":5,`) || !strings.Contains(b, `"text":{"id":"b"`) {
		t.Error(b)
	}
	for path, code := range map[string]int{"/api/v1/rules?firewall=nobody": 404, "/api/v1/rules": 404, "/api/v1/detail?firewall=nobody&kind=rule&key=a": 404,
		"/api/v1/detail?firewall=203.0.113.10&kind=all&key=a": 400, "/api/v1/detail?firewall=203.0.113.10&kind=name&key=" + strings.Repeat("x", 513): 400} {
		if w := get("GET", "127.0.0.1", path); w.Code != code {
			t.Errorf("%.60s: %d, want %d", path, w.Code, code)
		}
	}
	for _, path := range []string{rules, one} { // not without the token
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", "http://127.0.0.1"+path, nil))
		if w.Code != 401 || strings.Contains(w.Body.String(), `"id"`) {
			t.Errorf("%s without a token: %d %s", path, w.Code, w.Body)
		}
	}
	if _, err := ListenPage("0.0.0.0:0"); err == nil || !strings.Contains(err.Error(), "loopback") {
		t.Errorf("listens on all addresses: %v", err)
	}
	l, err := ListenPage("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := Server(h)
	go srv.Serve(LimitPage(l)) //nolint:errcheck // closed below
	defer srv.Close()
	r, err := http.Get("http://" + l.Addr().String() + "/")
	if err != nil || r.StatusCode != 200 {
		t.Errorf("%v %v", r, err)
	}
}
