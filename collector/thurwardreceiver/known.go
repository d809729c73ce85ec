package thurwardreceiver

import (
	"context"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/thurward/thurward/internal/host/ingest"
)

// Bounds of the firewalls that are remembered after their disconnection.
const (
	maxKnown     = 256
	forgetAfter  = 24 * time.Hour
	heartbeatGap = 10 * time.Second
)

// known keeps the firewalls that have connected, so that the metric thurward_up is 0
// for one that has disconnected.
type known struct {
	mu        sync.Mutex
	firewalls map[string]*state
}

type state struct {
	hello       ingest.Hello
	conn        *conn // nil: disconnected
	since, last time.Time
	malformed   int64
}

func newKnown() *known { return &known{firewalls: map[string]*state{}} }

// set records a connection.
func (k *known) set(name string, c *conn, h ingest.Hello, now time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	s := k.firewalls[name]
	if s == nil {
		if len(k.firewalls) >= maxKnown {
			oldest := ""
			for n, s := range k.firewalls {
				if o := k.firewalls[oldest]; o == nil || s.last.Before(o.last) {
					oldest = n
				}
			}
			delete(k.firewalls, oldest)
		}
		s = &state{since: now}
		k.firewalls[name] = s
	}
	s.hello, s.conn, s.last = h, c, now
}

func (k *known) malformed(name string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if s := k.firewalls[name]; s != nil {
		s.malformed++
	}
}

// gone records the end of a connection, and reports whether it was the firewall's last
// one.
func (k *known) gone(name string, c *conn) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	s := k.firewalls[name]
	if s == nil || s.conn != c {
		return false
	}
	s.conn, s.last = nil, time.Now()
	return true
}

// names returns the firewalls, without those that disconnected long ago.
func (k *known) names(now time.Time) (names []string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for n, s := range k.firewalls {
		if s.conn == nil && now.Sub(s.last) > forgetAfter {
			delete(k.firewalls, n)
			continue
		}
		names = append(names, n)
	}
	return names
}

// get returns a firewall.
func (k *known) get(name string) (s state, ok bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if p := k.firewalls[name]; p != nil {
		return *p, true
	}
	return state{}, false
}

// sendUp sends a firewall's thurward_up to the metrics pipeline. If that refuses, the
// next heartbeat sends it again.
func (r *thurward) sendUp(name string) {
	s, ok := r.known.get(name)
	if !ok || r.nextMetrics == nil {
		return
	}
	md := r.cfg.up(&s.hello, s.conn != nil, s.malformed, s.since, time.Now())
	ctx := r.obs.StartMetricsOp(context.Background())
	err := r.nextMetrics.ConsumeMetrics(ctx, md)
	r.obs.EndMetricsOp(ctx, Type.String(), md.DataPointCount(), err)
	if err != nil {
		r.log.Debug("the metrics pipeline refuses", zap.Error(err))
	}
}

// heartbeat sends thurward_up of all firewalls periodically.
func (r *thurward) heartbeat(ctx context.Context) {
	t := time.NewTicker(heartbeatGap)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			for _, n := range r.known.names(time.Now()) {
				r.sendUp(n)
			}
		case <-ctx.Done():
			return
		}
	}
}
