package e2e

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"sync"
	"testing"

	"github.com/thurward/thurward/internal/host/ecs"
	"github.com/thurward/thurward/internal/host/netlab"
)

// get fetches a page of the web server and returns its body.
func (l *lab) get(ctx context.Context, h *netlab.Host, path string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, "GET", fmt.Sprintf("http://%v%s", l.Web.Addr, path), nil)
	if err != nil {
		return "", err
	}
	r, err := h.HTTP().Do(req)
	if err != nil {
		return "", err
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err == nil && r.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", r.Status, b)
	}
	return string(b), err
}

// outside is the address by which the LAN is seen from outside.
var outside = netip.MustParseAddr("203.0.113.10")

// TestS02_DefaultDeny: what no rule allows is dropped, with one event.
func TestS02_DefaultDeny(t *testing.T) {
	each(t, func(t *testing.T, kvm bool) {
		l := boot(t, kvm)
		if c, err := l.Alice.DialTCP(brief(t), netip.AddrPortFrom(l.Web.Addr, 25)); err == nil {
			c.Close()
			t.Error("connected to a port that no rule allows")
		}
		want := match{Action: "drop", RuleID: "default-deny", Transport: "tcp", Direction: "egress", SrcIP: l.Alice.Addr.String(), DstIP: l.Web.Addr.String(), DstPort: 25}
		if e := l.event(want); e.Str(ecs.EventReason) != "no_matching_allow_rule" {
			t.Errorf("reason %q", e.Str(ecs.EventReason))
		}
		if n := l.count(want); n != 1 {
			t.Errorf("%d events for one packet", n)
		}
	})
}

// TestS10_ReturnTraffic: the answer to an accepted flow comes back, by the
// rule for established flows.
func TestS10_ReturnTraffic(t *testing.T) {
	each(t, func(t *testing.T, kvm bool) {
		l := boot(t, kvm)
		a, err := l.Alice.Resolve(soon(t), l.DNS.Addr, l.WebName())
		if err != nil || a != l.Web.Addr {
			t.Fatalf("%v, %v; want %v", a, err, l.Web.Addr)
		}
		l.event(match{Action: "accept", RuleID: "allow-dns", Transport: "udp", Direction: "egress", SrcIP: l.Alice.Addr.String()})
		l.event(match{Action: "accept", RuleID: "allow-established", Transport: "udp", Direction: "ingress", SrcIP: l.DNS.Addr.String(), SrcPort: 53})
	})
}

// TestS11_UnsolicitedSYN: nothing of what the WAN starts reaches the LAN,
// whether it is addressed to a LAN host or to the firewall.
func TestS11_UnsolicitedSYN(t *testing.T) {
	each(t, func(t *testing.T, kvm bool) {
		l := boot(t, kvm)
		leaked := seen(l.LANSwitch, l.Mallory.Addr)
		for _, dst := range []netip.Addr{l.Alice.Addr, outside} {
			if c, err := l.Mallory.DialTCP(brief(t), netip.AddrPortFrom(dst, 22)); err == nil {
				c.Close()
				t.Errorf("mallory connected to %v", dst)
			}
		}
		l.event(match{Action: "drop", Transport: "tcp", Direction: "ingress", SrcIP: l.Mallory.Addr.String(), DstIP: l.Alice.Addr.String(), DstPort: 22})
		l.event(match{Action: "drop", RuleID: "default-deny", Transport: "tcp", Direction: "ingress", SrcIP: l.Mallory.Addr.String(), DstIP: outside.String(), DstPort: 22})
		if n := leaked(); n != 0 {
			t.Errorf("%d frames of mallory's reached the LAN", n)
		}
	})
}

// seen counts the IPv4 frames with the given source on a switch from now on.
func seen(sw *netlab.Switch, src netip.Addr) func() int {
	var mu sync.Mutex
	n := 0
	sw.Tap(func(_ string, f []byte) {
		if len(f) >= 34 && f[12] == 8 && f[13] == 0 && netip.AddrFrom4([4]byte(f[26:30])) == src {
			mu.Lock()
			n++
			mu.Unlock()
		}
	})
	return func() int { mu.Lock(); defer mu.Unlock(); return n }
}

