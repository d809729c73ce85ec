package main

import (
	"encoding/binary"

	"github.com/thurward/thurward/internal/guest/export"
	"github.com/thurward/thurward/internal/guest/sys"
	"github.com/thurward/thurward/internal/guest/virtio"
)

const vsockDevice = 19 // virtio device type

// openVsock opens the machine's vsock device. Without one, or if it does not work, the
// firewall forwards all the same, and reports it once.
func (o *outlet) openVsock(secret [32]byte) bool {
	devices := sys.Devices(vsockDevice)
	if len(devices) == 0 {
		say("note: the machine has no vsock device; events, metrics and spans are not sent")
		return false
	}
	v, err := virtio.OpenVsock(transport(devices[0]), dma, binary.LittleEndian.Uint32(secret[:])>>1)
	if err != nil {
		say("note: events, metrics and spans are not sent: " + err.Error())
		return false
	}
	o.vsock, o.bit, o.resets = v, 1<<devices[0].Bit, v.WatchResets()
	return true
}

// renew looks at the vsock device, and sets it up again if it was given up; see ports.renew.
func (o *outlet) renew(now int64) {
	v := o.vsock
	if v == nil {
		return
	}
	if now >= o.look {
		o.look = now + lookEvery
		v.Look()
		v.Kick()
	}
	why := v.Stopped()
	if why == "" || !o.renewal.due(now) {
		return
	}
	if o.renewal.news(why) {
		say("the vsock device has stopped: " + why)
	}
	if err := v.Renew(); err != nil {
		if o.renewal.news(err.Error()) {
			say("the vsock device cannot be set up again: " + err.Error())
		}
		return
	}
	o.renewal.worked(now)
	say("the vsock device was reset and works again")
}

// A link is the stream's connection over vsock.
type link struct {
	v    *virtio.Vsock
	port uint32
}

func (l link) Poll()          { l.v.Poll() }
func (l link) Connect()       { l.v.Connect(l.port) }
func (l link) Close()         { l.v.Close() }
func (l link) Buffer() []byte { return l.v.Buffer() }
func (l link) Send(n int)     { l.v.Send(n) }
func (l link) Flush()         { l.v.Flush() }

func (l link) State() export.LinkState {
	switch l.v.State() {
	case virtio.Open:
		return export.LinkOpen
	case virtio.Connecting:
		return export.LinkConnecting
	}
	return export.LinkClosed
}

// vsockMetrics returns the metrics of the vsock device, which the outlet's goroutine owns.
func vsockMetrics(v *virtio.Vsock) []export.Family {
	causes := [...]string{"malformed", "credit", "unasked", "device"}
	return []export.Family{
		{Name: "thurward_vsock_connected",
			Help: "1 while a receiver is connected.",
			Type: export.Gauge, Fill: func(x []uint64) {
				if x[0] = 0; v.State() == virtio.Open {
					x[0] = 1
				}
			}},
		{Name: "thurward_vsock_refused_total",
			Help: "Invalid packets of the host, and violations of virtio by the device, by kind.",
			Type: export.Counter, N: len(causes),
			Labels: export.LabelOf("kind", func(i int) string { return causes[i] }), Fill: func(x []uint64) {
				c := v.Counters()
				x[0], x[1], x[2], x[3] = c.BadPacket, c.BadCredit, c.Unasked, c.BadIndex+c.BadID+c.BadLength
			}},
		{Name: "thurward_vsock_transmit_kicks_total",
			Help: "Times that what is sent over vsock made no progress for a second, and the device was notified again.",
			Type: export.Counter, Fill: func(x []uint64) { x[0] = v.Counters().TxKicks }},
		{Name: "thurward_vsock_resets_total",
			Help: "Times that the vsock device was reset and set up again.",
			Type: export.Counter, Fill: func(x []uint64) { x[0] = v.Counters().Renewals }},
		{Name: "thurward_vsock_ignored_bytes_total",
			Help: "Bytes that the host sent, which are discarded.",
			Type: export.Counter, Fill: func(x []uint64) { x[0] = v.Counters().RxIgnored }},
	}
}
