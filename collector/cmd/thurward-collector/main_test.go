package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"sort"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/component/componentstatus"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/otelcol"
	"go.opentelemetry.io/collector/receiver"

	"github.com/thurward/thurward/internal/host/ingest"
	"github.com/thurward/thurward/internal/host/ingest/guesttest"
)

// ports finds loopback ports that are free.
func ports(t *testing.T, n int) []string {
	t.Helper()
	var out []string
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		out = append(out, l.Addr().String())
	}
	return out
}

// A running collector.
type running struct {
	path, state               string // THURWARD_SOCKET, THURWARD_STATE
	metrics, page, own, extra string // addresses
}

// startDefault runs the collector with the configuration that no arguments
// stand for, on ports that are free, and with more configuration after it.
func startDefault(t *testing.T, more ...string) *running {
	t.Helper()
	dir := t.TempDir()
	p := ports(t, 4)
	r := &running{path: filepath.Join(dir, "vsock"), state: filepath.Join(dir, "state"), metrics: p[0], page: p[1], own: p[2], extra: p[3]}
	t.Setenv("THURWARD_SOCKET", r.path)
	t.Setenv("THURWARD_STATE", r.state)
	if err := setDefaults(); err != nil {
		t.Fatal(err)
	}
	_, ownPort, _ := net.SplitHostPort(r.own)
	move := strings.NewReplacer("127.0.0.1:9464", r.metrics, "127.0.0.1:9465", r.page, "level: none", "level: normal, readers: [{ pull: { exporter: { prometheus: { host: 127.0.0.1, port: "+ownPort+" } } } }]")
	set := settings()
	set.ConfigProviderSettings.ResolverSettings.URIs = nil
	for _, a := range append(defaultArgs(), more...) {
		set.ConfigProviderSettings.ResolverSettings.URIs = append(set.ConfigProviderSettings.ResolverSettings.URIs, move.Replace(strings.TrimPrefix(a, "--config=")))
	}
	set.DisableGracefulShutdown = true
	col, err := otelcol.NewCollector(set)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- col.Run(context.Background()) }()
	t.Cleanup(func() {
		col.Shutdown()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	for end := time.Now().Add(20 * time.Second); col.GetState() != otelcol.StateRunning; time.Sleep(5 * time.Millisecond) {
		select {
		case err := <-done:
			done <- err
			t.Fatal(err)
		default:
		}
		if time.Now().After(end) {
			t.Fatal("not running")
		}
	}
	return r
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("timed out waiting for " + what)
		}
	}
}

// get fetches a page with the token of the collector that runs.
func get(url string) string {
	req, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		return ""
	}
	token, _ := os.ReadFile(os.Getenv("THURWARD_SOCKET") + "_token")
	req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	r, err := http.DefaultClient.Do(req)
	if err != nil {
		return ""
	}
	defer r.Body.Close()
	var b bytes.Buffer
	b.ReadFrom(r.Body) //nolint:errcheck // an incomplete answer fails the test
	return b.String()
}

// talk connects a firewall that has told two snapshots, events and spans.
func talk(t *testing.T, r *running) {
	t.Helper()
	g := &guesttest.Guest{Boot: "00112233445566778899aabbccddeeff", WAN: "203.0.113.10/24", Start: time.Now().Add(-time.Hour)}
	send, _ := guesttest.Dial(t, ingest.GuestSocket(r.path))
	send(g.Hello(time.Now()))
	send(g.Snapshot()...)
	send(g.Snapshot()...)
	for range 8 {
		send(g.Event(time.Now()), g.Span(time.Now()))
	}
	send("no line at all")
}

// TestDefaultConfiguration: without arguments, the metrics reach Prometheus'
// endpoint under the names that the firewall gave them, events and spans reach
// their files, and the page and the followers' socket are there.
func TestDefaultConfiguration(t *testing.T) {
	r := startDefault(t)
	talk(t, r)
	until(t, "metrics", func() bool {
		return strings.Contains(get("http://"+r.metrics+"/metrics"), "thurward_conntrack_entries")
	})
	exposed := get("http://" + r.metrics + "/metrics")
	families := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^# TYPE (\S+) `).FindAllStringSubmatch(exposed, -1) {
		families[m[1]] = true
	}
	for _, l := range (&guesttest.Guest{}).Snapshot() {
		if it := ingest.Parse(l); it.Kind == ingest.TypeKind && !families[it.Meta.Name] {
			t.Errorf("%s has another name, or none", it.Meta.Name)
		}
	}
	for _, want := range []string{`thurward_rule_drops_total{instance="203.0.113.10",job="thurward",rule_id="default-deny"} 840`, `thurward_up{instance="203.0.113.10",job="thurward"} 1`,
		`thurward_dns_lookup_duration_seconds_bucket{instance="203.0.113.10",job="thurward",le="0.025"} 1400`} {
		if !strings.Contains(exposed, want) {
			t.Errorf("no %s", want)
		}
	}
	if t.Failed() {
		t.Log(exposed)
	}
	until(t, "logs.json", func() bool {
		b, _ := os.ReadFile(filepath.Join(r.state, "logs.json"))
		return bytes.Contains(b, []byte(`"eventName":"thurward.drop"`)) && bytes.Contains(b, []byte("no line at all"))
	})
	until(t, "traces.json", func() bool {
		b, _ := os.ReadFile(filepath.Join(r.state, "traces.json"))
		return bytes.Contains(b, []byte("c98f79adb21ba1d906524c7dab23fbff"))
	})
	if s := get("http://" + r.page + "/api/v1/firewalls"); !strings.Contains(s, `"name":"203.0.113.10"`) {
		t.Errorf("the page says %s", s)
	}
	until(t, "own metrics", func() bool {
		return strings.Contains(get("http://"+r.own+"/metrics"), "otelcol_receiver_thurward_malformed_lines")
	})
	if s := get("http://" + r.page + "/health"); s != "ok\n" {
		t.Errorf("health: %s", s)
	}
}

