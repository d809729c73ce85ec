package thurwardreceiver

import (
	"context"
	"sync"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/receiver"
)

// Type is the receiver's name in configurations.
var Type = component.MustNewType("thurward")

// NewFactory makes the receiver's factory.
func NewFactory() receiver.Factory {
	f := &shared{receivers: map[*Config]*thurward{}}
	return receiver.NewFactory(Type, func() component.Config { return defaultConfig() },
		receiver.WithLogs(func(_ context.Context, set receiver.Settings, c component.Config, next consumer.Logs) (receiver.Logs, error) {
			return f.get(c, set, func(r *thurward) { r.nextLogs = next })
		}, component.StabilityLevelBeta),
		receiver.WithMetrics(func(_ context.Context, set receiver.Settings, c component.Config, next consumer.Metrics) (receiver.Metrics, error) {
			return f.get(c, set, func(r *thurward) { r.nextMetrics = next })
		}, component.StabilityLevelBeta),
		receiver.WithTraces(func(_ context.Context, set receiver.Settings, c component.Config, next consumer.Traces) (receiver.Traces, error) {
			return f.get(c, set, func(r *thurward) { r.nextTraces = next })
		}, component.StabilityLevelBeta))
}

// shared makes one receiver for each configuration, since all three signals come from
// the same socket.
type shared struct {
	mu        sync.Mutex
	receivers map[*Config]*thurward
}

func (f *shared) get(c component.Config, set receiver.Settings, add func(*thurward)) (*thurward, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	cfg := c.(*Config)
	r := f.receivers[cfg]
	if r == nil {
		var err error
		if r, err = newReceiver(cfg, set, func() {
			f.mu.Lock()
			delete(f.receivers, cfg)
			f.mu.Unlock()
		}); err != nil {
			return nil, err
		}
		f.receivers[cfg] = r
	}
	add(r)
	return r, nil
}
