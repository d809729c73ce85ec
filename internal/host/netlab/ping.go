package netlab

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// Ping sends one ICMP echo request (RFC 792) to dst and returns how long the
// reply took. It fails when ctx ends.
func (h *Host) Ping(ctx context.Context, dst netip.Addr) (time.Duration, error) {
	var wq waiter.Queue
	ep, e := h.stack.NewEndpoint(icmp.ProtocolNumber4, ipv4.ProtocolNumber, &wq)
	if e != nil {
		return 0, fmt.Errorf("%s: pinging %v: %s", h.Name, dst, e)
	}
	defer ep.Close()
	entry, ready := waiter.NewChannelEntry(waiter.ReadableEvents)
	wq.EventRegister(&entry)
	defer wq.EventUnregister(&entry)
	if e := ep.Connect(full(netip.AddrPortFrom(dst, 0))); e != nil {
		return 0, fmt.Errorf("%s: pinging %v: %s", h.Name, dst, e)
	}
	start := time.Now()
	body := binary.BigEndian.AppendUint64(nil, uint64(start.UnixNano()))
	// The stack fills in identifier and checksum.
	echo := append([]byte{byte(header.ICMPv4Echo), 0, 0, 0, 0, 0, 0, 1}, body...)
	if _, e := ep.Write(bytes.NewReader(echo), tcpip.WriteOptions{}); e != nil {
		return 0, fmt.Errorf("%s: pinging %v: %s", h.Name, dst, e)
	}
	for {
		var b bytes.Buffer
		_, e := ep.Read(&b, tcpip.ReadOptions{})
		switch e.(type) {
		case nil:
			m := header.ICMPv4(b.Bytes())
			if len(m) >= header.ICMPv4MinimumSize && m.Type() == header.ICMPv4EchoReply && bytes.Equal(m[header.ICMPv4MinimumSize:], body) {
				return time.Since(start), nil
			}
		case *tcpip.ErrWouldBlock:
			select {
			case <-ready:
			case <-ctx.Done():
				return 0, fmt.Errorf("%s: pinging %v: no reply: %w", h.Name, dst, ctx.Err())
			}
		default:
			return 0, fmt.Errorf("%s: pinging %v: %s", h.Name, dst, e)
		}
	}
}
