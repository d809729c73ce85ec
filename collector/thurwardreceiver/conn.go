package thurwardreceiver

import (
	"context"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/thurward/thurward/internal/host/dashboard"
	"github.com/thurward/thurward/internal/host/ecs"
	"github.com/thurward/thurward/internal/host/ingest"
)

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
