package dashboard

import (
	"context"
	"crypto/rand"
	"fmt"
	"math"
	mathrand "math/rand/v2"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/thurward/thurward/internal/host/ingest"
	"github.com/thurward/thurward/internal/host/ingest/guesttest"
	"github.com/thurward/thurward/internal/host/policy/check"
	"github.com/thurward/thurward/internal/host/policy/compile"
	"github.com/thurward/thurward/internal/host/policy/matrix"
)

const evil = `<img src=x onerror=document.title=1>`

// served serves a model, and returns the URL of the page and its token.
func served(t *testing.T, m *Model) (address, session string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	access, session, err := PageAccess("127.0.0.1:0", "", rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	srv := Server(m.Page(time.Now, access))
	go srv.Serve(LimitPage(l)) //nolint:errcheck // closed below
	t.Cleanup(func() { srv.Close() })
	return "http://" + l.Addr().String() + "/", session
}

// A browser is a real one, headless.
type browser struct {
	t    *testing.T
	path string
	ctx  context.Context
	home string
}

func newBrowser(t *testing.T) *browser {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("chromium is missing (apt-get install chromium)")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Minute)
	t.Cleanup(cancel)
	return &browser{t, path, ctx, profile(t)}
}

// run opens a page, with more arguments. It has no sandbox, since tests run as root in
// containers; the page is ours.
func (b *browser) run(url string, more ...string) string {
	b.t.Helper()
	args := append([]string{"--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--user-data-dir=" + b.home,
		"--virtual-time-budget=4000"}, append(more, url)...)
	cmd := exec.CommandContext(b.ctx, b.path, args...)
	cmd.WaitDelay = 5 * time.Second
	out, err := cmd.Output()
	if err != nil {
		b.t.Fatalf("chromium: %v", err)
	}
	return string(out)
}

// dom returns the document of a view after the scripts have run. The browser's time is virtual,
// and on a busy machine may be over before the first answer is there: then it opens the page again.
func (b *browser) dom(address, session, view string) (doc string) {
	b.t.Helper()
	for range 4 {
		if doc = b.run(address+"#token="+session+view, "--dump-dom", "--window-size=1280,900"); strings.Contains(doc, " is connected") {
			break
		}
	}
	return doc
}

// filled returns a model of two firewalls, one of which says hostile things.
func filled(now time.Time) *Model {
	m := NewModel()
	for _, wan := range []string{"203.0.113.10/24", "203.0.113.20/24"} {
		g, s := &guesttest.Guest{Boot: wan, WAN: wan, Start: now.Add(-time.Hour)}, &ingest.Source{}
		for i := range 6 {
			at := now.Add(time.Duration(i-6) * 10 * time.Second)
			feed(m, s, at, append([]string{g.Hello(at)}, g.Snapshot()...)...)
			feed(m, s, at, g.Event(at), g.Event(at))
			feed(m, s, at, `{"@timestamp":"2026-11-24T12:00:00Z","event.action":"drop","event.reason":"explicit_deny","rule.id":"`+evil+`","source.ip":"10.0.0.9","destination.ip":"1.1.1.1","destination.domain":"`+evil+`","network.transport":"tcp","network.direction":"egress"}`)
		}
	}
	return m
}

