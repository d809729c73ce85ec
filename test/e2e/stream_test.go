package e2e

import (
	"flag"
	"math"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/thurward/thurward/internal/host/netlab"
	"github.com/thurward/thurward/internal/host/vmm"
	"github.com/thurward/thurward/internal/shared/packet"
)

// A sprayer sends UDP packets from the LAN that no rule allows, each to a port
// of its own if asked for.
type sprayer struct{ p *netlab.Port }

var sprayMAC = [6]byte{2, 0x77, 0, 0, 0, 1}

const sprayAddr = packet.Addr(10<<24 | 77)

func (l *lab) sprayer() *sprayer {
	return &sprayer{l.LANSwitch.Attach("sprayer", func([]byte) {})}
}

// send sends one packet of 60 bytes from port src to port dst of 198.51.100.80.
func (s *sprayer) send(src, dst uint16) {
	f := make([]byte, 60)
	fw := [6]byte{0x52, 0x54, 0, 0x74, 0x68, 1}
	packet.PutEth(f, &fw, &sprayMAC, packet.TypeIPv4)
	packet.PutIPv4(f[14:], sprayAddr, 198<<24|51<<16|100<<8|80, packet.UDP, 64, 26)
	u := f[34:]
	u[0], u[1], u[2], u[3], u[5] = byte(src>>8), byte(src), byte(dst>>8), byte(dst), 26
	s.p.Send(f)
}

// TestS39_EventStream: over vsock each verdict of the filter is exactly one
// event, numbered without a gap, in a stream that begins with who sends.
func TestS39_EventStream(t *testing.T) {
	each(t, func(t *testing.T, kvm bool) {
		l, r := watched(t, kvm, nil)
		for range 5 {
			if _, err := l.get(soon(t), l.Alice, "/"); err != nil {
				t.Fatal(err)
			}
		}
		s := l.sprayer()
		for i := range 20 {
			s.send(1000, uint16(2000+i))
			time.Sleep(2 * time.Millisecond)
		}
		r.awaitEvents(20, map[string]any{"event.action": "drop", "source.ip": "10.0.0.77"})
		ev := r.events(nil)
		verdicts := 0
		for i, e := range ev {
			if e["event.sequence"] != float64(i+1) {
				t.Fatalf("event %d has the number %v", i+1, e["event.sequence"])
			}
			must := []string{"@timestamp", "event.kind", "event.reason", "firewall.policy", "firewall.clock"}
			if a := e["event.action"]; a == "accept" || a == "drop" { // others are about the host, which may be busy
				verdicts++
				must = append(must, "rule.id", "network.direction")
			}
			for _, f := range must {
				if e[f] == nil {
					t.Errorf("no %s in %v", f, e)
				}
			}
		}
		if n := len(r.events(map[string]any{"event.action": "accept", "rule.id": "allow-web"})); n != 5 {
			t.Errorf("%d events for 5 connections", n)
		}
		m := r.fresh()
		if n := m["thurward_filter_decisions_total"]; n != uint64(verdicts) || n < 30 {
			t.Errorf("%d verdicts in events, the filter decided %d times", verdicts, n)
		}
		r.mu.Lock()
		hello := parse(t, strings.TrimPrefix(r.lines[0], "# HELLO "))
		r.mu.Unlock()
		if hello["firewall.wan.address"] != "203.0.113.10/24" || hello["firewall.lan.mac"] != vmm.DefaultMAC(vmm.LAN) || hello["firewall.policy"] != ev[0]["firewall.policy"] ||
			len(hello["service.instance.id"].(string)) != 32 || hello["firewall.connection"] != 1.0 {
			t.Errorf("%v", hello)
		}
	})
}

// TestS40_CountersAreExact: N packets raise a rule's counter by N, also where N
// drops are one line.
func TestS40_CountersAreExact(t *testing.T) {
	each(t, func(t *testing.T, kvm bool) {
		l, r := watched(t, kvm, nil)
		const n = 700
		before := r.fresh()
		s := l.sprayer()
		for i := range n {
			s.send(uint16(i), 4444)
			if i%20 == 0 {
				time.Sleep(2 * time.Millisecond)
			}
		}
		same := map[string]any{"event.action": "drop", "source.ip": "10.0.0.77", "destination.port": 4444.0}
		r.await("all drops", func() bool {
			r.mu.Unlock()
			defer r.mu.Lock()
			return drops(r.events(same)) >= n
		})
		if es := r.events(same); drops(es) != n || len(es) > 20 {
			t.Errorf("%d lines stand for %d drops of %d", len(es), drops(es), n)
		}
		after := r.fresh()
		for name, want := range map[string]uint64{
			`thurward_rule_drops_total{rule_id="default-deny"}`:                                 n,
			`thurward_drops_total{drop_reason="no_matching_allow_rule"}`:                        n,
			`thurward_filter_decisions_total`:                                                   n,
			`thurward_interface_receive_packets_total{interface="lan"}`:                         n,
			`thurward_interface_receive_bytes_total{interface="lan"}`:                           60 * n,
			`thurward_rule_accepts_total{rule_id="allow-web"}`:                                  0,
			`thurward_vsock_dropped_lines_total`:                                                0,
			`thurward_nat_port_pool_in_use{external_ip="203.0.113.10",proto="tcp"}`:             0,
			`thurward_conntrack_inserts_total`:                                                  0,
			`thurward_event_records_lost_total`:                                                 0,
			`thurward_vsock_connections_total`:                                                  1,
			`thurward_device_violations_total{interface="lan"}`:                                 0,
			`thurward_vsock_refused_total{kind="malformed"}`:                                    0,
			`thurward_clock_info{source="` + r.events(nil)[0]["firewall.clock"].(string) + `"}`: 0,
		} {
			if _, ok := after[name]; !ok || after[name]-before[name] != want {
				t.Errorf("%s went from %d to %d, want %d more", name, before[name], after[name], want)
			}
		}
	})
}

