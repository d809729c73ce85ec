package replay

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/thurward/thurward/internal/host/policy/policytest"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/verdict"
)

const realRules = rules + "  - { id: web, action: accept, direction: egress, protocol: tcp, destination_port: 80 }\n"

func realOptions(t testing.TB) Options {
	return Options{Policy: policytest.Compile(t, realRules), Drain: time.Second, Seed: 1, FixChecksums: true}
}

const (
	routerSLL2 = "testdata/real/sll2.pcap"
	routerSLL  = "testdata/real/sll.pcap"
	routerLAN  = "testdata/real/eth-lan.pcap"
	hostSLL2   = "testdata/real/host.pcap"
)

// raw is a capture with its frames' link headers replaced by head, as link type link.
func raw(t testing.TB, path string, link uint32, head ...byte) string {
	t.Helper()
	var b bytes.Buffer
	w := pcapWriter{&b}
	if err := w.header(); err != nil {
		t.Fatal(err)
	}
	binary.LittleEndian.PutUint32(b.Bytes()[20:], link)
	for _, f := range frames(t, path) {
		if packet.Type(f.f) != packet.TypeIPv4 {
			continue
		}
		if err := w.write(t0.Add(f.after), append(bytes.Clone(head), f.f[packet.EthLen:]...)); err != nil {
			t.Fatal(err)
		}
	}
	return file(t, b.Bytes())
}

// TestReplayLinks: one exchange, captured in the ways that people do it, gives the same
// verdicts: the host sent a datagram and 5 segments. Of these only the first passes, since
// a capture of one side has no answers to which the others could belong.
func TestReplayLinks(t *testing.T) {
	for name, c := range map[string]struct {
		lan string
		how string
		own int
	}{
		"Ethernet":               {routerLAN, byARP, 7},
		"cooked v2 of the host":  {hostSLL2, byRoute, 7},
		"cooked v2 of a router":  {routerSLL2, byHost, 14},
		"cooked v1 of a router":  {routerSLL, byHost, 14},
		"raw IP":                 {raw(t, routerLAN, linkRaw), byRoute, 6},
		"raw IP, another number": {raw(t, routerLAN, linkRawOld), byRoute, 6},
		"raw IPv4":               {raw(t, routerLAN, linkIPv4), byRoute, 6},
		"loopback of BSD":        {raw(t, routerLAN, linkNull, 2, 0, 0, 0), byRoute, 6},
		"loopback of OpenBSD":    {raw(t, routerLAN, linkLoop, 0, 0, 0, 2), byRoute, 6},
	} {
		t.Run(name, func(t *testing.T) {
			o := realOptions(t)
			o.In[LAN] = c.lan
			s, err := Run(o)
			if err != nil {
				t.Fatal(err)
			}
			l := s.Side[LAN]
			if l.How != c.how || l.Own != c.own || s.Rules[0].Accepted != 1 || s.Rules[2].Accepted != 1 ||
				s.Drops[verdict.ConntrackInvalid] != 4 {
				t.Errorf("%+v; %+v; %v", l, s.Rules, s.Drops)
			}
		})
	}
}

// TestReplayAny: a capture of all interfaces of a router is both sides of it: answers
// are taken for the WAN's, and what the router sent is not.
func TestReplayAny(t *testing.T) {
	for name, c := range map[string]struct {
		path    string
		indexed bool
		others  int
	}{"v2": {routerSLL2, true, 2}, "v1": {routerSLL, false, 2}} {
		t.Run(name, func(t *testing.T) {
			o := realOptions(t)
			o.Any = c.path
			out := filepath.Join(t.TempDir(), "lan")
			o.Out[LAN] = out
			s, err := Run(o)
			if err != nil {
				t.Fatal(err)
			}
			if s.Rules[0].Accepted != 1 || s.Rules[2].Accepted != 5 || s.Rules[1].Accepted != 6 {
				t.Errorf("%+v; drops %v", s.Rules, s.Drops)
			}
			if s.Side[LAN].Own != 7 || s.Side[WAN].Own != 7 || s.Any.Others != c.others || s.Any.Indexed != c.indexed {
				t.Errorf("%+v, %+v", s.Side, s.Any)
			}
			if c.indexed && s.Any.Index != [2]uint32{2, 3} {
				t.Errorf("interfaces %v", s.Any.Index)
			}
			n := 0
			for _, f := range frames(t, out) {
				if packet.Type(f.f) == packet.TypeIPv4 {
					if n++; [6]byte(f.f) != hostMAC {
						t.Errorf("sent to %x, want the host's address in the capture", f.f[:6])
					}
				}
			}
			if n != 6 {
				t.Errorf("%d packets left to the LAN, want 6", n)
			}
			var b strings.Builder
			s.Print(&b)
			if want := "interface 2 is the lan, by"; strings.Contains(b.String(), want) != c.indexed {
				t.Errorf("%q in the summary: %v\n%s", want, !c.indexed, &b)
			}
		})
	}
}

