package export

import (
	"strconv"

	"github.com/thurward/thurward/internal/shared/event"
)

// appendAdjusted appends the fields of a correction of the clock.
func appendAdjusted(b []byte, r *event.Record) []byte {
	b = append(b, `","event.kind":"event","event.category":["host"],"event.type":["change"],"event.action":"clock-adjusted",`...)
	b = append(b, `"event.outcome":"success","event.reason":"clock_jumped","firewall.clock_adjustment_ns":`...)
	return strconv.AppendInt(b, r.Duration, 10)
}

// appendLate appends the fields of batches of packets that took too long.
func appendLate(b []byte, r *event.Record) []byte {
	b = append(b, `","event.kind":"event","event.category":["host"],"event.type":["info"],"event.action":"packets-late",`...)
	b = append(b, `"event.outcome":"failure","event.reason":"late_batch","event.duration":`...)
	b = strconv.AppendInt(b, r.Duration, 10)
	b = append(b, `,"firewall.count":`...)
	return strconv.AppendUint(b, r.Packets, 10)
}
