package dashboard

import (
	"context"
	"crypto/rand"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/thurward/thurward/internal/host/ingest"
	"github.com/thurward/thurward/internal/host/ingest/guesttest"
)

// TestPageInBrowser: a real browser runs the page under its content security
// policy, draws the plots and tables, and does not take text of a firewall for markup.
func TestPageInBrowser(t *testing.T) {
	chromium, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("chromium is missing (apt-get install chromium)")
	}
	const evil = `<img src=x onerror=document.title=1>`
	m, now := NewModel(), time.Now()
	for _, wan := range []string{"203.0.113.10/24", "203.0.113.20/24"} {
		g, s := &guesttest.Guest{Boot: wan, WAN: wan, Start: now.Add(-time.Hour)}, &ingest.Source{}
		for i := range 6 {
			at := now.Add(time.Duration(i-6) * 10 * time.Second)
			feed(m, s, at, append([]string{g.Hello(at)}, g.Snapshot()...)...)
			feed(m, s, at, g.Event(at), g.Event(at))
			feed(m, s, at, `{"@timestamp":"2026-11-24T12:00:00Z","event.action":"drop","event.reason":"explicit_deny","rule.id":"`+evil+`","source.ip":"10.0.0.9","destination.ip":"1.1.1.1","destination.domain":"`+evil+`","network.transport":"tcp","network.direction":"egress"}`)
		}
	}
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
	defer srv.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	// Without a sandbox, since tests run as root in containers; the page is ours.
	browse := func(url string) string {
		t.Helper()
		cmd := exec.CommandContext(ctx, chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--user-data-dir="+t.TempDir(),
			"--virtual-time-budget=4000", "--dump-dom", url)
		cmd.WaitDelay = 5 * time.Second
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("chromium: %v", err)
		}
		return string(out)
	}
	if dom := browse("http://" + l.Addr().String() + "/"); !strings.Contains(dom, `<section id="locked">`) || strings.Contains(dom, "203.0.113.10") {
		t.Errorf("without a token:\n%s", dom)
	}
	dom := browse(PageURL(l.Addr(), session))
	for _, want := range []string{
		"203.0.113.10 is connected, up 60 min", `aria-pressed="false">203.0.113.20</button>`, "<td>allow-established</td>", "<td>no_matching_allow_rule</td>",
		`<path class="line s1" d="M`, `aria-label="Throughput"`, "telemetry.example", `role="meter"`, "thurward explain --from lan --proto tcp",
		"&lt;img src=x onerror", "<title>thurward</title>",
	} {
		if !strings.Contains(dom, want) {
			t.Errorf("no %s", want)
		}
	}
	if n := strings.Count(dom, `<path class="line`); n != 7 {
		t.Errorf("%d lines are plotted, want 7", n)
	}
	if strings.Contains(dom, "<img") {
		t.Error("text from a firewall became markup")
	}
	if t.Failed() {
		t.Log(dom)
	}
}