// TestReplayAnySpoofed: a packet that came in by the WAN with an address of the LAN is the
// WAN's where the capture tells interfaces apart.
func TestReplayAnySpoofed(t *testing.T) {
	b, err := os.ReadFile(routerSLL2)
	if err != nil {
		t.Fatal(err)
	}
	spoofed := udp([6]byte{}, routerMAC, "10.0.0.2:4000", "198.51.100.5:53", "x")[packet.EthLen:]
	head := make([]byte, sll2Len)
	binary.BigEndian.PutUint16(head, packet.TypeIPv4)
	head[7], head[9], head[11] = 3, 1, 6 // interface 3, Ethernet, an address of 6 bytes; to the host
	copy(head[12:], routerMAC[:])
	rec := bytes.Clone(b[24:40]) // the time of the first
	binary.LittleEndian.PutUint32(rec[8:], uint32(len(head)+len(spoofed)))
	binary.LittleEndian.PutUint32(rec[12:], uint32(len(head)+len(spoofed)))
	o := realOptions(t)
	o.Any = file(t, append(append(append(b, rec...), head...), spoofed...))
	s, err := Run(o)
	if err != nil {
		t.Fatal(err)
	}
	if s.Rules[0].Accepted != 1 || s.Drops[verdict.Martian] != 1 || s.Side[WAN].Frames != 14+1 {
		t.Errorf("%+v; %v; %+v", s.Rules, s.Drops, s.Side[WAN])
	}
}

// TestReplayAnyRefused: what cannot be a capture of the firewall's interfaces is refused
// with what to do instead.
func TestReplayAnyRefused(t *testing.T) {
	for path, want := range map[string]string{
		routerLAN:                     "tcpdump -i any",
		raw(t, routerLAN, linkRaw):    "do not tell which",
		hostSLL2:                      "is not the firewall",
		file(t, []byte("text, text")): "want pcap or pcapng",
	} {
		o := realOptions(t)
		o.Any = path
		if _, err := Run(o); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v, want %q", path, err, want)
		}
	}
}

// TestReplayHint: where checksums were left to a network device the summary says what
// to do; where they were not, it does not.
func TestReplayHint(t *testing.T) {
	text := func(o Options) string {
		s, err := Run(o)
		if err != nil {
			t.Fatal(err)
		}
		var b strings.Builder
		s.Print(&b)
		return b.String()
	}
	o := realOptions(t)
	o.In[LAN] = routerLAN
	if got := text(o); strings.Contains(got, "hint:") {
		t.Errorf("a hint although checksums are made right:\n%s", got)
	}
	o.FixChecksums = false
	if got := text(o); !strings.Contains(got, "Replay with --fix-checksums") || !strings.Contains(got, "malformed_packet") {
		t.Errorf("no hint:\n%s", got)
	}
	wrong := query("x")
	wrong[len(wrong)-1]++
	o.In[LAN] = pcap(t, false, at{0, query("a")}, at{ms, wrong})
	if got := text(o); strings.Contains(got, "hint:") {
		t.Errorf("a hint about a checksum that no device would have mended:\n%s", got)
	}
}

