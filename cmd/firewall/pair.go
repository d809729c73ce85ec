package main

import (
	"github.com/thurward/thurward/internal/guest/export"
	"github.com/thurward/thurward/internal/guest/router"
	"github.com/thurward/thurward/internal/guest/virtio"
	"github.com/thurward/thurward/internal/shared/ruleset"
)

// A pair is what one worker has of both network devices: a pair of queues of each.
type pair struct {
	lan, wan       *virtio.Net
	lanBit, wanBit uint64 // in the result of sys.Wait
	shared         bool   // an interrupt stands for the queues of all workers
	kicked         int64  // time of the next Kick
}

// config returns the configuration of an interface.
func (p *pair) config(r ruleset.Role) router.PortConfig {
	n := p.lan
	if r == ruleset.WAN {
		n = p.wan
	}
	mac, _ := n.MAC()
	takes, sends := n.Large()
	return router.PortConfig{Role: r, Port: n, MAC: mac, MTU: n.MTU(), LargeIn: takes, LargeOut: sends}
}

// arm enables interrupts and reports whether work is waiting already.
func (p *pair) arm() bool { return p.lan.Arm() || p.wan.Arm() }

// disarm disables them: the worker polls.
func (p *pair) disarm() {
	p.lan.Disarm()
	p.wan.Disarm()
}

// ack acknowledges interrupts, and reports whether the first worker is to look at the devices'
// configuration.
func (p *pair) ack(bits uint64) (news bool) {
	if bits&p.lanBit != 0 {
		news = p.lan.Ack()
	}
	if bits&p.wanBit != 0 {
		news = p.wan.Ack() || news
	}
	return news
}

// due reports whether it is time to look for interrupts and to kick the devices: a loop that
// never sleeps would not see them.
func (p *pair) due(now int64) bool {
	if now < p.kicked {
		return false
	}
	p.kicked = now + kickEvery
	return true
}

// kick kicks both devices.
func (p *pair) kick() {
	p.lan.Kick()
	p.wan.Kick()
}

// metrics returns the metrics of the queues, which their worker owns.
func (p *pair) metrics() []export.Family {
	per := func(name, help string, of func(c *virtio.NetCounters) uint64) export.Family {
		return export.Family{Name: name, Help: help, Type: export.Counter, N: 2, Labels: sideLabels,
			Fill: func(v []uint64) { v[0], v[1] = of(p.lan.Counters()), of(p.wan.Counters()) }}
	}
	return []export.Family{
		per("thurward_interface_receive_malformed_total",
			"Received frames that violate the negotiated features.", func(c *virtio.NetCounters) uint64 { return c.RxMalformed }),
		per("thurward_interface_receive_completed_total",
			"Received frames whose checksums the firewall completed (checksum offload).",
			func(c *virtio.NetCounters) uint64 { return c.RxCompleted }),
		per("thurward_interface_receive_large_total",
			"Large TCP segments received (segmentation offload).", func(c *virtio.NetCounters) uint64 { return c.RxLarge }),
		per("thurward_interface_transmit_large_total",
			"Large TCP segments sent.", func(c *virtio.NetCounters) uint64 { return c.TxLarge }),
		per("thurward_interface_receive_no_buffer_total",
			"Times that the receive queue could not be refilled, or that a received frame found no buffer.",
			func(c *virtio.NetCounters) uint64 { return c.RxNoBuffer }),
		per("thurward_interface_interrupts_total",
			"Interrupts of the device.", func(c *virtio.NetCounters) uint64 { return c.Interrupts }),
		per("thurward_interface_notifies_total",
			"Notifications to the device, each an exit to the host.", func(c *virtio.NetCounters) uint64 { return c.Notifies }),
		per("thurward_interface_transmit_kicks_total",
			"Times that the transmit queue made no progress for 100 ms, and the device was notified again.",
			func(c *virtio.NetCounters) uint64 { return c.TxKicks }),
		per("thurward_interface_resets_total",
			"Times that the device was reset and set up again.", func(c *virtio.NetCounters) uint64 { return c.Renewals }),
		per("thurward_interface_lost_frames_total",
			"Frames that were under way when the device was reset; those to send may have been sent.",
			func(c *virtio.NetCounters) uint64 { return c.RxLost + c.TxLost }),
		per("thurward_device_violations_total",
			"Violations of virtio by the device; each has it reset.",
			func(c *virtio.NetCounters) uint64 { return c.BadIndex + c.BadID + c.BadLength }),
	}
}

// sideLabels are the labels of values for LAN and WAN.
var sideLabels = export.LabelOf("interface", func(i int) string { return [...]string{"lan", "wan"}[i&1] })

// metrics returns the metrics of the network devices, which the first worker owns.
func (p *ports) metrics() []export.Family {
	up := func(n *virtio.Net) uint64 {
		if n.LinkUp() && n.Stopped() == "" {
			return 1
		}
		return 0
	}
	return []export.Family{{Name: "thurward_interface_up",
		Help: "1 while the device works and its link is up.",
		Type: export.Gauge, N: 2, Labels: sideLabels,
		Fill: func(v []uint64) { v[0], v[1] = up(p.lan), up(p.wan) }}}
}
