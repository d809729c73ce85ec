package thurwardreceiver

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/component/componentstatus"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/receiver"
	"go.opentelemetry.io/collector/receiver/receiverhelper"
	"go.uber.org/zap"

	"github.com/thurward/thurward/internal/host/dashboard"
	"github.com/thurward/thurward/internal/host/ingest"
	"github.com/thurward/thurward/internal/host/policyview"
)

// thurward is the receiver: one for the pipelines of all signals.
type thurward struct {
	cfg         *Config
	set         receiver.Settings
	log         *zap.Logger
	nextLogs    consumer.Logs // nil: no pipeline wants them
	nextMetrics consumer.Metrics
	nextTraces  consumer.Traces
	obs         *receiverhelper.ObsReport
	own         *ownMetrics
	forget      func()
	model       *dashboard.Model
	hub         *ingest.Hub
	known       *known
	series      *ledger
	memory      *memory
	converting  sync.Mutex

	mu      sync.Mutex
	users   int // pipelines that have started it
	cancel  context.CancelFunc
	running sync.WaitGroup
}

func newReceiver(cfg *Config, set receiver.Settings, forget func()) (*thurward, error) {
	obs, err := receiverhelper.NewObsReport(receiverhelper.ObsReportSettings{
		ReceiverID: set.ID, Transport: "vsock", ReceiverCreateSettings: set,
	})
	if err != nil {
		return nil, err
	}
	own, err := newOwnMetrics(set.TelemetrySettings)
	if err != nil {
		return nil, err
	}
	return &thurward{cfg: cfg, set: set, log: set.Logger, obs: obs, own: own, forget: forget}, nil
}

// Start listens and serves. It is called once for each pipeline; calls after the
// first do nothing.
func (r *thurward) Start(_ context.Context, host component.Host) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.users > 0 {
		r.users++
		return nil
	}
	on, err := r.listen()
	if err != nil {
		return err
	}
	r.users = 1
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel, r.model, r.known = cancel, dashboard.NewModel(), newKnown()
	if len(r.cfg.Policies) > 0 {
		files := &policyview.Finder{Files: r.cfg.Policies, Say: func(format string, a ...any) { r.log.Warn(fmt.Sprintf(format, a...)) }}
		r.model.Know(&dashboard.Policies{Look: files.Find})
	}
	r.hub = &ingest.Hub{Snapshot: r.model.Snapshot}
	r.series, r.memory = newLedger(r.cfg.MaxSeries), &memory{total: r.cfg.QueueMiB << 20}
	run := func(what string, f func() error) {
		r.running.Go(func() {
			if err := f(); err != nil && ctx.Err() == nil {
				componentstatus.ReportStatus(host, componentstatus.NewFatalErrorEvent(fmt.Errorf("%s: %w", what, err)))
			}
		})
	}
	h := r.handler(ctx)
	for _, l := range on.guests {
		run("listening for firewalls", func() error { return h.Serve(ctx, l) })
		r.log.Info("listening for firewalls", zap.Stringer("address", l.Addr()))
	}
	if on.tail != nil {
		run("listening for followers", func() error { return r.hub.Serve(ctx, on.tail) })
		r.log.Info("thurward events and thurward top may follow", zap.Stringer("address", on.tail.Addr()))
	}
	if on.page != nil {
		run("the page", func() error { return on.page.Serve(ctx, r.model) })
		r.log.Info("the web page is up", zap.String("url", on.page.URL()))
	}
	r.running.Go(func() { r.heartbeat(ctx) })
	return nil
}

// handler returns the functions for connections of firewalls.
func (r *thurward) handler(ctx context.Context) *ingest.Handler {
	warnings := &dashboard.Throttle[zap.Field]{Say: func(what string, f ...zap.Field) { r.log.Warn(what, f...) }}
	r.own.warnings = warnings
	return &ingest.Handler{
		Begin:  func(s *ingest.Source) { r.begin(ctx, s) },
		Item:   r.item,
		Closed: r.closed,
		Names:  r.cfg.claims,
		Cut: func(s *ingest.Source, why error) {
			r.own.cut(1)
			warnings.About(time.Now(), s.Peer, "a firewall was cut off",
				zap.String("firewall", r.cfg.instance(&s.Hello)), zap.String("peer", s.Peer), zap.Error(why))
		},
		Refuse: func(peer string, why error) {
			warnings.About(time.Now(), peer, "a connection was refused", zap.String("peer", peer), zap.Error(why))
		},
	}
}

// sockets are the listeners of a receiver.
type sockets struct {
	guests []net.Listener
	tail   net.Listener        // nil: none
	page   *dashboard.OpenPage // nil: none
}

func (s *sockets) close() {
	for _, l := range append(s.guests, s.tail) {
		if l != nil {
			l.Close()
		}
	}
	if s.page != nil {
		s.page.Close()
	}
}

// listen opens all sockets, or none.
func (r *thurward) listen() (*sockets, error) {
	s := &sockets{}
	var errs []error
	open := func(l net.Listener, err error) net.Listener {
		if err != nil {
			errs = append(errs, err)
			return nil
		}
		return l
	}
	for _, a := range r.cfg.Listen {
		s.guests = append(s.guests, open(ingest.Listen(a)))
	}
	if r.cfg.Tail != "" {
		s.tail = open(ingest.Listen(r.cfg.Tail))
	}
	if r.cfg.Page != "" {
		web, err := r.cfg.web()
		if err == nil {
			s.page, err = dashboard.Open(r.cfg.Page, web, false, r.cfg.PageToken, rand.Reader)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("page: %w", err))
		}
	}
	if err := errors.Join(errs...); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// Shutdown stops the receiver at the first call, though there is one for each
// pipeline: the components behind the first pipeline stop next, and those of the
// others may stop before their call. Data that was read is sent to the pipelines
// before.
func (r *thurward) Shutdown(ctx context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.users == 0 {
		return nil
	}
	r.users = 0
	r.cancel()
	ended := make(chan struct{})
	go func() { r.running.Wait(); close(ended) }()
	r.forget()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