// TestReplaySources: a pipe, standard input and gzip's files are captures, too.
func TestReplaySources(t *testing.T) {
	b, err := os.ReadFile(routerLAN)
	if err != nil {
		t.Fatal(err)
	}
	var z bytes.Buffer
	w := gzip.NewWriter(&z)
	w.Write(b)
	w.Close()
	good := func(t *testing.T, o Options) {
		t.Helper()
		if s, err := Run(o); err != nil || s.Rules[2].Accepted != 1 || s.Side[LAN].Frames != 14 {
			t.Errorf("%v; %+v", err, s)
		}
	}
	pipe := func(b []byte) string {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { r.Close() })
		go func() { w.Write(b); w.Close() }()
		return "/proc/self/fd/" + strconv.Itoa(int(r.Fd()))
	}
	t.Run("pipe", func(t *testing.T) { o := realOptions(t); o.In[LAN] = pipe(b); good(t, o) })
	t.Run("gzip", func(t *testing.T) { o := realOptions(t); o.In[LAN] = file(t, z.Bytes()); good(t, o) })
	t.Run("gzip by a pipe", func(t *testing.T) { o := realOptions(t); o.In[LAN] = pipe(z.Bytes()); good(t, o) })
	t.Run("standard input", func(t *testing.T) {
		o := realOptions(t)
		o.In[LAN], o.Stdin = "-", bytes.NewReader(b)
		good(t, o)
	})
	t.Run("gzip, cut", func(t *testing.T) {
		o := realOptions(t)
		o.In[LAN] = file(t, z.Bytes()[:z.Len()/2])
		if s, err := Run(o); err != nil || s.Side[LAN].Frames == 0 {
			t.Errorf("%v; %+v", err, s)
		}
	})
	t.Run("gzip of very much", func(t *testing.T) {
		var z bytes.Buffer
		w := gzip.NewWriter(&z)
		w.Write(b)
		w.Write(make([]byte, 64<<20))
		w.Close()
		o := realOptions(t)
		o.MaxBytes, o.In[LAN] = 1<<20, file(t, z.Bytes())
		if _, err := Run(o); err == nil || !strings.Contains(err.Error(), "--max-bytes") {
			t.Errorf("%v", err)
		}
	})
	t.Run("a source that fails", func(t *testing.T) {
		o := realOptions(t)
		o.In[LAN], o.Stdin = "-", io.MultiReader(bytes.NewReader(b[:100]), failing{})
		if _, err := Run(o); err == nil || !strings.Contains(err.Error(), "standard input: it broke") {
			t.Errorf("%v", err)
		}
	})
	t.Run("a folder", func(t *testing.T) {
		o := realOptions(t)
		o.In[LAN] = t.TempDir()
		if _, err := Run(o); err == nil || !strings.Contains(err.Error(), "is a folder") {
			t.Errorf("%v", err)
		}
	})
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errors.New("it broke") }

// TestReplayProgress: a long replay tells how far it is.
func TestReplayProgress(t *testing.T) {
	var fs []at
	for i := range 10_000 {
		fs = append(fs, at{time.Duration(i) * time.Microsecond, query("a")})
	}
	o := both(t, false)
	o.In = [2]string{pcap(t, false, fs...), ""}
	var said []int64
	var all int64
	o.Progress = func(done, total int64) { said, all = append(said, done), total }
	if _, err := Run(o); err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(o.In[LAN])
	if err != nil {
		t.Fatal(err)
	}
	if len(said) != 2 || said[0] <= 0 || said[1] <= said[0] || said[1] > all || all != st.Size() {
		t.Errorf("%v of %d", said, all)
	}
}

// FuzzEthernet: no frame of any link makes the reader's conversion panic, and what it
// makes is the payload behind an Ethernet header.
func FuzzEthernet(f *testing.F) {
	for _, path := range []string{routerSLL, routerSLL2} {
		r, err := openCapture(path, MaxBytes)
		if err != nil {
			f.Fatal(err)
		}
		for range 5 {
			fr, err := r.read()
			if err != nil {
				f.Fatal(err)
			}
			f.Add(uint16(r.link), fr.data)
		}
	}
	p := policytest.Compile(f, realRules)
	f.Fuzz(func(t *testing.T, link uint16, b []byte) {
		if checkLink(int(link)) != nil || link == linkEthernet {
			return
		}
		out, e, ok := ethernet(nil, int(link), b)
		if !ok {
			return
		}
		if len(out) < packet.EthLen || !bytes.HasSuffix(b, out[packet.EthLen:]) {
			t.Fatalf("%x from %x", out, b)
		}
		for _, s := range []Side{LAN, WAN} {
			v := newSurvey(s, p)
			fr := frameIn{data: out, env: e}
			v.lookCooked(&fr)
			v.course(&fr)
			v.complete(out, DefaultMAC[s])
			if [6]byte(out) == ([6]byte{}) || [6]byte(out[6:]) == ([6]byte{}) {
				t.Fatalf("an address is missing: %x", out[:packet.EthLen])
			}
		}
	})
}