// TestForwarding: with an endpoint, all three signals arrive at a real OTLP
// receiver, and the queues are on disk.
func TestForwarding(t *testing.T) {
	otlp := ports(t, 1)[0]
	t.Setenv("THURWARD_OTLP_ENDPOINT", "http://"+otlp)
	out := filepath.Join(t.TempDir(), "received.json")
	// The receiver at the other end is another pipeline of the same process.
	r := startDefault(t, `yaml:
receivers: { otlp: { protocols: { http: { endpoint: "`+otlp+`" } } } }
exporters: { file/received: { path: "`+out+`" } }
service:
  pipelines:
    logs/received: { receivers: [otlp], exporters: [file/received] }
    metrics/received: { receivers: [otlp], exporters: [file/received] }
    traces/received: { receivers: [otlp], exporters: [file/received] }
`)
	talk(t, r)
	for _, want := range []string{`"eventName":"thurward.flow-end"`, `"name":"thurward_dns_lookup_duration_seconds"`, `"traceId":"c98f79adb21ba1d906524c7dab23fbff"`} {
		until(t, want, func() bool { b, _ := os.ReadFile(out); return bytes.Contains(b, []byte(want)) })
	}
	if files, _ := filepath.Glob(filepath.Join(r.state, "queue", "*")); len(files) == 0 {
		t.Error("no queue on disk")
	}
}

// TestPortsAreGuarded: the collector's ports answer neither to foreign names
// nor, where firewalls are told of, to those without the token.
func TestPortsAreGuarded(t *testing.T) {
	r := startDefault(t)
	talk(t, r)
	token, err := os.ReadFile(r.path + "_token")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		url, host, token string
		code             int
	}{
		{r.metrics + "/metrics", "", string(token), 200},
		{r.metrics + "/metrics", "localhost:9464", string(token), 200},
		{r.metrics + "/metrics", "", "", 401},
		{r.metrics + "/metrics", "", "guessed-guessed-guessed", 401},
		{r.metrics + "/metrics", "evil.example", string(token), 403},
		{r.page + "/api/v1/firewalls", "", string(token), 200},
		{r.page + "/api/v1/firewalls", "", "", 401},
		{r.page + "/api/v1/firewalls", "evil.example:9465", string(token), 403},
		{r.page + "/health", "", "", 200},
		{r.page + "/health", "evil.example", "", 403},
	} {
		req, err := http.NewRequest(http.MethodGet, "http://"+c.url, nil)
		if err != nil {
			t.Fatal(err)
		}
		if c.host != "" {
			req.Host = c.host
		}
		if c.token != "" {
			req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(c.token))
		}
		a, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		a.Body.Close()
		if a.StatusCode != c.code {
			t.Errorf("%s as %q with %q: %d, want %d", c.url, c.host, c.token, a.StatusCode, c.code)
		}
	}
}

// TestFailureIsNotSuccess: a collector that a component ends does not end as
// if it had been asked to.
func TestFailureIsNotSuccess(t *testing.T) {
	t.Setenv("THURWARD_SOCKET", filepath.Join(t.TempDir(), "vsock"))
	t.Setenv("THURWARD_STATE", t.TempDir())
	defer func() { failed.err = nil }()
	set := settings()
	set.Factories = func() (otelcol.Factories, error) {
		f, err := components()
		fails := component.MustNewType("fails")
		f.Receivers[fails] = receiver.NewFactory(fails, func() component.Config { return &struct{}{} },
			receiver.WithLogs(func(context.Context, receiver.Settings, component.Config, consumer.Logs) (receiver.Logs, error) {
				return failing{}, nil
			}, component.StabilityLevelBeta))
		return f, err
	}
	err := runWith(set, []string{"--config=yaml:" + `
receivers: { fails: {} }
exporters: { debug: {} }
service:
  telemetry: { metrics: { level: none } }
  pipelines: { logs: { receivers: [fails], exporters: [debug] } }
`})
	if err == nil || !strings.Contains(err.Error(), "a component failed") {
		t.Errorf("it ended with %v", err)
	}
}

// failing is a component that fails once it has started.
type failing struct{}

