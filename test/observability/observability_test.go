// Package observability checks what deploy/observability and docs/runbooks say
// against the firewall's metrics.
package observability

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"

	"github.com/thurward/thurward/internal/host/ingest"
)

const (
	root   = "../.."
	deploy = root + "/deploy/observability"
)

// metrics returns the names of all metrics that the program's code makes, and
// those of the receivers.
func metrics(t *testing.T) map[string]bool {
	t.Helper()
	names := map[string]bool{}
	literal := regexp.MustCompile(`"(thurward_[a-z0-9_]+)"`)
	for _, dir := range []string{"cmd/firewall", "internal"} {
		err := filepath.WalkDir(filepath.Join(root, dir), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			// These ask for metrics, or invent them.
			if strings.Contains(path, "internal/host/dashboard/") || strings.Contains(path, "internal/host/ingest/") {
				return nil
			}
			b, err := os.ReadFile(path)
			for _, m := range literal.FindAllSubmatch(b, -1) {
				names[string(m[1])] = true
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if len(names) < 40 {
		t.Fatalf("only %d metrics found", len(names))
	}
	for _, n := range []string{"thurward_up", "thurward_stream_malformed_lines_total", "thurward_stream_refused_samples_total"} {
		names[n] = true
	}
	return names
}

var metric = regexp.MustCompile(`thurward_[a-z0-9_]+`)

// known reports whether a name in a query is a metric's, or a part of a
// histogram's.
func known(names map[string]bool, n string) bool {
	for _, suffix := range []string{"_bucket", "_sum", "_count"} {
		if names[strings.TrimSuffix(n, suffix)] {
			return true
		}
	}
	return names[n]
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestMetricsExist: whatever the dashboard, the alerts, the page and thurward
// top ask for is a metric that there is.
func TestMetricsExist(t *testing.T) {
	names := metrics(t)
	files, _ := filepath.Glob(root + "/internal/host/dashboard/*.go")
	for _, f := range append(files, deploy+"/grafana/dashboards/thurward.json", deploy+"/alerts.yaml", deploy+"/alerts_test.yaml") {
		if strings.HasSuffix(f, "_test.go") {
			continue
		}
		for _, n := range metric.FindAllString(string(read(t, f)), -1) {
			if !known(names, n) {
				t.Errorf("%s asks for %s, which does not exist", filepath.Base(f), n)
			}
		}
	}
	// The example firewall of the tests tells nothing that the real one does not.
	for _, n := range metric.FindAllString(string(read(t, root+"/internal/host/ingest/guesttest/guest.go")), -1) {
		if !known(names, n) {
			t.Errorf("guesttest tells of %s, which does not exist", n)
		}
	}
}

// TestSchema: readers keep the metrics that the firewall's code makes, and no
// others.
func TestSchema(t *testing.T) {
	names := metrics(t)
	for _, m := range ingest.Metrics() {
		if !names[m.Name] {
			t.Errorf("the schema has %s, which does not exist", m.Name)
		}
	}
	for n := range names {
		if own := n == "thurward_up" || strings.HasPrefix(n, "thurward_stream_"); !own && ingest.NamedMetric(n) == nil {
			t.Errorf("readers would drop %s: add it to internal/host/ingest/schema.go", n)
		}
	}
}

// TestDashboard: panels have ids and data sources of their own, descriptions,
// and queries.
func TestDashboard(t *testing.T) {
	var d struct {
		Panels []struct {
			ID                       int
			Type, Title, Description string
			Datasource               struct{ UID string }
			Targets                  []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(read(t, deploy+"/grafana/dashboards/thurward.json"), &d); err != nil {
		t.Fatal(err)
	}
	sources := string(read(t, deploy+"/grafana/provisioning/datasources/datasources.yaml"))
	seen, text := map[int]bool{}, ""
	for _, p := range d.Panels {
		if seen[p.ID] {
			t.Errorf("two panels have id %d", p.ID)
		}
		seen[p.ID] = true
		if p.Type == "row" {
			text += p.Title + "\n"
			continue
		}
		if p.Title == "" || len(p.Targets) == 0 || !strings.Contains(sources, "uid: "+p.Datasource.UID) {
			t.Errorf("panel %d %q: %d queries, data source %q", p.ID, p.Title, len(p.Targets), p.Datasource.UID)
		}
		for _, q := range p.Targets {
			if q.Expr == "" {
				t.Errorf("panel %q has an empty query", p.Title)
			}
		}
		text += p.Title + "\n"
	}
	for _, want := range []string{"Health", "Throughput", "Accepted by rule", "Dropped by reason", "Top denied names", "Accepted against dropped", "Top sources of drops", "Translations a second", "Latency", "Flow table", "External ports in use", "Queue in the firewall", "Build and policy"} {
		if !strings.Contains(text, want) {
			t.Errorf("no panel %q", want)
		}
	}
}

// TestAlerts: each alert says what is wrong, links to a runbook that has a
// section of its name, and is tested; no runbook is left over.
func TestAlerts(t *testing.T) {
	var f struct {
		Groups []struct {
			Rules []struct {
				Alert, Expr         string
				Labels, Annotations map[string]string
			}
		}
	}
	if err := yaml.Unmarshal(read(t, deploy+"/alerts.yaml"), &f); err != nil {
		t.Fatal(err)
	}
	tests := string(read(t, deploy+"/alerts_test.yaml"))
	pages := map[string]bool{}
	all, _ := filepath.Glob(root + "/docs/runbooks/*.md")
	for _, p := range all {
		pages[filepath.Base(p)] = false
	}
	for _, r := range f.Groups[0].Rules {
		url, found := strings.CutPrefix(r.Annotations["runbook_url"], "https://github.com/thurward/thurward/blob/main/docs/runbooks/")
		page, anchor, _ := strings.Cut(url, "#")
		if _, ok := pages[page]; !found || !ok {
			t.Errorf("%s links to %q", r.Alert, r.Annotations["runbook_url"])
			continue
		}
		pages[page] = true
		if anchor != strings.ToLower(r.Alert) || !strings.Contains(string(read(t, root+"/docs/runbooks/"+page)), "\n## "+r.Alert+"\n") {
			t.Errorf("%s has no section in %s", r.Alert, page)
		}
		if r.Annotations["summary"] == "" || r.Labels["severity"] == "" || !strings.Contains(tests, "alertname: "+r.Alert+"\n") {
			t.Errorf("%s: summary %q, severity %q, or no test that makes it fire", r.Alert, r.Annotations["summary"], r.Labels["severity"])
		}
	}
	for p, used := range pages {
		if !used {
			t.Errorf("no alert links to %s", p)
		}
	}
}

// TestRunbooksNamePanels: what a runbook tells to look at, in italics, is on the dashboard.
func TestRunbooksNamePanels(t *testing.T) {
	var d struct{ Panels []struct{ Title string } }
	if err := json.Unmarshal(read(t, deploy+"/grafana/dashboards/thurward.json"), &d); err != nil {
		t.Fatal(err)
	}
	titles := map[string]bool{}
	for _, p := range d.Panels {
		titles[p.Title] = true
	}
	italic, named := regexp.MustCompile(`(?:^|[^*\w])\*([^*\n]+)\*(?:[^*]|$)`), 0
	all, _ := filepath.Glob(root + "/docs/runbooks/*.md")
	for _, page := range all {
		for _, m := range italic.FindAllSubmatch(read(t, page), -1) {
			if named++; !titles[string(m[1])] {
				t.Errorf("%s: the dashboard has no panel %q", filepath.Base(page), m[1])
			}
		}
	}
	if named < 12 {
		t.Errorf("%d panels are named", named)
	}
}

// TestPromtool: Prometheus' own checks pass, and each alert fires when it
// should and only then.
func TestPromtool(t *testing.T) {
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("promtool is missing (apt-get install prometheus)")
	}
	for _, args := range [][]string{{"check", "config", "--syntax-only", "prometheus.yaml"}, {"check", "rules", "alerts.yaml"}, {"test", "rules", "alerts_test.yaml"}} {
		cmd := exec.Command(promtool, args...)
		cmd.Dir = deploy
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("promtool %v: %v\n%s", args, err, out)
		}
	}
}

// TestDashboardQueries: Prometheus' own parser takes each query that the dashboard asks it.
func TestDashboardQueries(t *testing.T) {
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("promtool is missing (apt-get install prometheus)")
	}
	var d struct {
		Panels []struct {
			Title      string
			Datasource struct{ UID string }
			Targets    []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(read(t, deploy+"/grafana/dashboards/thurward.json"), &d); err != nil {
		t.Fatal(err)
	}
	// What Grafana puts in.
	values := strings.NewReplacer("$instance", "203.0.113.10", "$__rate_interval", "1m", "$__range", "1h", "$__interval", "10s")
	var rules []map[string]string
	for _, p := range d.Panels {
		for _, q := range p.Targets {
			if expr := values.Replace(q.Expr); p.Datasource.UID == "prometheus" {
				if strings.Contains(expr, "$") {
					t.Errorf("%s: a variable is left in %s", p.Title, expr)
				}
				rules = append(rules, map[string]string{"record": fmt.Sprint("panel:", len(rules)), "expr": expr})
			}
		}
	}
	check := func() (string, error) {
		b, err := yaml.Marshal(map[string]any{"groups": []any{map[string]any{"name": "dashboard", "rules": rules}}})
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(t.TempDir(), "rules.yaml")
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command(promtool, "check", "rules", file).CombinedOutput()
		return string(out), err
	}
	if out, err := check(); err != nil || len(rules) < 30 {
		t.Errorf("%d queries: %v\n%s", len(rules), err, out)
	}
	rules[7]["expr"] += ")"
	if out, err := check(); err == nil {
		t.Errorf("a parenthesis too many is taken:\n%s", out)
	}
}

// TestStackFits: what one file of the stack sends where, another one listens on.
func TestStackFits(t *testing.T) {
	var collector struct {
		Exporters map[string]struct{ Endpoint string }
	}
	var loki, tempo struct {
		Server struct {
			HTTPListenPort int `yaml:"http_listen_port"`
		}
		Distributor struct {
			Receivers struct {
				OTLP struct {
					Protocols struct{ GRPC struct{ Endpoint string } }
				}
			}
		}
	}
	var sources struct {
		Datasources []struct{ UID, URL string }
	}
	var prometheus struct {
		Scrape []struct {
			Static []struct{ Targets []string } `yaml:"static_configs"`
		} `yaml:"scrape_configs"`
		Alerting struct {
			Alertmanagers []struct {
				Static []struct{ Targets []string } `yaml:"static_configs"`
			}
		}
	}
	for file, into := range map[string]any{"collector.yaml": &collector, "loki.yaml": &loki, "tempo.yaml": &tempo, "prometheus.yaml": &prometheus, "grafana/provisioning/datasources/datasources.yaml": &sources} {
		if err := yaml.Unmarshal(read(t, deploy+"/"+file), into); err != nil {
			t.Fatal(err)
		}
	}
	at := map[string]string{}
	for _, s := range sources.Datasources {
		at[s.UID] = s.URL
	}
	_, otlp, _ := strings.Cut(tempo.Distributor.Receivers.OTLP.Protocols.GRPC.Endpoint, ":")
	_, metrics, _ := strings.Cut(collector.Exporters["prometheus"].Endpoint, ":")
	for _, c := range [][2]string{
		{collector.Exporters["otlphttp/loki"].Endpoint, fmt.Sprintf("http://loki:%d/otlp", loki.Server.HTTPListenPort)},
		{collector.Exporters["otlp/tempo"].Endpoint, "tempo:" + otlp},
		{at["loki"], fmt.Sprintf("http://loki:%d", loki.Server.HTTPListenPort)},
		{at["tempo"], fmt.Sprintf("http://tempo:%d", tempo.Server.HTTPListenPort)},
		{at["prometheus"], "http://prometheus:9090"},
		{prometheus.Scrape[0].Static[0].Targets[0], "collector:" + metrics},
		{prometheus.Alerting.Alertmanagers[0].Static[0].Targets[0], "alertmanager:9093"},
	} {
		if c[0] != c[1] || strings.HasSuffix(c[1], ":") {
			t.Errorf("%q is sent to, %q listens", c[0], c[1])
		}
	}
}

// TestAmtool: Alertmanager's own check passes, and alerts go where they should.
func TestAmtool(t *testing.T) {
	amtool, err := exec.LookPath("amtool")
	if err != nil {
		t.Skip("amtool is missing (apt-get install prometheus-alertmanager)")
	}
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"check-config", "alertmanager.yaml"}, "SUCCESS"},
		{[]string{"config", "routes", "test", "--config.file=alertmanager.yaml", "severity=critical"}, "page-only"},
	} {
		cmd := exec.Command(amtool, c.args...)
		cmd.Dir = deploy
		if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), c.want) {
			t.Errorf("amtool %v: %v\n%s", c.args, err, out)
		}
	}
}