// TestPageInBrowser: a real browser runs the page under its content security policy, draws
// charts and tables, and does not take text of a firewall for markup, in no view.
func TestPageInBrowser(t *testing.T) {
	b := newBrowser(t)
	m := filled(time.Now())
	m.policies = &Policies{}
	m.policies.Add(Policy{Digest: guesttest.Policy, Rules: []RuleText{{ID: "allow-web", Name: evil, Action: "accept", Matches: []string{"egress tcp any -> any :443", evil}, More: 3}},
		Groups: func(a string) []string { return []string{"$" + a + evil} },
		Reach: func() (any, error) {
			return []matrix.Table{{From: "lan", Title: "From the LAN", Left: evil, Heads: []matrix.Head{{Label: evil, Addresses: []string{evil}}},
				Rows: []matrix.Row{{Service: evil, Names: []string{evil}, Cells: []matrix.Shown{{Text: evil, Kind: matrix.KindSome, Rules: []string{evil}}}}}}, {From: "wan", Title: "From the WAN", Rows: []matrix.Row{}}}, nil
		}})
	address, session := served(t, m)
	if dom := b.run(address, "--dump-dom"); !strings.Contains(dom, `<section id="locked">`) || strings.Contains(dom, "203.0.113.10") {
		t.Errorf("without a token:\n%s", dom)
	}
	for view, wants := range map[string][]string{
		"": {"203.0.113.10 is connected, up 6", `aria-pressed="false">203.0.113.20</button>`, `>allow-established</a>`, "<td>no_matching_allow_rule</td>",
			`<path class="line s1" d="M`, `aria-label="Throughput"`, "telemetry.example", `role="meter"`, "thurward explain --from lan --proto tcp", "&lt;img src=x onerror",
			`<line class="axis"`, `text-anchor="end">5 k</text>`, "bit/s</b>"},
		"&view=policy": {"5 rules, 0 of them have not decided", "egress tcp any -&gt; any :443", "and 3 more", `class="chip accept"`, `class="spark"`, ">312 000<"},
		"&fw=203.0.113.20&view=rule&key=" + url.QueryEscape("allow-web"): {`<span id="about"><span class="none">rule </span>allow-web</span>`, `aria-label="Hits"`, "github.com", "203.0.113.20 is connected"},
		"&view=host&key=10.0.0.9":                         {"<span class=\"none\">host </span>10.0.0.9", "&lt;img src=x onerror", "<h2>Names</h2>", "in $10.0.0.9&lt;img"},
		"&view=reach":                                     {"<h2>From the LAN</h2>", `<span class="cell some">&lt;img`, "<h2>From the WAN</h2>", "nothing is reached"},
		"&view=name&key=" + url.QueryEscape(evil):         {"<span class=\"none\">name </span>&lt;img src=x", "10.0.0.9"},
		"&view=rule&key=" + url.QueryEscape(evil+"other"): {"<span class=\"none\">rule </span>&lt;img src=x", "no verdicts yet"},
	} {
		dom := b.dom(address, session, view)
		for _, want := range append(wants, "<title>thurward</title>") {
			if !strings.Contains(dom, want) {
				t.Errorf("%q: no %s", view, want)
			}
		}
		if view == "" && strings.Count(dom, `<path class="line`) != 7 {
			t.Errorf("%d lines are drawn, want 7", strings.Count(dom, `<path class="line`))
		}
		if strings.Contains(dom, "<img") {
			t.Errorf("%q: text from a firewall became markup", view)
		}
		if t.Failed() {
			t.Fatal(dom)
		}
	}
}

// TestPageOfIdleFirewall: of no queries there is no median.
func TestPageOfIdleFirewall(t *testing.T) {
	now := time.Now()
	m, s := NewModel(), &ingest.Source{}
	g := &guesttest.Guest{Boot: "idle", WAN: "203.0.113.10/24", Start: now.Add(-time.Hour)}
	feed(m, s, now, g.Hello(now))
	for i := range 6 {
		feed(m, s, now.Add(time.Duration(i-6)*10*time.Second), "# METRIC # SNAPSHOT x", `# METRIC thurward_conntrack_entries 0`, "# METRIC # EOF")
	}
	address, session := served(t, m)
	if dom := newBrowser(t).dom(address, session, ""); !strings.Contains(dom, "no queries lately") || strings.Contains(dom, "median –") {
		t.Error(dom)
	}
}

