package hostile

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/thurward/thurward/internal/host/ingest"
	"github.com/thurward/thurward/internal/host/ingest/guesttest"
)

// worst lets ten captured guests take up what they can of a real launcher, again
// and again something else, while somebody scrapes; then its memory is looked at.
func worst(t *testing.T) {
	l := launch(t, "honest", launchOptions{args: []string{"--page", "127.0.0.1:0"}})
	l.await("the page", func() bool { return strings.Contains(l.said(), "/#token=") })
	_, rest, _ := strings.Cut(l.said(), "page ")
	url, rest, _ := strings.Cut(rest, "/#token=")
	token, _, _ := strings.Cut(rest, " ")
	var wg sync.WaitGroup
	for g := range 10 {
		wg.Go(func() {
			c, err := guesttest.Conn(ingest.GuestSocket(l.socket), newMachine())
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			c.SetDeadline(time.Now().Add(60 * time.Second)) //nolint:errcheck // a test
			w := bufio.NewWriter(c)
			fmt.Fprintf(w, `# HELLO {"service.instance.id":"b%d","firewall.wan.address":"198.51.100.%d/24"}`+"\n", g, g)
			for round := range 2 {
				fmt.Fprint(w, "# METRIC # SNAPSHOT x\n")
				for i := range 50000 {
					fmt.Fprintf(w, "# METRIC thurward_rule_accepts_total{rule_id=\"%d-%0*d\"} 1%s\n", round, ingest.MaxLabelValue-2, i, strings.Repeat(" ", 20))
				}
				fmt.Fprint(w, "# METRIC # EOF\n")
				for i := range 300 {
					fmt.Fprintf(w, `{"event.action":"drop","event.reason":"rule","source.ip":"10.0.0.%d","destination.domain":"%s"}`+"\n", i, strings.Repeat("n", 15000))
				}
				if err := w.Flush(); err != nil {
					t.Errorf("guest %d: %v", g, err)
					return
				}
			}
		})
	}
	for range 3 {
		r, err := http.NewRequest(http.MethodGet, url+"/metrics", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+token)
		a, err := (&http.Client{Timeout: 30 * time.Second}).Do(r)
		if err != nil {
			t.Fatal(err)
		}
		if a.Body.Close(); a.StatusCode != 200 {
			t.Errorf("metrics: %d", a.StatusCode)
		}
	}
	wg.Wait()
	l.small()
	l.end()
}

// scraper makes an attack of a local user on the page, after which the honest
// firewall, the page and a follower must be well, and its twin.
func scraper(name string, evil, honest func(*desk)) attack {
	run := func(f func(*desk)) func(*testing.T) {
		return func(t *testing.T) {
			d := newDesk(t)
			f(d)
			c, err := net.Dial("unix", ingest.TailSocket(d.path))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			c.SetDeadline(time.Now().Add(20 * time.Second)) //nolint:errcheck // a test
			follower := ingest.NewFollower(c)
			d.await("a follower", func() bool { return d.st.Hub.Followers() > 0 })
			d.unharmed()
			// The one that follows may be the attacker's: the event is sent until it is here.
			heard, over := make(chan struct{}), make(chan struct{})
			go func() {
				defer close(over)
				for {
					select {
					case <-heard:
						return
					case <-time.After(100 * time.Millisecond):
						d.send(d.good.Event(time.Now()))
					}
				}
			}()
			defer func() { close(heard); <-over }()
			for {
				s, it, err := follower.Next()
				if err != nil {
					t.Fatalf("a follower hears nothing: %v", err)
				}
				if it.Kind == ingest.EventKind && s.Hello.Name() == goodName {
					return
				}
			}
		}
	}
	return attack{"scraper/" + name, run(evil), run(honest)}
}

// raw opens a connection to the page and sends text.
func (d *desk) raw(text string) net.Conn {
	d.t.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(d.url, "http://"))
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { c.Close() })
	c.Write([]byte(text)) //nolint:errcheck // it may be closed already
	return c
}

// codes checks what is answered.
func codes(path, token string, want int) func(*desk) {
	return func(d *desk) {
		d.t.Helper()
		if code, _ := d.get(path, token); code != want {
			d.t.Errorf("%s: %d, want %d", path, code, want)
		}
	}
}

func init() {
	with := func(path string) func(*desk) {
		return func(d *desk) { codes(path, d.token, 200)(d) }
	}
	host := func(host string, want int) func(*desk) {
		return func(d *desk) {
			d.t.Helper()
			r, err := http.NewRequest(http.MethodGet, d.url+"/api/v1/firewalls", nil)
			if err != nil {
				d.t.Fatal(err)
			}
			r.Host = host
			r.Header.Set("Authorization", "Bearer "+d.token)
			a, err := http.DefaultClient.Do(r)
			if err != nil {
				d.t.Fatal(err)
			}
			if a.Body.Close(); a.StatusCode != want {
				d.t.Errorf("as %s: %d, want %d", host, a.StatusCode, want)
			}
		}
	}
	add(
		scraper("page-without-token", codes("/api/v1/firewalls", "", 401), with("/api/v1/firewalls")),
		scraper("metrics-without-token", codes("/metrics", "", 401), with("/metrics")),
		scraper("guessed-token", codes("/metrics", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", 401), with("/metrics")),
		scraper("token-in-query", func(d *desk) { codes("/metrics?token="+d.token, "", 401)(d) }, with("/metrics")),
		scraper("path-tricks", func(d *desk) {
			for _, p := range []string{"//metrics", "/x/../metrics", "/metrics/", "/%6detrics", "/api//v1/firewalls", "/page/../api/v1/firewalls"} {
				if code, body := d.get(p, ""); code == 200 || strings.Contains(body, goodName) {
					d.t.Errorf("%s: %d %.100s", p, code, body)
				}
			}
		}, codes("/app.js", "", 200)),
		scraper("rebound-name", host("evil.example", 403), host("localhost", 200)),
		scraper("rebound-name-with-loopback-in-it", host("127.0.0.1.evil.example", 403), host("[::1]:9464", 200)),
		scraper("reads-nothing", func(d *desk) {
			for range 10 {
				d.raw("GET /metrics HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer " + d.token + "\r\n\r\n")
			}
		}, with("/metrics")),
		scraper("many-connections", func(d *desk) {
			for range 300 {
				d.raw("GET /me")
			}
		}, func(d *desk) {
			for range 20 {
				with("/api/v1/firewalls")(d)
			}
		}),
		scraper("follower-reads-nothing", func(d *desk) {
			c, err := net.Dial("unix", ingest.TailSocket(d.path))
			if err != nil {
				d.t.Fatal(err)
			}
			d.t.Cleanup(func() { c.Close() })
			for range 200 {
				d.send(d.good.Snapshot()...)
			}
		}, func(d *desk) { d.send(d.good.Snapshot()...) }),
	)
}