// TestDeployment: the files are YAML, images have versions, and nothing but
// loopback is published.
func TestDeployment(t *testing.T) {
	err := filepath.WalkDir(deploy, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".yaml") {
			return err
		}
		var v any
		if err := yaml.Unmarshal(read(t, path), &v); err != nil {
			t.Errorf("%s: %v", path, err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	compose := read(t, deploy+"/compose.yaml")
	images := regexp.MustCompile(`(?m)image: (\S+)`).FindAllSubmatch(compose, -1)
	if len(images) != 5 {
		t.Errorf("%d images", len(images))
	}
	for _, m := range images {
		if !regexp.MustCompile(`:v?\d+\.\d+\.\d+$`).Match(m[1]) {
			t.Errorf("%s is not pinned", m[1])
		}
	}
	for _, m := range regexp.MustCompile(`ports: \["([^"]*)"`).FindAllSubmatch(compose, -1) {
		if !bytes.HasPrefix(m[1], []byte("127.0.0.1:")) {
			t.Errorf("%s is open to the network", m[1])
		}
	}
	var c struct {
		Services map[string]struct{ Volumes []string }
	}
	if err := yaml.Unmarshal(compose, &c); err != nil {
		t.Fatal(err)
	}
	for name, s := range c.Services {
		for _, v := range s.Volumes {
			if from, _, _ := strings.Cut(v, ":"); strings.HasPrefix(from, "./") {
				if _, err := os.Stat(filepath.Join(deploy, from)); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
		}
	}
}
