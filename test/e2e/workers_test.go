package e2e

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/thurward/thurward/internal/host/ecs"
	"github.com/thurward/thurward/internal/host/netlab"
	"github.com/thurward/thurward/internal/host/vmm"
	"github.com/thurward/thurward/internal/shared/packet"
)

// Tests with several processors and as many pairs of queues. THURWARD_CPUS=2 has all tests of this
// package run so; these always do. Devices have several queues by TAP devices, which only root
// makes.

// workersPolicy lets the LAN out but for one port, and has a server on the LAN.
const workersPolicy = `
interfaces:
  lan0: { address: 10.0.0.1/24 }
  wan0: { address: 203.0.113.10/24, gateway: 203.0.113.1 }
defaults: { default_action: deny, fragments: reassemble }
nat:
  snat:
    - { out_interface: wan0, source: 10.0.0.0/24, masquerade: true }
  dnat:
    - { wan_ip: 203.0.113.10, wan_port: 8443, to: "10.0.0.3:8443", proto: tcp, hairpin: true }
rules:
  - { id: no-mail, action: deny, direction: egress, protocol: tcp, destination_port: 25 }
  - { id: out, action: accept, direction: egress }
  - { id: server, action: accept, direction: ingress, destination: 10.0.0.3, destination_port: 8443, protocol: tcp }
  - { id: answers, action: accept, direction: ingress, state: established }
`

// several makes a machine of n processors with as many pairs of queues.
func several(t *testing.T, n int, machine vmm.MachineType, more string) (*lab, *receiver) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root makes TAP devices, by which there are several queues")
	}
	r := newReceiver(t)
	r.listen()
	q, err := vmm.FindQEMU()
	if err != nil {
		t.Skip(err)
	}
	image := imageOf(t, workersPolicy)
	t.Setenv("THURWARD_CPUS", strconv.Itoa(n))
	l := newLabOn(t, q, false, func(c *vmm.Config) {
		c.Image, c.Machine, c.MemoryMB = image, machine, 128
		c.Vsock, c.Append, c.Log = vmm.Vsock{Path: r.path}, "thurward.events=none "+more, t.Logf
	})
	l.awaitReady()
	r.await("hello", func() bool { return len(r.lines) > 0 })
	return l, r
}

// digests serves connections: it answers all that comes until the client's end with its digest.
func digests(t *testing.T, h *netlab.Host, port uint16) {
	t.Helper()
	s, err := h.ListenTCP(port)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	go func() {
		for {
			c, err := s.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				sum := sha256.New()
				if _, err := io.Copy(sum, c); err == nil {
					c.Write(sum.Sum(nil)) //nolint:errcheck // the client notices
				}
			}()
		}
	}()
}

// exchange sends n bytes to a server of digests, and compares.
func exchange(ctx context.Context, h *netlab.Host, to netip.AddrPort, n, seed int) error {
	c, err := h.DialTCP(ctx, to)
	if err != nil {
		return err
	}
	defer c.Close()
	if d, ok := ctx.Deadline(); ok {
		c.SetDeadline(d) //nolint:errcheck // of a connection that works
	}
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*7 + seed + i>>9)
	}
	if _, err := c.Write(b); err != nil {
		return err
	}
	if w, ok := c.(interface{ CloseWrite() error }); ok {
		if err := w.CloseWrite(); err != nil {
			return err
		}
	}
	got, err := io.ReadAll(c)
	if want := sha256.Sum256(b); err == nil && !bytes.Equal(got, want[:]) {
		err = fmt.Errorf("%d bytes arrived otherwise than they were sent", n)
	}
	return err
}

// TestWorkers: with several processors and pairs of queues as many workers forward packets: 100
// connections at once by digest, queries, what is denied, datagrams in fragments, the way back in
// by the external address; and what events and metrics say of it agrees to the last packet.
func TestWorkers(t *testing.T) {
	for _, c := range []struct {
		name    string
		n       int
		machine vmm.MachineType
		more    string
		want    int
	}{
		{"2, MMIO", 2, vmm.Microvm, "", 2}, {"2, PCI", 2, vmm.Q35, "", 2}, {"4, PCI", 4, vmm.MicrovmPCI, "", 4},
		{"2, one wanted", 2, vmm.Microvm, "thurward.workers=1", 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			l, r := several(t, c.n, c.machine, c.more)
			l.through(t, r, c.want)
		})
	}
}

