package netlab

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"
)

// A Request is one request as a server saw it.
type Request struct {
	Time   time.Time
	Source netip.AddrPort // as it arrived: after any translation on the way
	What   string         // path of an HTTP request, name of a DNS question
}

// A journal is a list of requests, safe for concurrent use.
type journal struct {
	mu   sync.Mutex
	seen []Request
}

// Bounds of a journal: the oldest requests beyond maxJournal are removed, and texts
// cut to maxWhat bytes.
const (
	maxJournal = 10_000
	maxWhat    = 256
)

func (j *journal) add(source net.Addr, what string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(what) > maxWhat {
		what = strings.Clone(what[:maxWhat])
	}
	if len(j.seen) >= 2*maxJournal {
		j.seen = append([]Request(nil), j.seen[maxJournal:]...)
	}
	j.seen = append(j.seen, Request{Time: time.Now(), Source: addrPort(source), What: what})
}

// Requests returns the requests so far, oldest first.
func (j *journal) Requests() []Request {
	j.mu.Lock()
	defer j.mu.Unlock()
	return append([]Request(nil), j.seen...)
}

// A Web is an HTTP server. It answers
//
//	/          with a line that names the client's address as the server sees it
//	/bytes/N   with the first N bytes of Pattern
//	/meet/N    when N requests for it are under way at the same time
type Web struct {
	*Host
	journal
	rooms rooms
}

// ServeHTTP answers one request.
func (w *Web) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	source, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		http.Error(rw, err.Error(), http.StatusInternalServerError)
		return
	}
	w.add(net.TCPAddrFromAddrPort(source), r.URL.Path)
	var n int64
	switch {
	case r.URL.Path == "/":
		fmt.Fprintf(rw, "hello from %v, you are %v\n", w.Addr, source)
	case scan(r.URL.Path, "/bytes/", &n):
		rw.Header().Set("Content-Length", strconv.FormatInt(n, 10))
		io.CopyN(rw, Pattern(), n) //nolint:errcheck // the client sees a short body
	case scan(r.URL.Path, "/meet/", &n):
		if err := w.rooms.meet(r, int(n)); err != nil {
			http.Error(rw, err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintf(rw, "%d met\n", n)
	default:
		http.NotFound(rw, r)
	}
}

func scan(path, prefix string, n *int64) bool {
	if len(path) <= len(prefix) || path[:len(prefix)] != prefix {
		return false
	}
	v, err := strconv.ParseUint(path[len(prefix):], 10, 40)
	*n = int64(v)
	return err == nil
}

// Pattern returns an endless stream of bytes that do not repeat and are the
// same every time.
func Pattern() io.Reader {
	return rand.NewChaCha8([32]byte([]byte("thurward: a pattern to transfer.")))
}

// PatternDigest returns the SHA-256 of the first n bytes of Pattern in hex.
func PatternDigest(n int64) string {
	h := sha256.New()
	io.CopyN(h, Pattern(), n) //nolint:errcheck // neither side can fail
	return hex.EncodeToString(h.Sum(nil))
}

// rooms let requests wait for each other.
type rooms struct {
	mu   sync.Mutex
	here map[int]int
	full map[int]chan struct{}
}

// meet returns once n requests have called it with the same n.
func (m *rooms) meet(r *http.Request, n int) error {
	m.mu.Lock()
	if m.here == nil {
		m.here, m.full = map[int]int{}, map[int]chan struct{}{}
	}
	if m.full[n] == nil {
		m.full[n] = make(chan struct{})
	}
	full := m.full[n]
	if m.here[n]++; m.here[n] >= n {
		close(full)
		delete(m.here, n)
		delete(m.full, n)
	}
	m.mu.Unlock()
	select {
	case <-full:
		return nil
	case <-r.Context().Done():
		return r.Context().Err()
	}
}