// demonstration returns a model of a firewall with two hours of traffic, such as an office has.
func demonstration(now time.Time) *Model {
	m, s := NewModel(), &ingest.Source{}
	g := &guesttest.Guest{Boot: "office", WAN: "198.51.100.2/28", Start: now.Add(-50 * time.Hour)}
	rules := []struct {
		id, action string
		matches    string
		rate, beat float64
	}{
		{"www", "accept", "tcp any -> 10.20.3.10 :80,8443", 64, 17}, {"mail-in", "accept", "ingress tcp any -> 10.20.3.20 :25", 7, 9},
		{"backup-pull", "accept", "ingress tcp 192.0.2.0/25 -> 10.20.3.30 :22-24", 0, 1}, {"allow-dns", "accept", "egress tcp,udp any -> 10.20.0.1 :53", 38, 13},
		{"mail-out", "accept", "egress tcp 10.20.3.20 -> any :25", 3, 7}, {"updates", "accept", "egress tcp 10.20.3.0/26 -> any :80 to deb.debian.org, security.debian.org", 0.4, 31},
		{"answers-out", "accept", "egress established any -> any", 71, 17}, {"servers-rest", "deny", "egress 10.20.3.0/26 -> any", 0.8, 5},
		{"admins", "accept", "egress 10.20.0.16/28 -> any", 12, 23}, {"staff-web", "accept", "egress tcp,udp 10.20.0.0/22 -> any :80,443", 410, 19},
		{"staff-mail", "accept", "egress tcp 10.20.0.0/22 -> any :465,587,993", 9, 11}, {"staff-ping", "accept", "egress icmp any -> any", 0, 1},
		{"allow-established", "accept", "ingress established any -> any", 690, 19}, {"default-reject", "reject", "everything else", 14, 8},
	}
	m.policies = &Policies{}
	texts := []RuleText{}
	for _, r := range rules {
		texts = append(texts, RuleText{ID: r.id, Action: r.action, Matches: []string{r.matches}})
	}
	m.policies.Add(Policy{Digest: guesttest.Policy, Rules: texts, Reach: branch})
	totals := make([]float64, len(rules))
	bytes := [2]float64{}
	const points = 700
	noise := mathrand.New(mathrand.NewPCG(1, 2))
	for i := range points {
		at := now.Add(time.Duration(i-points) * 10 * time.Second)
		lines := []string{}
		if i == 0 {
			lines = append(lines, g.Hello(at))
		}
		lines = append(lines, "# METRIC # SNAPSHOT x")
		wave := func(beat float64) float64 {
			x := float64(i)
			return max(0, 1+0.45*math.Sin(x/97+beat)+0.25*math.Sin(x/17+beat*3)+0.16*noise.NormFloat64())
		}
		accepts, drops := 0.0, 0.0
		for k, r := range rules {
			n := r.rate * wave(r.beat) * 10
			totals[k] += n
			name := "accepts"
			if r.action != "accept" {
				name = "drops"
				drops += totals[k]
			} else {
				accepts += n
			}
			lines = append(lines, fmt.Sprintf(`# METRIC thurward_rule_%s_total{rule_id=%q} %.0f`, name, r.id, totals[k]))
		}
		bytes[0] += accepts * 180
		bytes[1] += accepts * 940
		queries := totals[3]
		flows := 5200 * wave(2) / 1.2
		lines = append(lines, fmt.Sprintf(`# METRIC thurward_drops_total{drop_reason="no_matching_allow_rule"} %.0f`, drops*0.9), fmt.Sprintf(`# METRIC thurward_drops_total{drop_reason="explicit_deny"} %.0f`, drops*0.1),
			fmt.Sprintf(`# METRIC thurward_conntrack_entries %.0f`, flows), `# METRIC thurward_conntrack_capacity 262144`, fmt.Sprintf(`# METRIC thurward_conntrack_inserts_total %.0f`, totals[9]/12),
			fmt.Sprintf(`# METRIC thurward_interface_receive_bytes_total{interface="lan"} %.0f`, bytes[0]), fmt.Sprintf(`# METRIC thurward_interface_receive_bytes_total{interface="wan"} %.0f`, bytes[1]),
			fmt.Sprintf(`# METRIC thurward_interface_receive_packets_total{interface="lan"} %.0f`, totals[9]), fmt.Sprintf(`# METRIC thurward_interface_receive_packets_total{interface="wan"} %.0f`, totals[12]),
			fmt.Sprintf(`# METRIC thurward_nat_port_pool_in_use{external_ip="198.51.100.2",proto="tcp"} %.0f`, flows*0.6), `# METRIC thurward_nat_port_pool_size{external_ip="198.51.100.2",proto="tcp"} 55536`,
			fmt.Sprintf(`# METRIC thurward_nat_port_pool_in_use{external_ip="198.51.100.2",proto="udp"} %.0f`, flows*0.1), `# METRIC thurward_nat_port_pool_size{external_ip="198.51.100.2",proto="udp"} 55536`,
			fmt.Sprintf(`# METRIC thurward_packet_loop_busy_seconds_total %.2f`, float64(i)*1.1),
			fmt.Sprintf(`# METRIC thurward_dns_queries_total{outcome="answered"} %.0f`, queries*0.9), fmt.Sprintf(`# METRIC thurward_dns_queries_total{outcome="nxdomain"} %.0f`, queries*0.08), fmt.Sprintf(`# METRIC thurward_dns_queries_total{outcome="blocked"} %.0f`, queries*0.02),
			"# METRIC # TYPE thurward_dns_lookup_duration_seconds histogram", fmt.Sprintf(`# METRIC thurward_dns_lookup_duration_seconds_bucket{le="0.001"} %.0f`, queries*0.3), fmt.Sprintf(`# METRIC thurward_dns_lookup_duration_seconds_bucket{le="0.025"} %.0f`, queries*0.9),
			fmt.Sprintf(`# METRIC thurward_dns_lookup_duration_seconds_bucket{le="0.1"} %.0f`, queries*0.98), fmt.Sprintf(`# METRIC thurward_dns_lookup_duration_seconds_bucket{le="+Inf"} %.0f`, queries), fmt.Sprintf(`# METRIC thurward_dns_lookup_duration_seconds_count %.0f`, queries),
			fmt.Sprintf(`# METRIC thurward_fqdn_set_size %.0f`, 350*wave(4)), "# METRIC thurward_vsock_send_queue_depth 0", "# METRIC thurward_vsock_dropped_lines_total 0", "# METRIC # EOF")
		feed(m, s, at, lines...)
	}
	names := []string{"telemetry.example", "ads.example", "tracker.example", "cdn.ads.example"}
	for i := range 160 {
		at := now.Add(time.Duration(i-160) * 700 * time.Millisecond)
		stamp := at.UTC().Format("2006-01-02T15:04:05.000000Z")
		switch i % 5 {
		case 0, 2:
			feed(m, s, at, fmt.Sprintf(`{"@timestamp":%q,"event.action":"accept","event.reason":"rule","rule.id":"staff-web","source.ip":"10.20.1.%d","source.port":%d,"destination.ip":"198.51.100.%d","destination.port":443,"network.transport":"tcp","network.direction":"egress","destination.domain":"www.example.org","source.nat.ip":"198.51.100.2","source.nat.port":%d}`, stamp, 10+i%23, 40000+i, 80+i%7, 40000+i))
		case 1:
			feed(m, s, at, fmt.Sprintf(`{"@timestamp":%q,"event.action":"drop","event.reason":"no_matching_allow_rule","rule.id":"default-reject","source.ip":"10.20.1.%d","source.port":%d,"destination.ip":"192.0.2.%d","destination.port":8443,"network.transport":"tcp","network.direction":"egress","destination.domain":%q,"firewall.count":%d}`, stamp, 10+i%9, 50000+i, 7+i%40, names[i/5%4], 1+i%6))
		case 3:
			feed(m, s, at, fmt.Sprintf(`{"@timestamp":%q,"event.action":"drop","event.reason":"explicit_deny","rule.id":"servers-rest","source.ip":"10.20.3.1%d","source.port":%d,"destination.ip":"203.0.113.%d","destination.port":22,"network.transport":"tcp","network.direction":"egress"}`, stamp, i%3, 50000+i, 7+i%40))
		default:
			feed(m, s, at, fmt.Sprintf(`{"@timestamp":%q,"event.action":"accept","event.reason":"rule","rule.id":"mail-in","source.ip":"203.0.113.%d","source.port":%d,"destination.ip":"10.20.3.20","destination.port":25,"network.transport":"tcp","network.direction":"ingress"}`, stamp, 1+i%200, 30000+i))
		}
	}
	return m
}