// through sends traffic through a machine with n workers.
func (l *lab) through(t *testing.T, r *receiver, n int) {
	digests(t, l.Web.Host, 9999)
	digests(t, l.Bob, 8443)
	ctx := bounded(t, 2*time.Minute)
	var wg sync.WaitGroup
	for i := range 100 {
		h := []*netlab.Host{l.Alice, l.Bob}[i&1]
		wg.Go(func() {
			if err := exchange(ctx, h, netip.AddrPortFrom(l.Web.Addr, 9999), 20_000+i*17, i); err != nil {
				t.Errorf("connection %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	asked := l.asked()
	for i := range 20 {
		if a, err := l.Alice.Resolve(ctx, l.DNS.Addr, l.WebName()); err != nil || a != l.Web.Addr {
			t.Errorf("query %d: %v, %v", i, a, err)
		}
	}
	for i := range 8 {
		if err := exchange(ctx, l.Alice, netip.AddrPortFrom(outside, 8443), 5000, i); err != nil {
			t.Errorf("by the external address: %v", err)
		}
	}
	for range 4 {
		if c, err := l.Bob.DialTCP(brief(t), netip.AddrPortFrom(l.Web.Addr, 25)); err == nil {
			c.Close()
			t.Error("connected to a port that is denied")
		}
	}
	l.fragmented(t)
	if t.Failed() {
		return
	}

	// A connection that ends loses the lines that are under way: those of all flows have come, both
	// directions of each.
	var accepts, denied int
	flows := map[any]bool{}
	begun := 100 + asked() + 8 + 1
	r.await("all events", func() bool {
		r.mu.Unlock()
		defer r.mu.Lock()
		es := r.events(map[string]any{ecs.EventAction: "accept"})
		accepts = len(es)
		for _, e := range es {
			flows[e[ecs.FlowID]] = true
		}
		denied = drops(r.events(map[string]any{ecs.EventAction: "drop", ecs.RuleID: "no-mail"}))
		return accepts >= 2*begun-1 && denied >= 4 // nobody answers the fragments
	})
	time.Sleep(2 * time.Second) // until what is merged has come, and retransmissions are over
	m, busy := r.busy()
	if m["thurward_workers"] != uint64(n) {
		t.Fatalf("%d workers, want %d", m["thurward_workers"], n)
	}
	sum := func(name string) (v uint64) {
		for series, x := range m {
			if s, _, _ := strings.Cut(series, "{"); s == name {
				v += x
			}
		}
		return v
	}
	denied = drops(r.events(map[string]any{ecs.EventAction: "drop", ecs.RuleID: "no-mail"}))
	all := drops(r.events(map[string]any{ecs.EventAction: "drop"}))
	if uint64(accepts+denied) != m["thurward_filter_decisions_total"] || uint64(all) != sum("thurward_drops_total") ||
		uint64(denied) != m[`thurward_rule_drops_total{rule_id="no-mail"}`] {
		t.Errorf("%d accepts, %d denied of %d decisions; %d drops, %d are counted",
			accepts, denied, m["thurward_filter_decisions_total"], all, sum("thurward_drops_total"))
	}
	if uint64(len(flows)) != m["thurward_conntrack_inserts_total"] {
		t.Errorf("events of %d flows, %d have begun", len(flows), m["thurward_conntrack_inserts_total"])
	}
	if len(flows) != begun || m["thurward_event_records_lost_total"] != 0 || m["thurward_vsock_dropped_lines_total"] != 0 {
		t.Errorf("%d flows, want %d; %d records and %d lines lost", len(flows), begun, m["thurward_event_records_lost_total"], m["thurward_vsock_dropped_lines_total"])
	}
	for series, v := range busy {
		if v == 0 {
			t.Errorf("%s is 0", series)
		}
	}
	if len(busy) != n {
		t.Errorf("busy: %v", busy)
	}
	for series, is := range r.fresh() { // nothing has happened since
		if was := m[series]; strings.HasPrefix(series, "thurward_worker_handed_over_total") && is != was {
			t.Errorf("%s: %d, then %d", series, was, is)
		}
	}
	for k := range n {
		if m[fmt.Sprintf(`thurward_worker_conntrack_entries{worker="%d"}`, k)] == 0 {
			t.Errorf("worker %d of %d has no flows", k, n)
		}
	}
	if all := sum("thurward_worker_conntrack_entries"); all != m["thurward_conntrack_entries"] {
		t.Errorf("the workers have %d flows, all together %d", all, m["thurward_conntrack_entries"])
	}
	if m["thurward_conntrack_capacity"] != 65536 {
		t.Errorf("room for %d flows", m["thurward_conntrack_capacity"])
	}
	l.told(t, n)
}

// busy is fresh, and returns how long each worker has been busy.
func (r *receiver) busy() (m map[string]uint64, busy map[string]float64) {
	r.t.Helper()
	busy = map[string]float64{}
	r.mu.Lock()
	others := r.saw
	r.saw = func(series string, v float64) {
		if others != nil {
			others(series, v)
		}
		if strings.HasPrefix(series, "thurward_worker_busy_seconds_total") {
			busy[series] = v
		}
	}
	r.mu.Unlock()
	m = r.fresh()
	r.mu.Lock()
	r.saw = others
	r.mu.Unlock()
	return m, busy
}

// asked returns what counts the ports of the LAN that have asked for names from now on: a port that
// the client takes twice, by chance, is one flow.
func (l *lab) asked() func() int {
	var mu sync.Mutex
	ports := map[uint16]bool{}
	l.LANSwitch.Tap(func(_ string, f []byte) {
		var p packet.Packet
		if packet.Type(f) != packet.TypeIPv4 {
			return
		}
		if _, bad := packet.ParseIPv4(f, &p); bad == 0 && p.Proto == packet.UDP && p.DstPort == 53 {
			mu.Lock()
			ports[p.SrcPort] = true
			mu.Unlock()
		}
	})
	return func() int { mu.Lock(); defer mu.Unlock(); return len(ports) }
}

// told looks for what the console says of the workers, and that it says nothing of trouble.
func (l *lab) told(t *testing.T, n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	found := n == 1
	for _, s := range l.lines {
		found = found || strings.Contains(s, "ready ") && strings.Contains(s, " workers="+strconv.Itoa(n))
		if strings.Contains(s, "has stopped") || strings.Contains(s, "crash") || strings.Contains(s, "has not polled") {
			t.Error(s)
		}
	}
	if !found {
		t.Errorf("the console does not say that there are %d workers", n)
	}
}

// fragmented sends a datagram in fragments, the last one first, and looks at what leaves.
func (l *lab) fragmented(t *testing.T) {
	t.Helper()
	got := make(chan int, 100)
	l.WANSwitch.Tap(func(_ string, f []byte) {
		if packet.Type(f) == packet.TypeIPv4 && f[packet.EthLen+9] == packet.UDP && net.IP(f[packet.EthLen+16:][:4]).Equal(net.IPv4(198, 51, 100, 80)) {
			got <- len(f) - packet.EthLen - packet.MinIPv4
		}
	})
	s := l.sprayer()
	fs := fragments(3000)
	for _, i := range []int{2, 1, 0} {
		s.p.Send(fs[i])
	}
	total := 0
	for range fs {
		select {
		case n := <-got:
			total += n
		case <-time.After(limit):
			t.Fatalf("%d bytes of a datagram in fragments left", total)
		}
	}
	if total != 3008 {
		t.Errorf("%d bytes of a datagram of 3008 left", total)
	}
}

// TestWorkersFaults: with two workers a device that resets itself, or asks for a reset, is set up
// again with both pairs of queues while both go on; and the firewall is started again when the second
// worker stands still, although the first one runs, and when the loops hang, with a report of where
// all processors are.
func TestWorkersFaults(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root makes TAP devices, by which there are several queues")
	}
	t.Setenv("THURWARD_CPUS", "2")
	m := newMonitored(t, vmm.DefaultWatchdog, func(c *vmm.Config) { c.KVM, c.MemoryMB = false, 128 })
	both := func() {
		t.Helper()
		var wg sync.WaitGroup
		for i := range 16 { // clients' ports of both workers
			wg.Go(func() {
				if _, err := m.get(soon(t), []*netlab.Host{m.Alice, m.Bob}[i&1], "/"); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
	}
	both()
	m.suffer(t, fault{name: "the packet loops hang", reason: vmm.ReasonHang, do: hang, waits: faultWatchdog,
		stack: []string{"router.(*Engine).Poll+0x0 ", packetLoop()}})
	if !m.said("processor 1: rip=") {
		t.Error("the report does not say where the second processor was")
	}
	devices := 0
	for _, f := range enduring() {
		if strings.Contains(f.name, "AN's device") {
			devices++
			m.suffer(t, f)
			both()
		}
	}
	if devices != 4 {
		t.Errorf("%d faults of devices", devices)
	}
	m.suffer(t, fault{name: "the second worker stands still", reason: vmm.ReasonCrash, said: "worker 1 has not polled for",
		stack: []string{"main.(*team).watch+", "main.main+", "processor ", "main.(*team).sleep+0x0 ", "main.(*team).begin"}, do: func(m *monitored) {
			m.beats()
			m.poke(m.function("main.(*team).sleep"), jumpToItself)
		}})
	both()
}