var standFor = flag.Duration("stand", 2*time.Second, "how long the receiver of TestS42_ReceiverStandsStill stands")

// TestS42_ReceiverStandsStill: while the receiver takes nothing, connections go
// through as before, the oldest lines are dropped and counted, and when it goes
// on so does the stream, and says what was lost.
func TestS42_ReceiverStandsStill(t *testing.T) {
	eachAlone(t, func(t *testing.T, kvm bool) {
		l, r := watched(t, kvm, nil)
		s := l.sprayer()
		// The wire drops what the machine does not take, and what is timed, too: then there
		// is less of the load, down to a packet each 2 ms.
		var full atomic.Bool
		l.LANSwitch.OnDrop(func(string, []byte) { full.Store(true) })
		load := func(stop chan struct{}) {
			const most = 50
			burst, sent := most, 0
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				s.send(uint16(i), uint16(i)) // each is a line of its own
				if sent++; sent < burst {
					continue
				}
				time.Sleep(2 * time.Millisecond)
				if sent = 0; full.Swap(false) {
					burst = max(burst/2, 1)
				} else if burst < most && i%16 == 0 {
					burst++
				}
			}
		}
		// What passes is timed with the same load, with and without a reader.
		transfer := func() time.Duration {
			t.Helper()
			best := time.Duration(math.MaxInt64)
			for range 3 {
				start := time.Now()
				if _, err := l.get(bounded(t, 4*limit), l.Alice, "/bytes/1000000"); err != nil { // beside all that load
					t.Fatal(err)
				}
				best = min(best, time.Since(start))
			}
			return best
		}
		stop := make(chan struct{})
		go load(stop)
		reading := transfer()
		r.read(false)
		standing := transfer()
		for end := time.Now().Add(*standFor); time.Now().Before(end); {
			if _, err := l.get(bounded(t, 4*limit), l.Alice, "/"); err != nil {
				t.Fatalf("while the receiver stands: %v", err)
			}
			time.Sleep(50 * time.Millisecond)
		}
		standing = min(standing, transfer())
		close(stop)
		t.Logf("1 MB in %v with a reader, %v without", reading, standing)
		if standing > 3*reading {
			t.Errorf("1 MB took %v with a reader, %v without", reading, standing)
		}
		r.read(true)
		r.awaitEvents(1, map[string]any{"event.action": "lines-lost"})
		// Events from now on arrive.
		s.send(9, 7)
		r.awaitEvents(1, map[string]any{"event.action": "drop", "source.port": 9.0, "destination.port": 7.0})
		lost, last := 0, 0.0
		for _, e := range r.events(nil) {
			if e["event.action"] == "lines-lost" {
				lost += int(e["firewall.lost_lines"].(float64))
				continue
			}
			if n := e["event.sequence"].(float64); n <= last {
				t.Fatalf("event %v after %v", n, last)
			} else {
				last = n
			}
		}
		m := r.fresh()
		if got := m["thurward_vsock_dropped_lines_total"]; got < 1000 || got != uint64(lost) {
			t.Errorf("%d lines dropped by the counter, %d by the events", got, lost)
		}
		t.Logf("%d lines were dropped, the last event is %v", lost, last)
	})
}

// TestS49_TimeAndClock: times are UTC with microseconds and right, and the
// clock they come from is named wherever one may ask.
func TestS49_TimeAndClock(t *testing.T) {
	each(t, func(t *testing.T, kvm bool) {
		l, r := watched(t, kvm, nil)
		s := l.sprayer()
		before := time.Now()
		s.send(1, 1)
		e := r.awaitEvents(1, map[string]any{"event.action": "drop", "source.ip": "10.0.0.77"})[0]
		after := time.Now()
		stamp := e["@timestamp"].(string)
		at, err := time.Parse("2006-01-02T15:04:05.000000Z", stamp)
		clock := e["firewall.clock"].(string)
		if err != nil || clock == "none" {
			t.Fatalf("%q by clock %q: %v", stamp, clock, err)
		}
		// The CMOS clock has whole seconds, and a busy host may take the
		// processor between its reading and the counter's.
		if slack := 1500 * time.Millisecond; at.Before(before.Add(-slack)) || at.After(after.Add(slack)) {
			t.Errorf("%v by %s, between %v and %v by the host", at, clock, before.UTC(), after.UTC())
		}
		if want := map[bool]string{true: "kvmclock", false: "rtc"}[kvm]; clock != want || r.fresh()[`thurward_clock_info{source="`+want+`"}`] != 1 {
			t.Errorf("clock %q, want %q", clock, want)
		}
	})
}

