package live

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/thurward/thurward/internal/stream"
)

// A Station is a whole receiver in one process: it reads guests, keeps the
// picture, passes the lines on to followers, and serves the page.
type Station struct {
	Guest  string // address on which guests are connected, for stream.Listen
	Tail   string // address for followers; "": none
	Page   string // loopback address of the page; "": none
	OnItem func(*stream.Source, stream.Item)

	Model *Model
	Hub   *stream.Hub
	guest net.Listener
	tail  net.Listener
	page  net.Listener
}

// Open begins to listen. An address that is in use is an error that wraps
// stream.ErrInUse.
func (s *Station) Open() error {
	s.Model, s.Hub = NewModel(), &stream.Hub{}
	var err error
	if s.guest, err = stream.Listen(s.Guest); err != nil {
		return err
	}
	if s.Tail != "" {
		if s.tail, err = stream.Listen(s.Tail); err != nil {
			s.Close()
			return err
		}
	}
	if s.Page != "" {
		if s.page, err = ListenPage(s.Page); err != nil {
			s.Close()
			return fmt.Errorf("the page: %w", err)
		}
	}
	return nil
}

// PageURL returns where the page is, "" when there is none.
func (s *Station) PageURL() string {
	if s.page == nil {
		return ""
	}
	return "http://" + s.page.Addr().String() + "/"
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
	h := &stream.Handler{
		Item: func(src *stream.Source, it stream.Item) {
			s.Model.Add(src, it, time.Now())
			s.Hub.Publish(src, it)
			if s.OnItem != nil {
				s.OnItem(src, it)
			}
		},
		Closed: func(src *stream.Source) { s.Model.Gone(src); s.Hub.Gone(src) },
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
		srv := Server(s.Model.Page(time.Now))
		stop := context.AfterFunc(ctx, func() { srv.Close() })
		defer stop()
		run("page", func() error {
			if err := srv.Serve(s.page); !errors.Is(err, http.ErrServerClosed) {
				return err
			}
			return nil
		})
	}
	wg.Wait()
	return failed
}