// TestS16_Masquerade: the server sees the firewall's address and the port
// that the event names.
func TestS16_Masquerade(t *testing.T) {
	each(t, func(t *testing.T, kvm bool) {
		l := boot(t, kvm)
		leaked := seen(l.WANSwitch, l.Alice.Addr)
		if _, err := l.get(soon(t), l.Alice, "/"); err != nil {
			t.Fatal(err)
		}
		e := l.event(match{Action: "accept", RuleID: "allow-web", Transport: "tcp", Direction: "egress", SrcIP: l.Alice.Addr.String(), DstIP: l.Web.Addr.String(), DstPort: 80})
		r := l.Web.Requests()
		if len(r) != 1 || r[0].Source.Addr() != outside || r[0].Source != e.Translated() {
			t.Errorf("the server saw %v, the event says %v", r, e.Translated())
		}
		if n := leaked(); n != 0 {
			t.Errorf("%d frames with an inside address on the WAN", n)
		}
	})
}

// TestS18_ReplyIsTranslatedBack: 10 MB arrive whole, from the server's
// address, at the client that asked.
func TestS18_ReplyIsTranslatedBack(t *testing.T) {
	const size = 10_000_000
	each(t, func(t *testing.T, kvm bool) {
		l := boot(t, kvm)
		req, err := http.NewRequestWithContext(soon(t), "GET", fmt.Sprintf("http://%v/bytes/%d", l.Web.Addr, size), nil)
		if err != nil {
			t.Fatal(err)
		}
		r, err := l.Alice.HTTP().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		h := sha256.New()
		n, err := io.Copy(h, r.Body)
		if err != nil || n != size {
			t.Fatalf("%d bytes of %d, %v", n, size, err)
		}
		if got := hex.EncodeToString(h.Sum(nil)); got != netlab.PatternDigest(size) {
			t.Errorf("sha256 %s, want %s", got, netlab.PatternDigest(size))
		}
	})
}

// TestPing: echo requests and their replies pass, and the firewall itself
// answers on the LAN.
func TestPing(t *testing.T) {
	each(t, func(t *testing.T, kvm bool) {
		l := boot(t, kvm)
		for _, dst := range []netip.Addr{l.Web.Addr, l.Gateway, l.Network.LAN.Addr()} {
			if _, err := l.Alice.Ping(soon(t), dst); err != nil {
				t.Error(err)
			}
		}
		l.event(match{Action: "accept", RuleID: "allow-ping", Transport: "icmp", Direction: "egress", SrcIP: l.Alice.Addr.String(), DstIP: l.Web.Addr.String()})
		if _, err := l.Mallory.Ping(brief(t), outside); err == nil {
			t.Error("the firewall answered on the WAN, where no rule allows it")
		}
	})
}

// TestTwoHostsAtOnce: both hosts' requests are under way at the same time,
// from the same port, and are told apart outside.
func TestTwoHostsAtOnce(t *testing.T) {
	each(t, func(t *testing.T, kvm bool) {
		l := boot(t, kvm)
		var wg sync.WaitGroup
		for _, h := range []*netlab.Host{l.Alice, l.Bob} {
			wg.Go(func() {
				if b, err := l.get(soon(t), h, "/meet/2"); err != nil || b != "2 met\n" {
					t.Errorf("%s: %q, %v", h.Name, b, err)
				}
			})
			wg.Go(func() {
				c, err := h.DialTCPFrom(soon(t), 33333, netip.AddrPortFrom(l.Web.Addr, 80))
				if err != nil {
					t.Error(err)
					return
				}
				defer c.Close()
				fmt.Fprintf(c, "GET /meet/2 HTTP/1.0\r\n\r\n")
			})
		}
		wg.Wait()
		a := l.event(match{Action: "accept", RuleID: "allow-web", SrcIP: l.Alice.Addr.String(), SrcPort: 33333})
		b := l.event(match{Action: "accept", RuleID: "allow-web", SrcIP: l.Bob.Addr.String(), SrcPort: 33333})
		if x, y := a.Translated().Port(), b.Translated().Port(); x == 0 || y == 0 || x == y {
			t.Errorf("external ports %d and %d", x, y)
		}
	})
}

// TestManyConnections: 200 connections are open at the same time, each from
// an external port of its own.
func TestManyConnections(t *testing.T) {
	const n = 200
	each(t, func(t *testing.T, kvm bool) {
		l := boot(t, kvm)
		var wg sync.WaitGroup
		for i := range n {
			wg.Go(func() {
				h := []*netlab.Host{l.Alice, l.Bob}[i%2]
				if _, err := l.get(soon(t), h, fmt.Sprintf("/meet/%d", n)); err != nil {
					t.Errorf("connection %d: %v", i, err)
				}
			})
		}
		wg.Wait()
		ports := map[uint16]bool{}
		for _, r := range l.Web.Requests() {
			if r.Source.Addr() != outside {
				t.Errorf("the server saw %v", r.Source)
			}
			ports[r.Source.Port()] = true
		}
		if len(ports) != n {
			t.Errorf("%d external ports for %d connections", len(ports), n)
		}
	})
}
