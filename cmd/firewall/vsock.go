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
		{Name: "thurward_vsock_resets_total",
			Help: "Times that the vsock device was reset and set up again.",
			Type: export.Counter, Fill: func(x []uint64) { x[0] = v.Counters().Renewals }},
		{Name: "thurward_vsock_ignored_bytes_total",
			Help: "Bytes that the host sent, which are discarded.",
			Type: export.Counter, Fill: func(x []uint64) { x[0] = v.Counters().RxIgnored }},
	}
}

// metrics returns the metrics of the network devices, which the packet loop owns.
func (p *ports) metrics() []export.Family {
	side := export.LabelOf("interface", func(i int) string { return [...]string{"lan", "wan"}[i&1] })
	per := func(name, help string, typ export.MetricType, of func(n *virtio.Net) uint64) export.Family {
		return export.Family{Name: name, Help: help, Type: typ, N: 2, Labels: side,
			Fill: func(v []uint64) { v[0], v[1] = of(p.lan), of(p.wan) }}
	}
	flag := func(b bool) uint64 {
		if b {
			return 1
		}
		return 0
	}
	return []export.Family{
		per("thurward_interface_up",
			"1 while the device works and its link is up.",
			export.Gauge, func(n *virtio.Net) uint64 { return flag(n.LinkUp() && n.Stopped() == "") }),
		per("thurward_interface_receive_malformed_total",
			"Received frames that violate the negotiated features.",
			export.Counter, func(n *virtio.Net) uint64 { return n.Counters().RxMalformed }),
		per("thurward_interface_receive_completed_total",
			"Received frames whose checksums the firewall completed (checksum offload).",
			export.Counter, func(n *virtio.Net) uint64 { return n.Counters().RxCompleted }),
		per("thurward_interface_receive_large_total",
			"Large TCP segments received (segmentation offload).",
			export.Counter, func(n *virtio.Net) uint64 { return n.Counters().RxLarge }),
		per("thurward_interface_transmit_large_total",
			"Large TCP segments sent.",
			export.Counter, func(n *virtio.Net) uint64 { return n.Counters().TxLarge }),
		per("thurward_interface_receive_no_buffer_total",
			"Times that the receive queue could not be refilled, or that a received frame found no buffer.",
			export.Counter, func(n *virtio.Net) uint64 { return n.Counters().RxNoBuffer }),
		per("thurward_interface_interrupts_total",
			"Interrupts of the device.", export.Counter, func(n *virtio.Net) uint64 { return n.Counters().Interrupts }),
		per("thurward_interface_notifies_total",
			"Notifications to the device, each an exit to the host.",
			export.Counter, func(n *virtio.Net) uint64 { return n.Counters().Notifies }),
		per("thurward_interface_transmit_kicks_total",
			"Times that the transmit queue made no progress for 100 ms, and the device was notified again.",
			export.Counter, func(n *virtio.Net) uint64 { return n.Counters().TxKicks }),
		per("thurward_interface_resets_total",
			"Times that the device was reset and set up again.",
			export.Counter, func(n *virtio.Net) uint64 { return n.Counters().Renewals }),
		per("thurward_interface_lost_frames_total",
			"Frames that were under way when the device was reset; those to send may have been sent.",
			export.Counter, func(n *virtio.Net) uint64 { return n.Counters().RxLost + n.Counters().TxLost }),
		per("thurward_device_violations_total",
			"Violations of virtio by the device; each has it reset.", export.Counter, func(n *virtio.Net) uint64 {
				c := n.Counters()
				return c.BadIndex + c.BadID + c.BadLength
			}),
	}
}
