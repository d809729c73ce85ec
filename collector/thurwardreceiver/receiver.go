package thurwardreceiver

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/component/componentstatus"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/receiver"
	"go.opentelemetry.io/collector/receiver/receiverhelper"
	"go.uber.org/zap"

	"github.com/thurward/thurward/internal/host/dashboard"
	"github.com/thurward/thurward/internal/host/ecs"
	"github.com/thurward/thurward/internal/host/ingest"
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
	var access dashboard.Access
	session := ""
	if on.page != nil {
		if access, session, err = dashboard.PageAccess(r.cfg.Page, r.cfg.PageToken, rand.Reader); err != nil {
			on.close()
			return err
		}
	}
	r.users = 1
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel, r.model, r.known = cancel, dashboard.NewModel(), newKnown()
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
		srv := dashboard.Server(r.model.Page(time.Now, access))
		context.AfterFunc(ctx, func() { srv.Close() })
		run("the page", func() error {
			if err := srv.Serve(dashboard.LimitPage(on.page)); !errors.Is(err, http.ErrServerClosed) {
				return err
			}
			return nil
		})
		r.log.Info("the web page is up", zap.String("url", dashboard.PageURL(on.page.Addr(), session)))
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
	guests     []net.Listener
	tail, page net.Listener // nil: none
}

