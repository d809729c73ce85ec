package main

import (
	"encoding/hex"
	"net/netip"
	"runtime"
	"sync/atomic"

	"github.com/thurward/thurward/internal/guest/export"
	"github.com/thurward/thurward/internal/guest/sys"
	"github.com/thurward/thurward/internal/guest/virtio"
	"github.com/thurward/thurward/internal/shared/event"
	"github.com/thurward/thurward/internal/shared/ruleset"
)

// telemetryPort is the host's vsock port to which the stream goes, unless an argument names another.
const telemetryPort = 9000

// An outlet sends the firewall's telemetry: the stream over vsock, and events on the
// console. It has a goroutine of its own, which the packet loop wakes when it is due.
type outlet struct {
	stream  *export.Stream
	rings   event.Rings
	team    *team
	console *console
	ctx     *export.Context // also the stream's and the console's
	wall    *wallClock
	resets  virtio.ResetWatch // the packet loop's
	renewal renewal           // of the vsock device
	look    int64             // when its status is looked at next
	vsock   *virtio.Vsock     // nil: the machine has none
	bit     uint64            // vsock's, in the result of sys.Wait
	signal  chan struct{}
	news    atomic.Bool  // vsock has interrupted
	changed atomic.Bool  // its configuration may have changed
	rush    atomic.Bool  // the packet loop is busy
	turn    atomic.Int64 // when lines are next rendered although it is
	busy    atomic.Bool  // there is more to do at once
	next    atomic.Int64 // when it must run even if nothing happens; 0: at once
}

// newOutlet opens the vsock device, if there is one, and makes the stream with all metrics.
func newOutlet(
	p *ruleset.Policy, t *team, rings event.Rings, n *ports, w *wallClock, args arguments, secret [32]byte,
) *outlet {
	base, source := sys.WallBase()
	ctx := export.Context{Policy: p, WallBase: base, Clock: source, Tracer: tracer(p, secret)}
	o := &outlet{rings: rings, team: t, signal: make(chan struct{}, 1), ctx: &ctx, wall: w}
	o.console = newConsole(&ctx, rings, args.events)
	cfg := export.StreamConfig{Rings: rings, Context: &ctx, NoFlowEnd: p.Settings.Flags&ruleset.FlagNoFlowEnd != 0, Metrics: &export.Metrics{}, Local: &export.Metrics{},
		Identity: identity(p, n, secret)}
	cfg.Metrics.Add(export.Const("thurward_build_info", "The build and the policy that run.", buildLabels(p)),
		export.Const("thurward_clock_info", "Where the time of day comes from.", string(export.Label(nil, true, "source", source))),
		uptime(), starved(), processors(true), processors(false), bounded(), refused(), t.count())
	cfg.Metrics.AddSums(t.parts(), t.all[0].families(len(t.all))...)
	cfg.Metrics.Add(n.metrics()...)
	if o.openVsock(secret) {
		cfg.Link = link{o.vsock, args.vsockPort}
		cfg.Local.Add(vsockMetrics(o.vsock)...)
	}
	if args.events {
		cfg.Tap, cfg.Records = o.console.add, o.console.chunk
	}
	o.stream = export.NewStream(cfg)
	return o
}

// tracer chooses spans and their ids.
func tracer(p *ruleset.Policy, secret [32]byte) *export.Tracer {
	return export.NewTracer([16]byte(secret[:16]), p.Settings.SampleAccept, p.Settings.SampleDrop)
}

// bootID is the instance id of the stream.
func bootID(secret [32]byte) string { return hex.EncodeToString(secret[16:]) }

// moved has the stream go on as another instance, since another machine may have the same state.
// Only the packet loop calls it.
func (o *outlet) moved(secret [32]byte) {
	o.stream.Moved(bootID(secret), tracer(o.ctx.Policy, secret))
	o.next.Store(0)
}

// identity returns the description of this firewall for the stream.
func identity(p *ruleset.Policy, n *ports, secret [32]byte) export.Identity {
	side := func(r ruleset.Role, dev *virtio.Net) (id export.InterfaceIdentity) {
		mac, _ := dev.MAC()
		id.MAC = formatMAC(mac)
		if f := p.Interface(r); f != nil {
			id.Name = p.Text(f.Name)
			id.Address = netip.PrefixFrom(netip.AddrFrom16(f.Address).Unmap(), int(f.PrefixLen)).String()
		}
		return id
	}
	return export.Identity{Version: build.Version, GitSHA: build.Commit, Boot: bootID(secret), LAN: side(ruleset.LAN, n.lan), WAN: side(ruleset.WAN, n.wan),
		Rules: len(p.Rules), Flows: int(p.Settings.MaxFlows)}
}

func buildLabels(p *ruleset.Policy) string {
	b := export.Label(nil, true, "version", build.Version)
	b = export.Label(b, false, "git_sha", build.Commit)
	b = export.Label(b, false, "schema_sha", digestOrNone(build.Schema))
	return string(export.Label(b, false, "rules_sha", "sha256:"+hex.EncodeToString(p.Digest[:])))
}

