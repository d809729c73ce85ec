package replay

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
)

// TestReplayFindsItsPlaceInCutFrames: in a capture with a short snap length, hosts that
// talk to each other are not taken for the firewall.
func TestReplayFindsItsPlaceInCutFrames(t *testing.T) {
	var lan []at
	for i := range 20 {
		lan = append(lan, at{time.Duration(i) * ms, udp(hostMAC, [6]byte{2, 7}, "10.0.0.7:1", "10.0.0.2:53", strings.Repeat("local", 20))})
	}
	lan = append(lan, at{30 * ms, query("a")}, at{40 * ms, udp(hostMAC, firewallLAN, "198.51.100.5:53", "10.0.0.2:4000", strings.Repeat("b", 100))})
	wan := []at{{ms, queryOut(strings.Repeat("a", 100))}, {10 * ms, answer(strings.Repeat("b", 100))}}
	o := both(t, false)
	o.In = [2]string{pcapCut(t, 60, lan...), pcapCut(t, 60, wan...)}
	s, err := Run(o)
	if err != nil {
		t.Fatal(err)
	}
	if l := s.Side[LAN]; l.MAC != firewallLAN || l.Own != 1 || l.Cut != 20 {
		t.Errorf("LAN: %+v", l)
	}
	if w := s.Side[WAN]; w.MAC != firewallWAN || w.Own != 1 || w.Cut != 1 {
		t.Errorf("WAN: %+v", w)
	}
	v := newSurvey(WAN, o.Policy)
	r, err := openCapture(o.In[WAN], MaxBytes)
	if err != nil {
		t.Fatal(err)
	}
	if err := v.scan(r); err != nil || v.hosts[v.gateway] != routerMAC {
		t.Errorf("the gateway is taken to be %x (%v)", v.hosts[v.gateway], err)
	}
}

// pcapCut writes a capture with a snap length.
func pcapCut(t testing.TB, snap int, fs ...at) string {
	t.Helper()
	var b bytes.Buffer
	w := pcapgo.NewWriterNanos(&b)
	if err := w.WriteFileHeader(uint32(snap), layers.LinkTypeEthernet); err != nil {
		t.Fatal(err)
	}
	for _, f := range fs {
		n := min(len(f.f), snap)
		if err := w.WritePacket(gopacket.CaptureInfo{Timestamp: t0.Add(f.after), CaptureLength: n, Length: len(f.f)}, f.f[:n]); err != nil {
			t.Fatal(err)
		}
	}
	return file(t, b.Bytes())
}
