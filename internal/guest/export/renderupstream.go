package export

import (
	"strconv"

	"github.com/thurward/thurward/internal/shared/event"
)

// appendUpstream appends the upstream that failed, and the reason as text.
func appendUpstream(b []byte, r *event.Record, why []byte) []byte {
	b = appendEndpoint(b, `,"destination.ip":"`, `,"destination.port":`, r.Dst, r.DstPort, true)
	b = append(b, `,"network.transport":"tcp","network.iana_number":"`...)
	b = strconv.AppendUint(b, uint64(r.Proto), 10)
	b = append(b, `","network.type":"ipv4","network.protocol":"dns","network.direction":"`...)
	b = append(b, r.Direction.String()...)
	b = append(b, `","error.message":"`...)
	b = appendEscaped(b, why)
	return append(b, '"')
}
