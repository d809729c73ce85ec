package thurwardreceiver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/consumer/consumertest"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/receiver"
	"go.opentelemetry.io/collector/receiver/receivertest"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/thurward/thurward/internal/host/ingest"
	"github.com/thurward/thurward/internal/host/ingest/guesttest"
	"github.com/thurward/thurward/internal/host/policyview"
)

// rig is a running receiver with sinks behind it.
type rig struct {
	cfg     *Config
	logs    consumertest.LogsSink
	metrics consumertest.MetricsSink
	traces  consumertest.TracesSink
	stop    func()
	tel     *componenttest.Telemetry
}

// start runs a receiver; next replaces the logs' sink if it is not nil.
func start(t *testing.T, next consumer.Logs, change func(*Config)) *rig {
	t.Helper()
	dir := t.TempDir()
	r := &rig{tel: componenttest.NewTelemetry()}
	f := NewFactory()
	r.cfg = f.CreateDefaultConfig().(*Config)
	r.cfg.Listen = []string{"unix:" + filepath.Join(dir, "vsock_9000")}
	r.cfg.Tail, r.cfg.Page, r.cfg.BatchTimeout = "unix:"+filepath.Join(dir, "vsock_tail"), "127.0.0.1:0", 10*time.Millisecond
	if change != nil {
		change(r.cfg)
	}
	if err := r.cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	set := receivertest.NewNopSettings(Type)
	set.TelemetrySettings = r.tel.NewTelemetrySettings()
	ctx := context.Background()
	if next == nil {
		next = &r.logs
	}
	a, err1 := f.CreateLogs(ctx, set, r.cfg, next)
	b, err2 := f.CreateMetrics(ctx, set, r.cfg, &r.metrics)
	c, err3 := f.CreateTraces(ctx, set, r.cfg, &r.traces)
	if err := errors.Join(err1, err2, err3); err != nil {
		t.Fatal(err)
	}
	parts := []interface {
		receiver.Logs
	}{a, b, c}
	for _, p := range parts {
		if err := p.Start(ctx, componenttest.NewNopHost()); err != nil {
			t.Fatal(err)
		}
	}
	stopped := false
	r.stop = func() {
		if stopped {
			return
		}
		stopped = true
		for _, p := range parts {
			if err := p.Shutdown(ctx); err != nil {
				t.Error(err)
			}
		}
	}
	t.Cleanup(r.stop)
	return r
}

func (r *rig) guest(t *testing.T, boot, wan string) (*guesttest.Guest, func(...string), func()) {
	t.Helper()
	g := &guesttest.Guest{Boot: boot, WAN: wan, Start: time.Now().Add(-time.Hour)}
	send, end := guesttest.Dial(t, strings.TrimPrefix(r.cfg.Listen[0], "unix:"))
	send(g.Hello(time.Now()))
	return g, send, end
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("timed out waiting for " + what)
		}
	}
}

// counter returns the value of one of the receiver's own metrics.
func (r *rig) counter(t *testing.T, name string) (n float64) {
	t.Helper()
	m, err := r.tel.GetMetric(name)
	if err != nil {
		return 0
	}
	sum, ok := m.Data.(metricdata.Sum[int64])
	if !ok {
		t.Fatalf("%s is %T", name, m.Data)
	}
	for _, p := range sum.DataPoints {
		n += float64(p.Value)
	}
	return n
}

// TestReceiver: two firewalls at once, each its own resource, all three
// signals, and a malformed line counted and kept.
func TestReceiver(t *testing.T) {
	r := start(t, nil, nil)
	for i, wan := range []string{"203.0.113.10/24", "203.0.113.20/24"} {
		g, send, _ := r.guest(t, fmt.Sprint("boot", i), wan)
		send(g.Snapshot()...)
		send(g.Event(time.Now()), g.Event(time.Now()), g.Span(time.Now()), "this is no line", "# FUTURE of another version")
	}
	until(t, "logs", func() bool { return r.logs.LogRecordCount() == 6 })
	until(t, "spans", func() bool { return r.traces.SpanCount() == 2 })
	until(t, "metrics", func() bool { return len(snapshots(r.metrics.AllMetrics())) == 2 })
	seen := map[string]int{}
	for _, ld := range r.logs.AllLogs() {
		rl := ld.ResourceLogs().At(0)
		id, _ := rl.Resource().Attributes().Get("service.instance.id")
		seen[id.Str()] += rl.ScopeLogs().At(0).LogRecords().Len()
		for i := range rl.ScopeLogs().At(0).LogRecords().Len() {
			lr := rl.ScopeLogs().At(0).LogRecords().At(i)
			if lr.EventName() == "thurward.malformed" && lr.Body().Str() != "this is no line" {
				t.Errorf("%q", lr.Body().Str())
			}
		}
	}
	if seen["203.0.113.10"] != 3 || seen["203.0.113.20"] != 3 {
		t.Errorf("log records by firewall: %v", seen)
	}
	if n := r.counter(t, "otelcol_receiver_thurward_malformed_lines"); n != 2 {
		t.Errorf("%v malformed lines counted", n)
	}
	if n := r.counter(t, "otelcol_receiver_accepted_log_records"); n != 6 {
		t.Errorf("%v log records accepted", n)
	}
	// A follower of the socket that is shared learns who is there.
	c, err := net.Dial("unix", strings.TrimPrefix(r.cfg.Tail, "unix:"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second)) //nolint:errcheck // a test
	follower, who := ingest.NewFollower(c), map[string]int{}
	for len(who) < 2 || who["203.0.113.10"] != who["203.0.113.20"] {
		s, it, err := follower.Next()
		if err != nil {
			t.Fatal(err, who)
		}
		if it.Kind == ingest.SampleKind {
			who[s.Hello.Name()]++
		}
	}
}

