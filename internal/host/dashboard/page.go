package dashboard

import (
	"context"
	"crypto/tls"
	"embed"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"log"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/thurward/thurward/internal/host/ingest"
)

//go:embed page
var pageFiles embed.FS

// Bounds of clients of the page.
const (
	scrapes     = 2                      // expositions that are written at a time
	scrapeWait  = 5 * time.Second        // for one of them to end
	scrapeWrite = 20 * time.Second       // for a client to read one
	viewsKept   = 250 * time.Millisecond // between two renderings of the views
)

const contentSecurity = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; " +
	"img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

const tokenNeeded = "a token is needed: open the URL that thurward run or thurward-collector printed, " +
	"or send \"Authorization: Bearer\" with the token in the file that it named"

// Page serves the model: the web page at /, its data as JSON below /api/v1, the
// metrics at /metrics, and "ok" at /health. It changes nothing, and loads nothing from
// elsewhere. Data is served to those whom access allows. Requests must be for a name
// of loopback, so that a script of another site cannot read the page by making its
// own name resolve to loopback (DNS rebinding), unless access has AnyHost. now is the clock.
func (m *Model) Page(now func() time.Time, access Access) http.Handler {
	files, err := fs.Sub(pageFiles, "page")
	if err != nil {
		panic(err) // the files are part of the program
	}
	mux := http.NewServeMux()
	mux.Handle("GET /", http.FileServerFS(files))
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, "ok\n") //nolint:errcheck // the client has closed the connection
	})
	var api rendered
	mux.HandleFunc("GET /api/v1/firewalls", func(w http.ResponseWriter, r *http.Request) {
		b, err := api.get(now(), func(at time.Time) ([]byte, error) { return json.Marshal(m.Views(at)) })
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.Write(b) //nolint:errcheck // the client has closed the connection
	})
	mux.HandleFunc("GET /api/v1/rules", m.rules)
	mux.HandleFunc("GET /api/v1/detail", m.detail)
	mux.HandleFunc("GET /api/v1/reach", m.reach)
	slots := make(chan struct{}, scrapes)
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, r *http.Request) {
		late := time.NewTimer(scrapeWait)
		defer late.Stop()
		select {
		case slots <- struct{}{}:
			defer func() { <-slots }()
		case <-late.C:
			http.Error(w, "others are reading the metrics; try again", http.StatusServiceUnavailable)
			return
		case <-r.Context().Done():
			return
		}
		deadline := time.Now().Add(scrapeWrite)
		http.NewResponseController(w).SetWriteDeadline(deadline) //nolint:errcheck // the server's deadline stays
		w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
		m.WriteMetrics(w, now()) //nolint:errcheck // the client has closed the connection
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !access.AnyHost && !LocalHost(r.Host) {
			http.Error(w, "this page answers to 127.0.0.1, [::1] and localhost only", http.StatusForbidden)
			return
		}
		h := w.Header()
		h.Set("Content-Security-Policy", contentSecurity)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		if strings.HasPrefix(r.URL.Path, "/api/") || strings.HasPrefix(r.URL.Path, "/metrics") {
			h.Set("Cache-Control", "no-store")
			if !access.Allows(r) {
				h.Set("WWW-Authenticate", `Bearer realm="thurward"`)
				http.Error(w, tokenNeeded, http.StatusUnauthorized)
				return
			}
			if c, ok := r.Context().Value(pageConnKey{}).(*pageConn); ok {
				c.trust()
			}
		}
		mux.ServeHTTP(w, r)
	})
}

// rendered caches data for a short time, so that many clients cost little more than
// one.
type rendered struct {
	mu   sync.Mutex
	at   time.Time
	body []byte
}

func (c *rendered) get(now time.Time, render func(time.Time) ([]byte, error)) ([]byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if age := now.Sub(c.at); c.body != nil && age >= 0 && age < viewsKept {
		return c.body, nil
	}
	b, err := render(now)
	if err == nil {
		c.at, c.body = now, b
	}
	return b, err
}

// LocalHost reports whether a Host header is a name or address of loopback.
func LocalHost(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	if strings.EqualFold(host, "localhost") {
		return true
	}
	if n := len(host); n > 2 && host[0] == '[' && host[n-1] == ']' {
		host = host[1 : n-1]
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// CheckPage checks the address of a page. It must be a loopback address or a Unix
// socket, since the data is not for other hosts.
func CheckPage(address string) error {
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		if path == "" {
			return fmt.Errorf("%q: a path is missing (want unix:PATH)", address)
		}
		return nil
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return err
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil || !LocalHost(host) {
		return fmt.Errorf("%q is not a loopback address (want 127.0.0.1:PORT, [::1]:PORT or unix:PATH)", address)
	}
	return nil
}

// checkPort checks the port of an address.
func checkPort(address string) error {
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return err
	}
	if _, bad := strconv.ParseUint(port, 10, 16); bad != nil {
		return fmt.Errorf("%q: %q is no port", address, port)
	}
	return nil
}

// ListenPage listens on the address of a page. A Unix socket is for its owner only.
func ListenPage(address string) (net.Listener, error) {
	if err := CheckPage(address); err != nil {
		return nil, err
	}
	return listenPage(address)
}

// listenPage is ListenPage for an address that has been checked.
func listenPage(address string) (net.Listener, error) {
	if strings.HasPrefix(address, "unix:") {
		return ingest.Listen(address)
	}
	return net.Listen("tcp", address)
}

// Server returns an HTTP server of h that bounds time and memory of requests. It is
// for a listener of LimitPage.
func Server(h http.Handler) *http.Server {
	return &http.Server{
		Handler: h, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second,
		IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10,
		ErrorLog: log.New(io.Discard, "", 0), // faults of clients would fill the log
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			if t, ok := c.(*tls.Conn); ok {
				c = t.NetConn()
			}
			return context.WithValue(ctx, pageConnKey{}, c)
		},
	}
}