func (s *sockets) close() {
	for _, l := range append(s.guests, s.tail, s.page) {
		if l != nil {
			l.Close()
		}
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
		l, err := dashboard.ListenPage(r.cfg.Page)
		if err != nil {
			err = fmt.Errorf("page: %w", err)
		}
		s.page = open(l, err)
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

// A conn is the state of one connection.
type conn struct {
	logs    *queue[record]
	metrics *queue[*dashboard.Snapshot]
	traces  *queue[ingest.Span]
	cancel  context.CancelFunc
	helloMu sync.Mutex
	hello   ingest.Hello // as the queues see it
	bad     int64
}

func (c *conn) who() *ingest.Hello {
	c.helloMu.Lock()
	defer c.helloMu.Unlock()
	h := c.hello
	return &h
}

// maxSnapshots is how many snapshots of a firewall wait for a pipeline that refuses.
// Since counters are cumulative, a lost snapshot loses no counts.
const maxSnapshots = 2

// begin starts the queues of a connection.
func (r *thurward) begin(ctx context.Context, s *ingest.Source) {
	ctx, cancel := context.WithCancel(ctx)
	c := &conn{cancel: cancel}
	if r.nextLogs != nil {
		c.logs = (&queue[record]{
			size: r.cfg.QueueSize, batch: r.cfg.BatchSize, wait: r.cfg.BatchTimeout,
			weigh: (*record).weight, share: &share{r.memory}, drop: r.own.dropper("logs"),
			give: func(ctx context.Context, b []record) error { return r.giveLogs(ctx, c.who(), b) },
		}).start(ctx)
	}
	if r.nextMetrics != nil {
		c.metrics = (&queue[*dashboard.Snapshot]{
			size: maxSnapshots, batch: 1, wait: time.Millisecond,
			weigh: func(**dashboard.Snapshot) int { return 0 }, share: &share{&memory{total: 1}}, drop: r.own.dropper("metrics"),
			give: func(ctx context.Context, b []*dashboard.Snapshot) error { return r.giveMetrics(ctx, c, b[0]) },
		}).start(ctx)
	}
	if r.nextTraces != nil {
		c.traces = (&queue[ingest.Span]{
			size: r.cfg.QueueSize, batch: r.cfg.BatchSize, wait: r.cfg.BatchTimeout,
			weigh: func(s *ingest.Span) int { return 256 + len(s.JSON) }, share: &share{r.memory}, drop: r.own.dropper("traces"),
			give: func(ctx context.Context, b []ingest.Span) error { return r.giveTraces(ctx, c, b) },
		}).start(ctx)
	}
	s.State = c
	r.own.connections(1)
}

// item handles one line.
func (r *thurward) item(s *ingest.Source, it ingest.Item) {
	now := time.Now()
	c := s.State.(*conn)
	r.own.line(it.Kind)
	r.hub.Publish(s, it)
	snap := r.model.Add(s, it, now)
	switch it.Kind {
	case ingest.HelloKind:
		c.helloMu.Lock()
		c.hello = s.Hello
		c.helloMu.Unlock()
		r.log.Info("a firewall is connected",
			zap.String("firewall", r.cfg.instance(&s.Hello)), zap.String("boot", s.Hello.Boot),
			zap.String("version", s.Hello.Fields.Str(ecs.ServiceVersion)), zap.String("policy", s.Hello.Fields.Str(ecs.Policy)))
		r.known.set(r.cfg.instance(&s.Hello), c, s.Hello, now)
		r.sendUp(r.cfg.instance(&s.Hello))
	case ingest.EventKind:
		if c.logs != nil {
			c.logs.put(r.cfg.newRecord(it, now))
		}
	case ingest.Malformed:
		r.known.malformed(r.cfg.instance(&s.Hello))
		if c.bad++; c.bad == 1 {
			r.log.Warn("a malformed line; it is kept as a log record, and further ones are counted",
				zap.String("firewall", r.cfg.instance(&s.Hello)), zap.Error(it.Err))
		}
		if c.logs != nil {
			c.logs.put(r.cfg.newRecord(it, now))
		}
	case ingest.EOFKind:
		if c.metrics != nil && snap != nil {
			c.metrics.put(snap)
		}
	case ingest.SpanKind:
		if c.traces != nil {
			c.traces.put(it.Span)
		}
	}
}

// closed sends the rest of the queues to the pipelines, with one attempt each, and waits
// for them.
func (r *thurward) closed(s *ingest.Source) {
	c := s.State.(*conn)
	r.hub.Gone(s)
	r.model.Gone(s)
	c.cancel()
	if c.logs != nil {
		<-c.logs.done
	}
	if c.metrics != nil {
		<-c.metrics.done
	}
	if c.traces != nil {
		<-c.traces.done
	}
	r.own.connections(-1)
	name := r.cfg.instance(&s.Hello)
	if r.known.gone(name, c) {
		r.log.Warn("a firewall has gone", zap.String("firewall", name))
		r.sendUp(name)
	}
}

func (r *thurward) giveLogs(ctx context.Context, h *ingest.Hello, b []record) error {
	ld := r.cfg.logs(h, b)
	ctx = r.obs.StartLogsOp(ctx)
	err := r.nextLogs.ConsumeLogs(ctx, ld)
	r.obs.EndLogsOp(ctx, Type.String(), len(b), err)
	return err
}

func (r *thurward) giveMetrics(ctx context.Context, c *conn, s *dashboard.Snapshot) error {
	// One at a time: a converted snapshot uses several times its memory, and all
	// firewalls may have one at once.
	r.converting.Lock()
	defer r.converting.Unlock()
	h := c.who()
	md, bad := r.cfg.metrics(h, s, r.series.of(r.cfg.instance(h), s.At()))
	n := md.DataPointCount()
	if n == 0 {
		r.own.drop("metrics", bad)
		return nil
	}
	ctx = r.obs.StartMetricsOp(ctx)
	err := r.nextMetrics.ConsumeMetrics(ctx, md)
	r.obs.EndMetricsOp(ctx, Type.String(), n, err)
	if bad > 0 && err == nil {
		r.own.drop("metrics", bad)
	}
	return err
}

func (r *thurward) giveTraces(ctx context.Context, c *conn, b []ingest.Span) error {
	td, bad := r.cfg.traces(c.who(), b)
	ctx = r.obs.StartTracesOp(ctx)
	var err error
	if bad < len(b) {
		err = r.nextTraces.ConsumeTraces(ctx, td)
	}
	r.obs.EndTracesOp(ctx, Type.String(), len(b)-bad, err)
	if bad > 0 && err == nil {
		r.own.drop("traces", bad)
	}
	return err
}
