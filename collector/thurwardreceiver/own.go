package thurwardreceiver

import (
	"context"
	"time"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.uber.org/zap"

	"github.com/thurward/thurward/internal/host/dashboard"
	"github.com/thurward/thurward/internal/host/ingest"
)

// ownMetrics are the receiver's metrics about itself, in the collector's own
// telemetry.
type ownMetrics struct {
	lines, malformedLines, dropped metric.Int64Counter
	cuts                           metric.Int64Counter
	open                           metric.Int64UpDownCounter
	kinds                          map[ingest.Kind]metric.MeasurementOption
	signals                        map[string]metric.MeasurementOption
	warnings                       *dashboard.Throttle[zap.Field]
}

func newOwnMetrics(set component.TelemetrySettings) (*ownMetrics, error) {
	m := set.MeterProvider.Meter("github.com/thurward/thurward/collector/thurwardreceiver")
	o := &ownMetrics{kinds: map[ingest.Kind]metric.MeasurementOption{}, signals: map[string]metric.MeasurementOption{}}
	var err error
	if o.lines, err = m.Int64Counter("otelcol_receiver_thurward_lines",
		metric.WithUnit("{line}"), metric.WithDescription("Lines that firewalls sent, by kind.")); err != nil {
		return nil, err
	}
	if o.malformedLines, err = m.Int64Counter("otelcol_receiver_thurward_malformed_lines",
		metric.WithUnit("{line}"), metric.WithDescription("Lines that could not be read and were kept as raw log records.")); err != nil {
		return nil, err
	}
	if o.dropped, err = m.Int64Counter("otelcol_receiver_thurward_dropped_items",
		metric.WithUnit("{item}"), metric.WithDescription("Events, snapshots of metrics, or spans that no pipeline took, by signal.")); err != nil {
		return nil, err
	}
	if o.cuts, err = m.Int64Counter("otelcol_receiver_thurward_connections_cut",
		metric.WithUnit("{connection}"), metric.WithDescription("Connections that were cut off, because they are not a firewall's.")); err != nil {
		return nil, err
	}
	if o.open, err = m.Int64UpDownCounter("otelcol_receiver_thurward_connections",
		metric.WithUnit("{connection}"), metric.WithDescription("Connections of firewalls that are open.")); err != nil {
		return nil, err
	}
	for k := ingest.EventKind; k <= ingest.Malformed; k++ {
		o.kinds[k] = metric.WithAttributes(attribute.String("kind", k.String()))
	}
	for _, s := range []string{"logs", "metrics", "traces"} {
		o.signals[s] = metric.WithAttributes(attribute.String("signal", s))
	}
	return o, nil
}

func (o *ownMetrics) line(k ingest.Kind) {
	o.lines.Add(context.Background(), 1, o.kinds[k])
	if k == ingest.Malformed {
		o.malformedLines.Add(context.Background(), 1)
	}
}

func (o *ownMetrics) drop(signal string, n int) {
	if n == 0 {
		return
	}
	if o.warnings != nil { // for those who do not read the collector's own metrics
		o.warnings.About(time.Now(), signal, "data of a firewall was dropped; further losses are only counted",
			zap.String("signal", signal), zap.Int("items", n))
	}
	o.dropped.Add(context.Background(), int64(n), o.signals[signal])
}

func (o *ownMetrics) dropper(signal string) func(int) { return func(n int) { o.drop(signal, n) } }

func (o *ownMetrics) connections(n int64) { o.open.Add(context.Background(), n) }

func (o *ownMetrics) cut(n int64) { o.cuts.Add(context.Background(), n) }
