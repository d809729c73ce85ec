package replay

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"

	"github.com/thurward/thurward/internal/host/policy/policytest"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/verdict"
)

const rules = `
interfaces:
  lan0: { address: 10.0.0.1/24 }
  wan0: { address: 203.0.113.10/24, gateway: 203.0.113.1 }
defaults:
  default_action: deny
nat:
  snat:
    - { out_interface: wan0, source: 10.0.0.0/24, masquerade: true }
rules:
  - { id: out, action: accept, direction: egress, protocol: udp, destination_port: 53 }
  - { id: back, action: accept, direction: ingress, state: established }
`

var (
	firewallLAN = [6]byte{0x52, 0x54, 0, 1, 1, 1}
	firewallWAN = [6]byte{0x52, 0x54, 0, 1, 1, 2}
	hostMAC     = [6]byte{0x52, 0x54, 0, 9, 9, 9}
	routerMAC   = [6]byte{0x52, 0x54, 0, 8, 8, 8}
	t0          = time.Date(2026, 3, 1, 12, 0, 0, 123456789, time.UTC)
)

func udp(dst, src [6]byte, from, to string, data string) []byte {
	a, b := netip.MustParseAddrPort(from), netip.MustParseAddrPort(to)
	f := make([]byte, packet.EthLen+packet.MinIPv4+packet.UDPLen, 100)
	packet.PutEth(f, &dst, &src, packet.TypeIPv4)
	four := func(a netip.Addr) packet.Addr { x := a.As4(); return packet.Addr(binary.BigEndian.Uint32(x[:])) }
	packet.PutIPv4(f[packet.EthLen:], four(a.Addr()), four(b.Addr()), packet.UDP, 64, packet.UDPLen+len(data))
	packet.SetDF(f[packet.EthLen:]) // an atomic packet keeps its identification
	u := f[packet.EthLen+packet.MinIPv4:]
	binary.BigEndian.PutUint16(u, a.Port())
	binary.BigEndian.PutUint16(u[2:], b.Port())
	binary.BigEndian.PutUint16(u[4:], uint16(packet.UDPLen+len(data)))
	u[6], u[7] = 1, 1
	f = append(f, data...)
	fixChecksums(f)
	return f
}

type at struct {
	after time.Duration
	f     []byte
}

// pcap writes a capture. ng selects the format.
func pcap(t testing.TB, ng bool, fs ...at) string {
	t.Helper()
	var b bytes.Buffer
	var write func(gopacket.CaptureInfo, []byte) error
	if ng {
		w, err := pcapgo.NewNgWriter(&b, layers.LinkTypeEthernet)
		if err != nil {
			t.Fatal(err)
		}
		defer w.Flush()
		write = func(c gopacket.CaptureInfo, d []byte) error { err := w.WritePacket(c, d); w.Flush(); return err }
	} else {
		w := pcapgo.NewWriterNanos(&b)
		if err := w.WriteFileHeader(65535, layers.LinkTypeEthernet); err != nil {
			t.Fatal(err)
		}
		write = w.WritePacket
	}
	for _, f := range fs {
		if err := write(gopacket.CaptureInfo{Timestamp: t0.Add(f.after), CaptureLength: len(f.f), Length: len(f.f)}, f.f); err != nil {
			t.Fatal(err)
		}
	}
	return file(t, b.Bytes())
}