func (failing) Start(_ context.Context, host component.Host) error {
	go componentstatus.ReportStatus(host, componentstatus.NewFatalErrorEvent(errors.New("it fails")))
	return nil
}
func (failing) Shutdown(context.Context) error { return nil }

// TestPrometheusScrapes: a real Prometheus takes what the collector exposes.
func TestPrometheusScrapes(t *testing.T) {
	prometheus, err := exec.LookPath("prometheus")
	if err != nil {
		t.Skip("prometheus is missing (apt-get install prometheus)")
	}
	r := startDefault(t)
	talk(t, r)
	dir := t.TempDir()
	cfg := filepath.Join(dir, "prometheus.yml")
	if err := os.WriteFile(cfg, fmt.Appendf(nil, "global: { scrape_interval: 1s }\nscrape_configs:\n  - job_name: thurward\n    honor_labels: true\n    authorization: { credentials_file: %q }\n    static_configs: [ { targets: [%q] } ]\n", r.path+"_token", r.metrics), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(prometheus, "--config.file="+cfg, "--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+r.extra)
	var log bytes.Buffer
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { cmd.Process.Kill(); cmd.Wait() }() //nolint:errcheck // a test
	query := func(q string) (values []string) {
		var a struct {
			Data struct {
				Result []struct{ Value [2]any }
			}
		}
		if json.Unmarshal([]byte(get("http://"+r.extra+"/api/v1/query?query="+q)), &a) != nil {
			return nil
		}
		for _, x := range a.Data.Result {
			values = append(values, fmt.Sprint(x.Value[1]))
		}
		return values
	}
	for q, want := range map[string]string{
		`thurward_conntrack_capacity`: "65536", `thurward_rule_accepts_total{rule_id="allow-web"}`: "104000",
		`thurward_dns_lookup_duration_seconds_count`: "1860", `up{job="thurward"}`: "1", `thurward_up`: "1",
	} {
		until(t, q, func() bool { v := query(strings.ReplaceAll(q, `"`, "%22")); return len(v) == 1 && v[0] == want })
	}
	if strings.Contains(log.String(), "level=warn") && strings.Contains(log.String(), "scrape") {
		t.Errorf("%s", log.String())
	}
}

// TestDeployedConfiguration: the collector takes the configuration of the
// compose stack.
func TestDeployedConfiguration(t *testing.T) {
	if err := run([]string{"validate", "--config=../../../deploy/observability/collector.yaml"}); err != nil {
		t.Error(err)
	}
	if err := run([]string{"validate", "--config=yaml:receivers: {thurward: {instance: name}}"}); err == nil {
		t.Error("a wrong configuration is taken")
	}
}

// TestComponents: the builder's manifest, the list in components.go and go.mod
// say the same.
func TestComponents(t *testing.T) {
	f, err := components()
	if err != nil {
		t.Fatal(err)
	}
	have := map[string][]string{}
	add := func(kind string, types ...component.Type) {
		for _, ty := range types {
			have[kind] = append(have[kind], ty.String())
		}
		sort.Strings(have[kind])
	}
	for ty := range f.Receivers {
		add("receivers", ty)
	}
	for ty := range f.Exporters {
		add("exporters", ty)
	}
	for ty := range f.Processors {
		add("processors", ty)
	}
	for ty := range f.Extensions {
		add("extensions", ty)
	}
	want := map[string][]string{"receivers": {"otlp", "thurward"}, "exporters": {"debug", "file", "otlp", "otlphttp", "prometheus"},
		"processors": {"batch", "memory_limiter"}, "extensions": {"file_storage", "health_check", "thurward_access"}}
	manifest, err := os.ReadFile("../../builder.yaml")
	if err != nil {
		t.Fatal(err)
	}
	mod, err := os.ReadFile("../../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	for kind, names := range want {
		for i, n := range have[kind] { // newer collectors have renamed some
			have[kind][i] = map[string]string{"otlp_grpc": "otlp", "otlp_http": "otlphttp"}[n]
			if have[kind][i] == "" {
				have[kind][i] = n
			}
		}
		sort.Strings(have[kind])
		have[kind] = slices.Compact(have[kind])
		if fmt.Sprint(have[kind]) != fmt.Sprint(names) {
			t.Errorf("%s: %v, want %v", kind, have[kind], names)
		}
		section := regexp.MustCompile(`(?ms)^` + kind + `:\n(.*?)^\S`).FindSubmatch(append(manifest, "\nend"...))
		if section == nil || bytes.Count(section[1], []byte("gomod:")) != len(names) {
			t.Errorf("builder.yaml's %s are not %v", kind, names)
		}
	}
	for _, m := range regexp.MustCompile(`gomod: (\S+) (v\S+)`).FindAllSubmatch(manifest, -1) {
		if string(m[1]) != "github.com/thurward/thurward/collector" && !bytes.Contains(mod, append(append(append([]byte("\t"), m[1]...), ' '), append(m[2], '\n')...)) && !bytes.Contains(mod, append(append(append([]byte("\t"), m[1]...), ' '), append(m[2], " // indirect\n"...)...)) {
			t.Errorf("builder.yaml has %s %s, go.mod has not", m[1], m[2])
		}
	}
}
