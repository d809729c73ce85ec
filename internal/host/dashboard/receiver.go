package dashboard

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net"
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

	Model *Model
	Hub   *ingest.Hub
	guest net.Listener
	tail  net.Listener
	page  *OpenPage
}

// Open begins to listen. If an address is in use the error wraps
// ingest.ErrInUse.
func (r *Receiver) Open() error {
	r.Model, r.Hub = NewModel(), &ingest.Hub{}
	r.Model.more = r.More
	r.Model.Know(r.Policies)
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
		if r.page, err = Open(r.Page, r.Web, r.Insecure, r.Token, rand.Reader); err != nil {
			r.Close()
			return fmt.Errorf("the page: %w", err)
		}
	}
	return nil
}

// PageURL returns the page's URL, "" if there is none.
func (r *Receiver) PageURL() string {
	if r.page == nil {
		return ""
	}
	return r.page.URL()
}

// MetricsURL returns the URL of the metrics for Prometheus, "" if there is none.
func (r *Receiver) MetricsURL() string {
	if r.page == nil {
		return ""
	}
	return r.page.MetricsURL()
}

// AsksItself reports whether the page's clients show a token; otherwise the web
// configuration, or the page's socket, decides who they are.
func (r *Receiver) AsksItself() bool { return r.page != nil && len(r.page.access.Tokens) > 0 }

// Close closes the listeners, as Run does at its end.
func (r *Receiver) Close() {
	for _, l := range []net.Listener{r.guest, r.tail} {
		if l != nil {
			l.Close()
		}
	}
	if r.page != nil {
		r.page.Close()
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
		run("page", func() error { return r.page.Serve(ctx, r.Model) })
	}
	wg.Wait()
	return failed
}