// digestOrNone writes a SHA-256 as the stream does.
func digestOrNone(hex string) string {
	if hex == "" {
		return ""
	}
	return "sha256:" + hex
}

func uptime() export.Family {
	return export.Family{Name: "thurward_uptime_seconds", Help: "Time since boot.", Type: export.Gauge, Scale: 1e9,
		Fill: func(v []uint64) { v[0] = uint64(sys.Nanotime()) }}
}

func starved() export.Family {
	return export.Family{Name: "thurward_random_starved_total",
		Help: "Times that the machine's source of random numbers did not answer; the generator went on without.",
		Type: export.Counter, Fill: func(v []uint64) { v[0] = sys.Stats().Starved }}
}

func bounded() export.Family {
	return export.Family{Name: "thurward_devices_bounded", Help: "Devices that an IOMMU keeps to the memory that they are given; 0: there is no IOMMU.",
		Type: export.Gauge, Fill: func(v []uint64) { n, _ := sys.Bounded(); v[0] = uint64(n) }}
}

func refused() export.Family {
	return export.Family{Name: "thurward_dma_refused_total", Help: "Times that the IOMMU was seen to have refused accesses of a device, which the console names.",
		Type: export.Counter, Fill: func(v []uint64) { v[0] = sys.Stats().DMAFaults }}
}

// processors returns how many processors the kernel uses, or how many the machine lists.
func processors(inUse bool) export.Family {
	f := export.Family{Name: "thurward_processors", Help: "Processors that run the firewall.", Type: export.Gauge}
	if !inUse {
		f.Name, f.Help = "thurward_processors_listed", "Processors that the machine's tables list; 0: it has no such tables. The console says why some are not used."
	}
	f.Fill = func(v []uint64) {
		used, listed := sys.Processors()
		v[0] = uint64(used)
		if !inUse {
			v[0] = uint64(listed)
		}
	}
	return f
}

// wake wakes the goroutine.
func (o *outlet) wake() {
	select {
	case o.signal <- struct{}{}:
	default:
	}
}

// While there are packets, lines get a quarter of the time: after each turn the packet loop
// gets three times its duration, and at least packetTime.
const (
	packetShare = 3
	packetTime  = int64(200e3)
)

// pressing reports whether the goroutine gets a turn although there are packets: the ring
// fills faster than regular turns empty it, or lines have waited long enough.
func (o *outlet) pressing(now int64) bool {
	return o.rings.Full() || (o.rings.Len() > 0 || o.busy.Load()) && now >= o.turn.Load()
}

// due reports whether the goroutine has work now.
func (o *outlet) due(now int64) bool {
	return o.busy.Load() || o.rings.Len() > 0 || o.news.Load() || o.stream.Wanted() || now >= o.next.Load()
}

// interrupted handles the vsock device's interrupts.
func (o *outlet) interrupted(bits uint64) {
	if bits&sys.ConfigChanged != 0 {
		o.changed.Store(true)
	}
	if bits&(o.bit|sys.ConfigChanged) != 0 {
		o.news.Store(true)
	}
}

// snapshot records that the packet loops run, and takes a snapshot of the metrics if the stream
// has requested one. Only the first worker may call it.
func (o *outlet) snapshot() {
	if o.team.still {
		return // the host is to see that
	}
	o.stream.Alive()
	if o.stream.Wanted() && o.team.collect() {
		o.stream.Snapshot()
	}
}

// run works whenever it is woken. Between two steps the packet loop gets a turn.
func (o *outlet) run() {
	for range o.signal {
		for o.step() {
			runtime.Gosched()
		}
	}
}

// step does a bounded amount of work and reports whether there is more.
func (o *outlet) step() bool {
	if v := o.vsock; v != nil {
		if o.news.Swap(false) {
			v.Ack()
			if o.changed.Swap(false) {
				v.Changed()
			}
		}
		v.Disarm()
	}
	start := sys.Nanotime()
	o.renew(start)
	base, _ := sys.WallBase()
	o.ctx.Adjust(base, o.wall.set.Load())
	lines := !o.rush.Load() || start >= o.turn.Load()
	more := o.stream.Step(start, lines)
	o.console.flush(more)
	if end := sys.Nanotime(); lines {
		o.turn.Store(end + max(packetShare*(end-start), packetTime))
	}
	if v := o.vsock; v != nil && !more && v.Arm() {
		more = true
	}
	o.next.Store(o.nextStep())
	// The packet loop must take a snapshot first.
	wanted := o.stream.Wanted()
	o.busy.Store(more || wanted)
	return atOnce(more, wanted, lines, o.rings.Len() > 0)
}

// atOnce decides whether there is another step at once. There is more to do; but the packet loop
// must take a snapshot that is wanted, and a step without lines leaves what is to be sent to the
// turn that the packet loop gives it, so that only events are worth another one.
func atOnce(more, wanted, lines, events bool) bool { return more && !wanted && (lines || events) }

// nextStep returns when there must be a step even if nothing happens: when the stream wants one,
// and when the device is looked at, which may have missed a notification (see renew).
func (o *outlet) nextStep() int64 {
	next := o.stream.Next()
	if o.vsock != nil {
		next = min(next, o.look)
	}
	return next
}