// snapshots returns those metrics that are not the receiver's own.
func snapshots(all []pmetric.Metrics) (out []pmetric.Metrics) {
	for _, md := range all {
		if md.ResourceMetrics().At(0).ScopeMetrics().At(0).Metrics().At(0).Name() != "thurward_up" {
			out = append(out, md)
		}
	}
	return out
}

// up returns the values of thurward_up in order.
func up(all []pmetric.Metrics) (v []float64) {
	for _, md := range all {
		if m := md.ResourceMetrics().At(0).ScopeMetrics().At(0).Metrics().At(0); m.Name() == "thurward_up" {
			v = append(v, m.Gauge().DataPoints().At(0).DoubleValue())
		}
	}
	return v
}

// TestReceiverReconnect: thurward_up is 0 for a firewall that disconnects, and 1 again
// when it returns.
func TestReceiverReconnect(t *testing.T) {
	r := start(t, nil, nil)
	_, _, end := r.guest(t, "b1", "203.0.113.10/24")
	until(t, "up", func() bool { return fmt.Sprint(up(r.metrics.AllMetrics())) == "[1]" })
	end()
	until(t, "down", func() bool { return fmt.Sprint(up(r.metrics.AllMetrics())) == "[1 0]" })
	r.guest(t, "b2", "203.0.113.10/24")
	until(t, "up again", func() bool { return fmt.Sprint(up(r.metrics.AllMetrics())) == "[1 0 1]" })
}

// refusing is a pipeline that refuses until it is let.
type refusing struct {
	consumertest.LogsSink
	open     atomic.Bool
	attempts atomic.Int64
}

func (c *refusing) ConsumeLogs(ctx context.Context, ld plog.Logs) error {
	c.attempts.Add(1)
	if !c.open.Load() {
		return errors.New("no")
	}
	return c.LogsSink.ConsumeLogs(ctx, ld)
}

// TestReceiverRefused: while the logs' pipeline refuses, metrics and spans go
// on; the queue keeps the newest events, counts the others, and delivers when
// it may.
func TestReceiverRefused(t *testing.T) {
	next := &refusing{}
	r := start(t, next, func(c *Config) { c.QueueSize, c.BatchSize = 100, 50 })
	g, send, _ := r.guest(t, "b1", "203.0.113.10/24")
	for range 300 {
		send(g.Event(time.Now()))
	}
	send(g.Span(time.Now()))
	send(g.Snapshot()...)
	until(t, "metrics and spans", func() bool { return r.traces.SpanCount() == 1 && len(snapshots(r.metrics.AllMetrics())) == 1 })
	next.open.Store(true)
	dropped := func() float64 { return r.counter(t, "otelcol_receiver_thurward_dropped_items") }
	// Up to 50 were under way, 100 waited.
	until(t, "all to be delivered or counted", func() bool { return float64(next.LogRecordCount())+dropped() == 300 })
	if n := next.LogRecordCount(); n < 100 || n > 150 {
		t.Errorf("%d delivered and %v counted as dropped of 300", n, dropped())
	}
	if next.attempts.Load() < 3 {
		t.Errorf("%d attempts", next.attempts.Load())
	}
}

// TestReceiverShutdown: what was read is delivered before the end, and the
// sockets are free again.
func TestReceiverShutdown(t *testing.T) {
	r := start(t, nil, func(c *Config) { c.BatchTimeout = 30 * time.Second })
	g, send, _ := r.guest(t, "b1", "203.0.113.10/24")
	for range 10 {
		send(g.Event(time.Now()))
	}
	until(t, "lines", func() bool { return r.counter(t, "otelcol_receiver_thurward_lines") == 11 })
	r.stop()
	if n := r.logs.LogRecordCount(); n != 10 {
		t.Errorf("%d of 10 delivered", n)
	}
	l, err := ingest.Listen(r.cfg.Listen[0])
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
}