// TestStreamReconnects: a receiver that is not there at first, or goes and
// comes back, gets the stream; each connection begins with a hello.
func TestStreamReconnects(t *testing.T) {
	each(t, func(t *testing.T, kvm bool) {
		r := newReceiver(t)
		l := newLab(t, kvm, func(c *vmm.Config) { c.Vsock, c.Append = vmm.Vsock{Path: r.path}, "thurward.events=none" })
		l.awaitReady()
		if _, err := l.get(soon(t), l.Alice, "/"); err != nil {
			t.Fatalf("with nobody listening: %v", err)
		}
		r.listen()
		r.awaitEvents(1, map[string]any{"event.action": "accept", "rule.id": "allow-web"})
		for i := 2; i < 5; i++ {
			r.hangUp()
			r.await("the next connection", func() bool { return r.conns == i && strings.HasPrefix(r.lines[len(r.lines)-1], "# HELLO ") })
			l.sprayer().send(uint16(i), 99)
			r.awaitEvents(1, map[string]any{"event.action": "drop", "source.port": float64(i), "destination.port": 99.0})
		}
		hellos := 0
		for _, s := range r.lines {
			if h, ok := strings.CutPrefix(s, "# HELLO "); ok {
				if hellos++; parse(t, h)["firewall.connection"] != float64(hellos) {
					t.Errorf("hello %d: %s", hellos, h)
				}
			}
		}
		if hellos != 4 {
			t.Errorf("%d hellos", hellos)
		}
	})
}

// TestHostileReceiver: whatever the other end says, the firewall does not
// listen.
func TestHostileReceiver(t *testing.T) {
	each(t, func(t *testing.T, kvm bool) {
		l, r := watched(t, kvm, nil)
		r.mu.Lock()
		c := r.conn
		r.mu.Unlock()
		go func() {
			junk := []byte(strings.Repeat("CONNECT 22\n# HELLO {}\x00\xff", 1000))
			for range 100 {
				if _, err := c.Write(junk); err != nil {
					return
				}
			}
		}()
		for range 5 {
			if _, err := l.get(soon(t), l.Alice, "/bytes/100000"); err != nil {
				t.Fatal(err)
			}
		}
		r.awaitEvents(5, map[string]any{"event.action": "accept", "rule.id": "allow-web"})
		m := r.fresh()
		if m["thurward_vsock_ignored_bytes_total"] == 0 || m[`thurward_vsock_refused_total{kind="malformed"}`]+m[`thurward_vsock_refused_total{kind="credit"}`] != 0 {
			t.Errorf("%d bytes ignored, %d packets malformed", m["thurward_vsock_ignored_bytes_total"], m[`thurward_vsock_refused_total{kind="malformed"}`])
		}
	})
}

// TestNoVsock: a machine without the device says so once, and forwards.
func TestNoVsock(t *testing.T) {
	t.Parallel()
	l := boot(t, false)
	if _, err := l.get(soon(t), l.Alice, "/"); err != nil {
		t.Fatal(err)
	}
	n := 0
	l.mu.Lock()
	for _, s := range l.lines {
		if strings.Contains(s, "no vsock device") {
			n++
		}
	}
	l.mu.Unlock()
	if n != 1 {
		t.Errorf("said %d times that there is no vsock device", n)
	}
}

// promised are the metrics of the design.
var promised = []string{
	"thurward_rule_accepts_total", "thurward_rule_drops_total", "thurward_drops_total",
	"thurward_conntrack_entries", "thurward_conntrack_capacity", "thurward_conntrack_inserts_total", "thurward_conntrack_evictions_total",
	"thurward_nat_port_pool_in_use", "thurward_nat_translations_total",
	"thurward_dns_queries_total", "thurward_dns_lookup_duration_seconds", "thurward_fqdn_set_size", "thurward_fqdn_set_evictions_total",
	"thurward_vsock_send_queue_depth", "thurward_vsock_dropped_lines_total",
	"thurward_interface_receive_packets_total", "thurward_interface_receive_bytes_total", "thurward_interface_transmit_packets_total", "thurward_interface_transmit_bytes_total",
	"thurward_build_info", "thurward_clock_info",
}

// TestPromisedMetrics: all of them are there, with help and type, from the
// first snapshot on.
func TestPromisedMetrics(t *testing.T) {
	t.Parallel()
	_, r := watched(t, false, nil)
	m := r.fresh()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, name := range promised {
		found := false
		for k := range m {
			found = found || k == name || strings.HasPrefix(k, name+"{") || strings.HasPrefix(k, name+"_bucket{")
		}
		if !found || r.help[name] == "" || r.types[name] == "" {
			t.Errorf("%s: value %v, help %q, type %q", name, found, r.help[name], r.types[name])
		}
	}
}