// branch returns who may reach what by examples/branch.yaml, of which the demonstration is.
func branch() (any, error) {
	const file = "../../../examples/branch.yaml"
	src, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	p, ds := check.Load(file, src)
	if p == nil {
		return nil, fmt.Errorf("%v", ds)
	}
	rs, err := compile.Compile(p)
	if err != nil {
		return nil, err
	}
	m, err := matrix.Compute(p, rs)
	if err != nil {
		return nil, err
	}
	return m.Tables(false), nil
}

// TestScreenshots writes the pictures of docs/images into the folder that
// PAGE_SCREENSHOTS names; pngquant (64 colours) then makes them small.
func TestScreenshots(t *testing.T) {
	dir := os.Getenv("PAGE_SCREENSHOTS")
	if dir == "" {
		t.Skip("PAGE_SCREENSHOTS names no folder")
	}
	b := newBrowser(t)
	address, session := served(t, demonstration(time.Now()))
	for _, c := range []struct{ name, view, size, scheme string }{
		{"page", "&range=3600", "1280,900", "1"}, {"page-policy", "&view=policy", "1280,690", "1"},
		{"page-reach", "&view=reach", "1280,900", "1"}, {"page-rule", "&view=rule&key=staff-web&range=3600", "1280,820", "1"}, {"page-dark", "&range=3600", "1280,900", "0"},
	} {
		b.run(address+"#token="+session+c.view, "--blink-settings=preferredColorScheme="+c.scheme, "--window-size="+c.size, "--hide-scrollbars", "--screenshot="+filepath.Join(dir, c.name+".png"))
	}
}
