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

// A Receiver reads guests' streams, keeps the model, forwards the lines to followers,
// and serves the page.
type Receiver struct {
	Guest string // address on which guests are connected, for ingest.Listen
	Tail  string // address for followers; "": none
	Page  string // address of the page, or unix:PATH; "": none
	// Web serves the page by a configuration; nil: plain HTTP. Without one that
	// authenticates the page is for loopback only, unless Insecure says otherwise.
	Web      *Web
	Insecure bool
	// Token is the file of a token for the page, made if it does not exist. "":
	// only the token in the page's URL is accepted.
	Token  string
	OnItem func(*ingest.Source, ingest.Item)
	// Policies are those whose rules the page shows in words; may be nil.
	Policies *Policies
	// More writes metrics of this process behind the firewalls'; may be nil.
	More func(io.Writer)
	// Say is called about connections that are refused or cut off; may be nil.
	Say func(format string, a ...any)

	Model  *Model
	Hub    *ingest.Hub
	guest  net.Listener
	tail   net.Listener
	page   net.Listener
	key    string // the session's token
	access Access
}

// Open begins to listen. If an address is in use the error wraps
// ingest.ErrInUse.
func (r *Receiver) Open() error {
	r.Model, r.Hub = NewModel(), &ingest.Hub{}
	r.Model.more, r.Model.policies = r.More, r.Policies
	r.Hub.Snapshot = r.Model.Snapshot
	var err error
	if r.guest, err = ingest.Listen(r.Guest); err != nil {
		return err
	}
	if r.Tail != "" {
		if r.tail, err = ingest.Listen(r.Tail); err != nil {
			r.Close()
			return err
		}
	}
	if r.Page != "" {
		if err = CheckPageFor(r.Page, r.Web, r.Insecure); err == nil {
			r.page, err = listenPage(r.Page)
		}
		if err != nil {
			r.Close()
			return fmt.Errorf("the page: %w", err)
		}
		if r.Web != nil && r.Web.Authenticates {
			r.access.Open = true
		} else if r.access, r.key, err = PageAccess(r.Page, r.Token, rand.Reader); err != nil {
			r.Close()
			return err
		}
		r.access.AnyHost = CheckPage(r.Page) != nil
	}
	return nil
}

// PageAccess returns who may read the page at an address: on a Unix socket those
// who may open it, otherwise those who have the session's token, which it returns
// too, or the token of a file, if one is named.
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

// PageURL returns the page's URL, "" if there is none. The token is in the
// fragment, which browsers do not send.
func (r *Receiver) PageURL() string {
	if r.page == nil {
		return ""
	}
	u := PageURL(r.page.Addr(), r.key)
	if r.Web != nil && r.Web.TLS {
		u = strings.Replace(u, "http:", "https:", 1)
	}
	return u
}

// PageURL returns the URL of a page with its session's token.
func PageURL(at net.Addr, session string) string {
	if at.Network() == "unix" {
		return "unix:" + at.String()
	}
	if session == "" {
		return "http://" + at.String() + "/"
	}
	return "http://" + at.String() + "/#token=" + session
}

// MetricsURL returns the URL of the metrics for Prometheus, "" if there is no page
// or it is on a Unix socket, from which Prometheus cannot read.
func (r *Receiver) MetricsURL() string {
	if r.page == nil || r.page.Addr().Network() == "unix" {
		return ""
	}
	if r.Web != nil && r.Web.TLS {
		return "https://" + r.page.Addr().String() + "/metrics"
	}
	return "http://" + r.page.Addr().String() + "/metrics"
}

// AsksItself reports whether the page's clients show a token; otherwise the web
// configuration, or the page's socket, decides who they are.
func (r *Receiver) AsksItself() bool { return len(r.access.Tokens) > 0 }

// Close closes the listeners, as Run does at its end.
func (r *Receiver) Close() {
	for _, l := range []net.Listener{r.guest, r.tail, r.page} {
		if l != nil {
			l.Close()
		}
	}
}

// Run serves until ctx ends, and returns nil then. OnItem is called from one
// goroutine for each connection.
func (r *Receiver) Run(ctx context.Context) error {
	defer r.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	h := &ingest.Handler{
		Item: func(src *ingest.Source, it ingest.Item) {
			r.Model.Add(src, it, time.Now())
			r.Hub.Publish(src, it)
			if r.OnItem != nil {
				r.OnItem(src, it)
			}
		},
		Closed: func(src *ingest.Source) { r.Model.Gone(src); r.Hub.Gone(src) },
	}
	if r.Say != nil {
		log := &Throttle[any]{Say: r.Say}
		h.Cut = func(src *ingest.Source, why error) {
			log.About(time.Now(), src.Peer, "the stream of %s (%s) was cut off: %v", src.Hello.Name(), src.Peer, why)
		}
		h.Refuse = func(peer string, why error) {
			log.About(time.Now(), peer, "a connection of %s is not taken: %v", peer, why)
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
	run("guests", func() error { return h.Serve(ctx, r.guest) })
	if r.tail != nil {
		run("followers", func() error { return r.Hub.Serve(ctx, r.tail) })
	}
	if r.page != nil {
		srv := Server(r.Model.Page(time.Now, r.access))
		stop := context.AfterFunc(ctx, func() { srv.Close() })
		defer stop()
		run("page", func() error {
			serve := func(l net.Listener, s *http.Server) error { return s.Serve(l) }
			if r.Web != nil {
				serve = r.Web.Serve
			}
			if err := serve(LimitPage(r.page), srv); !errors.Is(err, http.ErrServerClosed) {
				return err
			}
			return nil
		})
	}
	wg.Wait()
	return failed
}