func TestReceiverInUse(t *testing.T) {
	r := start(t, nil, nil)
	f := NewFactory()
	cfg := f.CreateDefaultConfig().(*Config)
	cfg.Listen, cfg.Tail, cfg.Page = r.cfg.Listen, "", "192.0.2.1:1"
	other, err := f.CreateLogs(context.Background(), receivertest.NewNopSettings(Type), cfg, consumertest.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	err = other.Start(context.Background(), componenttest.NewNopHost())
	if err == nil || !errors.Is(err, ingest.ErrInUse) || !strings.Contains(err.Error(), "loopback") {
		t.Errorf("%v", err)
	}
}

// TestPageKnowsPolicies: the page shows rules in words and who may reach what, for a policy
// that comes to be among the files that the configuration names; it is served as the web
// configuration says.
func TestPageKnowsPolicies(t *testing.T) {
	dir := t.TempDir()
	web := filepath.Join(dir, "web.yml")
	// htpasswd -nbBC 4 reader secret
	if err := os.WriteFile(web, []byte("basic_auth_users: { reader: $2a$04$Q.q3ghEIQGWCNUiO6YPiPOFYO0oW.EK.maOmx8SOtqavQZUJ/7sZe }\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := start(t, nil, func(c *Config) {
		c.Page, c.PageConfig, c.Policies = "unix:"+filepath.Join(dir, "page"), web, []string{filepath.Join(dir, "*.yaml")}
	})
	policy, err := os.ReadFile("../../rules.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "edge.yaml"), policy, 0o600); err != nil {
		t.Fatal(err)
	}
	g := &guesttest.Guest{Boot: "b", WAN: "203.0.113.10/24", Start: time.Now().Add(-time.Hour)}
	send, _ := guesttest.Dial(t, strings.TrimPrefix(r.cfg.Listen[0], "unix:"))
	send(strings.Replace(g.Hello(time.Now()), guesttest.Policy, policyview.Digest(policy), 1))
	send(g.Snapshot()...)
	client := guesttest.OverUnix(filepath.Join(dir, "page"))
	get := func(what, password string) (int, string) {
		req, err := http.NewRequest("GET", "http://localhost/api/v1/"+what+"?firewall=203.0.113.10", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.SetBasicAuth("reader", password)
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(b)
	}
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if _, b := get("reach", "secret"); strings.HasPrefix(b, `{"known":true,"tables":[{"from":"lan"`) {
			break
		} else if time.Now().After(end) {
			t.Fatal(b)
		}
	}
	if code, b := get("rules", "secret"); code != 200 || !strings.Contains(b, `"rules":[{"id":"allow-web"`) || !strings.Contains(b, `"id":"default-deny","action":"deny","matches":["everything else"]`) {
		t.Errorf("%d %s", code, b)
	}
	if code, b := get("reach", "guessed"); code != 401 {
		t.Errorf("with another password: %d %s", code, b)
	}
}

func TestConfig(t *testing.T) {
	if err := defaultConfig().Validate(); err != nil {
		t.Errorf("the default is refused: %v", err)
	}
	c := &Config{Listen: []string{"tcp:1"}, Tail: "tcp:1", Instance: "name", BatchSize: 0, QueueSize: -1}
	err := c.Validate()
	for _, want := range []string{`"tcp:1" is not an address`, "not a Unix socket", "wan_address, wan_mac or boot", "batch_size", "batch_timeout", "queue_size"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in %v", want, err)
		}
	}
	// The page for other hosts.
	dir := t.TempDir()
	open, plain := filepath.Join(dir, "open.yml"), filepath.Join(dir, "plain.yml")
	for file, text := range map[string]string{open: "basic_auth_users: {}\n", plain: "basic_auth_users: { a: $2y$10$aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa }\n"} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range []struct{ page, config, want string }{
		{"192.0.2.1:9465", "", "other hosts need TLS and authentication"},
		{"192.0.2.1:9465", open, "no certificate"},
		{"192.0.2.1:9465", plain, "no certificate"},
		{"127.0.0.1:9465", plain, ""},
		{"127.0.0.1:9465", filepath.Join(dir, "none.yml"), "page_config: stat "},
	} {
		c := defaultConfig()
		c.Page, c.PageConfig = p.page, p.config
		if err := c.Validate(); (err == nil) != (p.want == "") || err != nil && !strings.Contains(err.Error(), p.want) {
			t.Errorf("page %s, page_config %s: %v, want %q", p.page, p.config, err, p.want)
		}
	}
	if c := defaultConfig(); true {
		c.Policies = []string{"[a"}
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), "policies: ") {
			t.Errorf("a pattern that is none: %v", err)
		}
	}
	h := ingest.Parse((&guesttest.Guest{Boot: "b", WAN: "203.0.113.10/24"}).Hello(time.Now())).Hello
	for by, want := range map[string]string{byBoot: "b", byWANMAC: "52:54:00:74:68:02", byWANAddress: "203.0.113.10"} {
		if got := (&Config{Instance: by}).instance(&h); got != want {
			t.Errorf("%s: %s", by, got)
		}
	}
	if got := (&Config{Instance: byBoot}).instance(&ingest.Hello{}); got != "unknown" {
		t.Errorf("without a HELLO: %q", got)
	}
}