func file(t testing.TB, b []byte) string {
	t.Helper()
	p := filepath.Join(t.TempDir(), "x.pcap")
	if err := os.WriteFile(p, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return p
}

// frames reads a capture back.
func frames(t testing.TB, path string) (fs []at) {
	t.Helper()
	r, err := openCapture(path, MaxBytes)
	if err != nil {
		t.Fatal(err)
	}
	for {
		f, err := r.next()
		if errors.Is(err, io.EOF) {
			return fs
		}
		if err != nil {
			t.Fatal(err)
		}
		fs = append(fs, at{f.at.Sub(t0), bytes.Clone(f.data)})
	}
}

// query and answer are what the two sides of a real firewall would show: each
// capture has both directions.
func query(n string) []byte {
	return udp(firewallLAN, hostMAC, "10.0.0.2:4000", "198.51.100.5:53", n)
}
func queryOut(n string) []byte {
	return udp(routerMAC, firewallWAN, "203.0.113.10:4000", "198.51.100.5:53", n)
}
func answer(n string) []byte {
	return udp(firewallWAN, routerMAC, "198.51.100.5:53", "203.0.113.10:4000", n)
}
func answerIn(n string) []byte {
	return udp(hostMAC, firewallLAN, "198.51.100.5:53", "10.0.0.2:4000", n)
}

const ms = time.Millisecond

func both(t testing.TB, ng bool) Options {
	return Options{Policy: policytest.Compile(t, rules), Drain: time.Second, Seed: 1, In: [2]string{
		pcap(t, ng, at{0, query("a")}, at{20 * ms, answerIn("b")}, at{40 * ms, query("c")}),
		pcap(t, ng, at{ms, queryOut("a")}, at{10 * ms, answer("b")}, at{41 * ms, queryOut("c")})}}
}

// TestReplay: captures of both sides of a firewall give what that firewall
// sent, at the captures' times, and its events.
func TestReplay(t *testing.T) {
	for _, ng := range []bool{false, true} {
		o := both(t, ng)
		var events bytes.Buffer
		o.Events = &events
		o.Out = [2]string{filepath.Join(t.TempDir(), "l"), filepath.Join(t.TempDir(), "w")}
		s, err := Run(o)
		if err != nil {
			t.Fatal(err)
		}
		ipv4 := func(fs []at) (r []at) {
			for _, f := range fs {
				if packet.Type(f.f) == packet.TypeIPv4 {
					r = append(r, f)
				}
			}
			return r
		}
		ttl := func(f []byte) []byte { f[packet.EthLen+8]--; fixChecksums(f); return f }
		l, w := ipv4(frames(t, o.Out[LAN])), ipv4(frames(t, o.Out[WAN]))
		if len(l) != 1 || !bytes.Equal(l[0].f, ttl(answerIn("b"))) || l[0].after != 10*ms {
			t.Errorf("left by the LAN: %v", l)
		}
		if len(w) != 2 || !bytes.Equal(w[0].f, ttl(queryOut("a"))) || w[0].after != 0 || !bytes.Equal(w[1].f, ttl(queryOut("c"))) || w[1].after != 40*ms {
			t.Errorf("left by the WAN: %v", w)
		}
		if s.Side[LAN].Own != 1 || s.Side[WAN].Own != 2 || s.Side[LAN].MAC != firewallLAN || s.Side[WAN].MAC != firewallWAN || s.Side[WAN].How != byVotes {
			t.Errorf("%+v", s.Side)
		}
		if s.Rules[0].Accepted != 2 || s.Rules[1].Accepted != 1 || s.Flows != 1 || s.Span != 40*ms+time.Second {
			t.Errorf("%+v", s)
		}
		lines := strings.Split(strings.TrimSpace(events.String()), "\n")
		if len(lines) != 2 || s.Events != 2 || !strings.Contains(lines[0], `"@timestamp":"2026-03-01T12:00:00.123`) || !strings.Contains(lines[0], `"rule.id":"out"`) || !strings.Contains(lines[1], `"rule.id":"back"`) {
			t.Errorf("events: %s", events.String())
		}
	}
}

// TestReplayIsDeterministic: the same input gives the same bytes.
func TestReplayIsDeterministic(t *testing.T) {
	o := both(t, false)
	// Two hosts want the same external port: the seed decides who gets which.
	o.In[LAN] = pcap(t, false, at{0, query("a")}, at{ms, udp(firewallLAN, hostMAC, "10.0.0.3:4000", "198.51.100.5:53", "x")})
	result := func(seed uint64) string {
		o.Seed = seed
		var events bytes.Buffer
		o.Events = &events
		o.Out = [2]string{filepath.Join(t.TempDir(), "l"), filepath.Join(t.TempDir(), "w")}
		s, err := Run(o)
		if err != nil {
			t.Fatal(err)
		}
		s.Print(&events)
		for _, p := range o.Out {
			b, err := os.ReadFile(p)
			if err != nil {
				t.Fatal(err)
			}
			events.Write(b)
		}
		return events.String()
	}
	if first, again := result(1), result(1); first != again {
		t.Error("the same seed gave different output")
	}
	if result(1) == result(2) {
		t.Error("another seed changed nothing: ports are predictable")
	}
}

// TestReplayRunsTimers: virtual time passes between frames and after the last one.
func TestReplayRunsTimers(t *testing.T) {
	o := both(t, false)
	o.In[LAN] = pcap(t, false, at{0, query("a")}, at{time.Hour, query("late")})
	o.In[WAN] = ""
	var events bytes.Buffer
	o.Events = &events
	o.Drain = time.Hour
	s, err := Run(o)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(events.String(), `"event.action":"flow-end"`); n != 2 || s.Flows != 0 {
		t.Errorf("%d flows ended, %d are left: %s", n, s.Flows, events.String())
	}
	if !strings.Contains(events.String(), `"@timestamp":"2026-03-01T13:00:00.123`) {
		t.Errorf("no event an hour later: %s", events.String())
	}
}

// TestReplayFindsItsPlace: how the firewall's address is found, and that frames to others
// are ignored.
func TestReplayFindsItsPlace(t *testing.T) {
	claim := make([]byte, 60)
	packet.PutARP(claim, &[6]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, &packet.ARPMessage{Op: packet.ARPRequest, SenderMAC: firewallLAN, SenderAddr: 0x0a000001, TargetAddr: 0x0a000002})
	other := udp(hostMAC, [6]byte{2, 7}, "10.0.0.7:1", "10.0.0.2:53", "local")
	for _, c := range []struct {
		name string
		mac  [6]byte
		in   []at
		want [6]byte
		how  string
		own  int
		rest uint64 // for other hosts
	}{
		{"flag", routerMAC, []at{{0, query("a")}}, routerMAC, byFlag, 0, 1},
		{"ARP", [6]byte{}, []at{{0, claim}, {0, other}}, firewallLAN, byARP, 1, 1},
		{"packets", [6]byte{}, []at{{0, other}, {0, query("a")}}, firewallLAN, byVotes, 0, 1},
		{"nothing", [6]byte{}, []at{{0, other}}, DefaultMAC[LAN], byNone, 0, 0},
	} {
		o := both(t, false)
		o.In = [2]string{pcap(t, false, c.in...), ""}
		o.MAC[LAN] = c.mac
		s, err := Run(o)
		if err != nil {
			t.Fatal(err)
		}
		l := s.Side[LAN]
		if l.MAC != c.want || l.How != c.how || l.Own != c.own || l.Other != c.rest {
			t.Errorf("%s: %+v", c.name, l)
		}
	}
}

// TestReplayNeighbours: ARP requests are answered as the options say.
func TestReplayNeighbours(t *testing.T) {
	for _, seen := range []bool{false, true} {
		o := both(t, false)
		o.In[WAN], o.Drain = "", 10*time.Second // no capture shows the gateway
		o.SeenOnly = seen
		s, err := Run(o)
		if err != nil {
			t.Fatal(err)
		}
		if n := s.Drops[verdict.NeighbourUnresolved]; (n > 0) != seen {
			t.Errorf("seen only %v: %d packets found no neighbour", seen, n)
		}
	}
}

// TestReplayOddFrames: frames that cannot be received are counted in the summary.
func TestReplayOddFrames(t *testing.T) {
	o := both(t, false)
	wrong := query("bad sum")
	wrong[len(wrong)-1]++
	long := append(query("long"), make([]byte, 3000)...)
	o.In = [2]string{pcap(t, false, at{ms, query("a")}, at{0, query("b")}, at{ms, long}, at{ms, wrong}), ""}
	b, err := os.ReadFile(o.In[LAN])
	if err != nil {
		t.Fatal(err)
	}
	binary.LittleEndian.PutUint32(b[24+12:], 1000) // the first frame was longer on the wire
	o.In[LAN] = file(t, append(b, 1, 2, 3))
	s, err := Run(o)
	if err != nil {
		t.Fatal(err)
	}
	l := s.Side[LAN]
	if l.Frames != 4 || l.Cut != 1 || l.Long != 1 || l.Late != 1 || !l.Short || s.Drops[verdict.MalformedPacket] != 1 {
		t.Errorf("%+v, %v", l, s.Drops)
	}
	var text strings.Builder
	s.Print(&text)
	for _, w := range []string{"snap length", "ethtool", "ends inside a frame", "malformed_packet"} {
		if !strings.Contains(text.String(), w) {
			t.Errorf("the summary does not say %q:\n%s", w, text.String())
		}
	}
	o.FixChecksums = true
	if s, err = Run(o); err != nil || s.Drops[verdict.MalformedPacket] != 0 || s.Rules[0].Accepted != 2 {
		t.Errorf("with right checksums: %v, %+v", err, s)
	}
}

// TestReplayBadCaptures: errors name the file and the remedy.
func TestReplayBadCaptures(t *testing.T) {
	good, err := os.ReadFile(pcap(t, false, at{0, query("a")}))
	if err != nil {
		t.Fatal(err)
	}
	edit := func(off int, v ...byte) []byte { b := bytes.Clone(good); copy(b[off:], v); return b }
	ng, err := os.ReadFile(pcap(t, true, at{0, query("a")}))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		b    []byte
		want string
	}{
		{"empty", nil, "too short to be a capture"},
		{"text", []byte("interfaces: {}"), "want pcap or pcapng"},
		{"gzip", []byte{0x1f, 0x8b, 8, 0}, "gzip"},
		{"header only in part", good[:10], "not a capture"},
		{"wireless", edit(20, 105), "link type 105 (want Ethernet"},
		{"huge frame", edit(24+8, 0xff, 0xff, 0xff, 0x7f, 0xff, 0xff, 0xff, 0x7f), "frame 1"},
		{"cut block", ng[:len(ng)/2-3], ""},
		{"jump in time", append(bytes.Clone(good), append([]byte{0xff, 0xff, 0xff, 0xff}, good[28:]...)...), "days after the first frame"},
	} {
		o := both(t, false)
		o.In = [2]string{file(t, c.b), ""}
		_, err := Run(o)
		if c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), o.In[LAN])) {
			t.Errorf("%s: %v, want %q and the file's name", c.name, err, c.want)
		}
	}
	o := both(t, false)
	o.MaxBytes = 100
	if _, err := Run(o); err == nil || !strings.Contains(err.Error(), "--max-bytes") {
		t.Errorf("over the limit: %v", err)
	}
	if _, err := Run(Options{Policy: policytest.Compile(t, rules)}); err == nil {
		t.Error("no capture at all is no error")
	}
}

