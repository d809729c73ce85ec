package live

import (
	"embed"
	"encoding/json"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"strconv"
	"time"
)

//go:embed page
var pageFiles embed.FS

// Page serves the model: the web page at /, its data as JSON at
// /api/v1/firewalls, the metrics at /metrics. It changes nothing and loads
// nothing from elsewhere. It answers only to loopback's names, so that no
// other site's script can read it by pointing its own name here (DNS
// rebinding). Times are now's.
func (m *Model) Page(now func() time.Time) http.Handler {
	files, err := fs.Sub(pageFiles, "page")
	if err != nil {
		panic(err) // the files are part of the program
	}
	mux := http.NewServeMux()
	mux.Handle("GET /", http.FileServerFS(files))
	mux.HandleFunc("GET /api/v1/firewalls", func(w http.ResponseWriter, _ *http.Request) {
		b, err := json.Marshal(m.Views(now()))
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		w.Write(b) //nolint:errcheck // the client has gone
	})
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
		m.WriteMetrics(w, now()) //nolint:errcheck // the client has gone
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !localHost(r.Host) {
			http.Error(w, "this page answers to 127.0.0.1, [::1] and localhost only", http.StatusForbidden)
			return
		}
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		mux.ServeHTTP(w, r)
	})
}

// localHost reports whether a request was made to a name of this host itself.
func localHost(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	if host == "localhost" {
		return true
	}
	if n := len(host); n > 2 && host[0] == '[' && host[n-1] == ']' {
		host = host[1 : n-1]
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// CheckPage checks the address of a page. Only loopback addresses are taken:
// what a firewall tells is not for everyone.
func CheckPage(address string) error {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return err
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil || !localHost(host) {
		return fmt.Errorf("%q is not a loopback address (want 127.0.0.1:PORT or [::1]:PORT)", address)
	}
	return nil
}

// ListenPage listens for Page.
func ListenPage(address string) (net.Listener, error) {
	if err := CheckPage(address); err != nil {
		return nil, err
	}
	return net.Listen("tcp", address)
}

// Server is an HTTP server of h with limits on what a client may take up.
func Server(h http.Handler) *http.Server {
	return &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10}
}
