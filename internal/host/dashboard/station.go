package dashboard

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/thurward/thurward/internal/host/ingest"
)

// A Station is a whole receiver in one process: it reads guests, keeps the
// picture, passes the lines on to followers, and serves the page.
type Station struct {
	Guest string // address on which guests are connected, for ingest.Listen
	Tail  string // address for followers; "": none
	Page  string // loopback address of the page, or unix:PATH; "": none
	// Token is the file of the token with which the page may be read; it is
	// made if it is not there. "": only that of the URL will do.
	Token  string
	OnItem func(*ingest.Source, ingest.Item)
	// Say tells of firewalls that are refused or cut off, and why; nil: nobody.
	Say func(format string, a ...any)

	Model  *Model
	Hub    *ingest.Hub
	guest  net.Listener
	tail   net.Listener
	page   net.Listener
	key    string // the session's token
	access Access
}

// Open begins to listen. An address that is in use is an error that wraps
// ingest.ErrInUse.
func (s *Station) Open() error {
	s.Model, s.Hub = NewModel(), &ingest.Hub{}
	s.Hub.Snapshot = s.Model.Snapshot
	var err error
	if s.guest, err = ingest.Listen(s.Guest); err != nil {
		return err
	}
	if s.Tail != "" {
		if s.tail, err = ingest.Listen(s.Tail); err != nil {
			s.Close()
			return err
		}
	}
	if s.Page != "" {
		if s.page, err = ListenPage(s.Page); err != nil {
			s.Close()
			return fmt.Errorf("the page: %w", err)
		}
		if s.access, s.key, err = PageAccess(s.Page, s.Token, rand.Reader); err != nil {
			s.Close()
			return err
		}
	}
	return nil
}

// PageAccess returns who may read the page at an address: on a Unix socket who
// may open it, otherwise who has the session's token, which it returns, or that
// of a file, if one is named.
func PageAccess(address, file string, random io.Reader) (a Access, session string, err error) {
	if strings.HasPrefix(address, "unix:") {
		return Access{Open: true}, "", nil
	}
	if session, err = NewToken(random); err != nil {
		return Access{}, "", err
	}
	a.Tokens = []string{session}
	if file != "" {
		t, err := TokenFile(file, random)
		if err != nil {
			return Access{}, "", err
		}
		a.Tokens = append(a.Tokens, t)
	}
	return a, session, nil
}

// PageURL returns where the page is, "" when there is none. The token is in
// the fragment, which browsers keep to themselves.
func (s *Station) PageURL() string {
	if s.page == nil {
		return ""
	}
	return PageURL(s.page.Addr(), s.key)
}

// PageURL returns the URL of a page with its session's token.
func PageURL(at net.Addr, session string) string {
	if at.Network() == "unix" {
		return "unix:" + at.String()
	}
	return "http://" + at.String() + "/#token=" + session
}

// MetricsURL returns where Prometheus finds the metrics, "" when there is no
// page or it is on a Unix socket, which Prometheus does not read.
func (s *Station) MetricsURL() string {
	if s.page == nil || s.page.Addr().Network() == "unix" {
		return ""
	}
	return "http://" + s.page.Addr().String() + "/metrics"
}

// Close ends listening; Run does it, too.
func (s *Station) Close() {
	for _, l := range []net.Listener{s.guest, s.tail, s.page} {
		if l != nil {
			l.Close()
		}
	}
}

// Run works until ctx ends, and returns nil then. OnItem is called by several
// goroutines, one for each connection.
func (s *Station) Run(ctx context.Context) error {
	defer s.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	h := &ingest.Handler{
		Item: func(src *ingest.Source, it ingest.Item) {
			s.Model.Add(src, it, time.Now())
			s.Hub.Publish(src, it)
			if s.OnItem != nil {
				s.OnItem(src, it)
			}
		},
		Closed: func(src *ingest.Source) { s.Model.Gone(src); s.Hub.Gone(src) },
	}
	if s.Say != nil {
		said := &Rarely[any]{Say: s.Say}
		h.Cut = func(src *ingest.Source, why error) {
			said.Of(time.Now(), src.Peer, "the stream of %s (%s) was cut off: %v", src.Hello.Name(), src.Peer, why)
		}
		h.Refuse = func(peer string, why error) {
			said.Of(time.Now(), peer, "a connection of %s is not taken: %v", peer, why)
		}
	}
	var wg sync.WaitGroup
	var once sync.Once
	var failed error
	run := func(what string, f func() error) {
		wg.Go(func() {
			if err := f(); err != nil && ctx.Err() == nil {
				once.Do(func() { failed = fmt.Errorf("%s: %w", what, err) })
				cancel()
			}
		})
	}
	run("guests", func() error { return h.Serve(ctx, s.guest) })
	if s.tail != nil {
		run("followers", func() error { return s.Hub.Serve(ctx, s.tail) })
	}
	if s.page != nil {
		srv := Server(s.Model.Page(time.Now, s.access))
		stop := context.AfterFunc(ctx, func() { srv.Close() })
		defer stop()
		run("page", func() error {
			if err := srv.Serve(LimitPage(s.page)); !errors.Is(err, http.ErrServerClosed) {
				return err
			}
			return nil
		})
	}
	wg.Wait()
	return failed
}

// A Rarely says things about someone at most once in a while, since what it
// says follows from what they do. It is safe for concurrent use.
type Rarely[T any] struct {
	Say func(what string, more ...T)

	mu   sync.Mutex
	last map[string]time.Time
}

// Bounds of Rarely.
const (
	rarely    = 30 * time.Second
	maxRarely = 256
)

// Of says something about who.
func (r *Rarely[T]) Of(now time.Time, who, what string, more ...T) {
	r.mu.Lock()
	last, ok := r.last[who]
	if ok && now.Sub(last) < rarely {
		r.mu.Unlock()
		return
	}
	if r.last == nil || len(r.last) >= maxRarely {
		r.last = map[string]time.Time{}
	}
	r.last[who] = now
	r.mu.Unlock()
	r.Say(what, more...)
}