// FuzzCapture: no capture makes the reader panic or read for ever.
func FuzzCapture(f *testing.F) {
	for _, ng := range []bool{false, true} {
		b, err := os.ReadFile(pcap(f, ng, at{0, query("a")}, at{ms, answer("b")}))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	p := policytest.Compile(f, rules)
	path := filepath.Join(f.TempDir(), "x")
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		r, err := openCapture(path, 1<<20)
		if err != nil {
			if !strings.Contains(err.Error(), path) {
				t.Fatalf("the error does not name the file: %v", err)
			}
			return
		}
		v := newSurvey(WAN, p)
		if err := v.scan(r); err != nil && !strings.Contains(err.Error(), path) {
			t.Fatalf("the error does not name the file: %v", err)
		}
		v.identify(r.link, [6]byte{}, p)
	})
}

// TestExample keeps the captures of docs/replay.md, and its summary, true.
// With THURWARD_UPDATE=1 it rewrites the captures.
func TestExample(t *testing.T) {
	in := [2]string{"testdata/lan.pcap", "testdata/wan.pcap"}
	if os.Getenv("THURWARD_UPDATE") != "" {
		stray := udp(firewallWAN, routerMAC, "192.0.2.66:53", "203.0.113.10:4000", "stray")
		for i, p := range [2]string{
			pcap(t, false, at{0, query("a")}, at{20 * ms, answerIn("b")}, at{40 * ms, query("c")}),
			pcap(t, false, at{ms, queryOut("a")}, at{10 * ms, answer("b")}, at{41 * ms, queryOut("c")}, at{50 * ms, stray})} {
			b, err := os.ReadFile(p)
			if err == nil {
				err = os.WriteFile(in[i], b, 0o644)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	src, err := os.ReadFile("../../../rules.yaml")
	if err != nil {
		t.Fatal(err)
	}
	sum, err := Run(Options{Policy: policytest.Compile(t, string(src)), In: in, Seed: 1, Drain: 10 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	sum.Print(&b)
	text := strings.ReplaceAll(b.String(), "testdata/", "")
	doc, err := os.ReadFile("../../../docs/replay.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(doc), text) {
		t.Errorf("docs/replay.md does not show what the example prints:\n%s", text)
	}
}
