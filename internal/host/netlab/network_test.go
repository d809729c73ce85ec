package netlab

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/thurward/thurward/internal/guest/framebuf"
)

// limit is for steps that must succeed; they take milliseconds.
const limit = 20 * time.Second

func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// routed returns a network in which a plain router without rules stands where
// the firewall would, attached to the given switches.
func routed(t *testing.T, attach func(w *Network) (lan, wan *Switch)) *Network {
	t.Helper()
	w, err := New(DefaultConfig())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	lan, wan := attach(w)
	gw, err := NewHost("gw")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(gw.Close)
	if err := errors.Join(gw.Connect(lan, w.LAN), gw.Connect(wan, w.WAN), gw.Forward(),
		gw.Route(everywhere, w.Gateway), w.Router.Route(w.LAN.Masked(), w.WAN.Addr())); err != nil {
		t.Fatal(err)
	}
	return w
}

// direct attaches the router without anything between.
func direct(w *Network) (lan, wan *Switch) { return w.LANSwitch, w.WANSwitch }

// transports are the ways between the network's switches and the firewall.
var transports = map[string]func(t *testing.T) func(w *Network) (lan, wan *Switch){
	"direct": func(*testing.T) func(w *Network) (lan, wan *Switch) { return direct },
	"stream": func(t *testing.T) func(w *Network) (lan, wan *Switch) {
		return func(w *Network) (lan, wan *Switch) { return far(t, w.LANSwitch), far(t, w.WANSwitch) }
	},
	"pool": func(t *testing.T) func(w *Network) (lan, wan *Switch) {
		return func(w *Network) (lan, wan *Switch) { return patch(t, w.LANSwitch), patch(t, w.WANSwitch) }
	},
}

// far returns a switch joined to sw as QEMU joins a NIC.
func far(t *testing.T, sw *Switch) *Switch {
	path := filepath.Join(t.TempDir(), sw.Name)
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go sw.Serve(l, "vm")
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	other := NewSwitch(sw.Name + "-far")
	go other.ServeConn(c, "host")
	return other
}

// patch returns a switch joined to sw by a loop that polls two ports.
func patch(t *testing.T, sw *Switch) *Switch {
	other := NewSwitch(sw.Name + "-far")
	pool := framebuf.NewPool(make([]byte, 64*framebuf.Size), 0)
	wake := make(chan struct{}, 1)
	a, b := NewPoolPort(sw, "a", pool, wake), NewPoolPort(other, "b", pool, wake)
	go func() {
		var batch [16]framebuf.Frame
		for {
			n := a.Receive(batch[:])
			b.Transmit(batch[:n])
			m := b.Receive(batch[:])
			a.Transmit(batch[:m])
			if n+m > 0 {
				continue
			}
			select {
			case <-wake:
			case <-t.Context().Done():
				return
			}
		}
	}()
	return other
}

func eachTransport(t *testing.T, f func(t *testing.T, w *Network)) {
	for name, tr := range transports {
		t.Run(name, func(t *testing.T) { f(t, routed(t, tr(t))) })
	}
}

func TestFetchIsIntact(t *testing.T) {
	eachTransport(t, func(t *testing.T, w *Network) {
		const n = 3_000_000
		url := fmt.Sprintf("http://%v/bytes/%d", w.Web.Addr, n)
		r, err := w.Alice.HTTP().Get(url)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		h := sha256.New()
		if m, err := io.Copy(h, r.Body); err != nil || m != n {
			t.Fatalf("%d bytes, %v", m, err)
		}
		if got := hex.EncodeToString(h.Sum(nil)); got != PatternDigest(n) {
			t.Errorf("digest %s, want %s", got, PatternDigest(n))
		}
		seen := w.Web.Requests()
		if len(seen) != 1 || seen[0].Source.Addr() != w.Alice.Addr || seen[0].What != "/bytes/3000000" {
			t.Errorf("the server saw %v", seen)
		}
	})
}

func TestPing(t *testing.T) {
	eachTransport(t, func(t *testing.T, w *Network) {
		if _, err := w.Alice.Ping(within(t, limit), w.Web.Addr); err != nil {
			t.Error(err)
		}
		if _, err := w.Bob.Ping(within(t, limit), w.LAN.Addr()); err != nil {
			t.Error(err)
		}
	})
}

func TestResolve(t *testing.T) {
	w := routed(t, direct)
	a, err := w.Alice.Resolve(within(t, limit), w.DNS.Addr, w.WebName())
	if err != nil || a != w.Web.Addr {
		t.Errorf("%v, %v; want %v", a, err, w.Web.Addr)
	}
	if _, err := w.Alice.Resolve(within(t, limit), w.DNS.Addr, w.NoName()); !errors.Is(err, ErrNoName) {
		t.Errorf("%v; want ErrNoName", err)
	}
	seen := w.DNS.Requests()
	if len(seen) != 2 || seen[0].Source.Addr() != w.Alice.Addr || seen[1].What != w.NoName()+"." {
		t.Errorf("the server saw %v", seen)
	}
}

func TestMalloryReachesTheLANWithoutAFirewall(t *testing.T) {
	w := routed(t, direct)
	c, err := w.Mallory.DialTCP(within(t, limit), netip.AddrPortFrom(w.Alice.Addr, 22))
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}

// TestNothingPassesWithoutAFirewall: the two sides are not connected otherwise.
func TestNothingPassesWithoutAFirewall(t *testing.T) {
	w, err := New(DefaultConfig())
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if _, err := w.Alice.Ping(within(t, 50*time.Millisecond), w.Web.Addr); err == nil {
		t.Error("a reply came")
	}
}

func TestMeetNeedsEverybody(t *testing.T) {
	w := routed(t, direct)
	url := fmt.Sprintf("http://%v/meet/20", w.Web.Addr)
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			r, err := w.Alice.HTTP().Get(url)
			if err != nil {
				t.Error(err)
				return
			}
			b, _ := io.ReadAll(r.Body)
			r.Body.Close()
			if string(b) != "20 met\n" {
				t.Errorf("%q", b)
			}
		})
	}
	wg.Wait()
}

func TestConfigIsChecked(t *testing.T) {
	for name, c := range map[string]struct{ lan, wan, want string }{
		"small":   {"10.0.0.1/31", "203.0.113.10/24", "too small"},
		"overlap": {"203.0.113.129/25", "203.0.113.10/24", "overlap"},
		"far":     {"10.0.0.1/24", "198.51.100.7/24", "overlap"},
	} {
		cfg := DefaultConfig()
		cfg.LAN, cfg.WAN = netip.MustParsePrefix(c.lan), netip.MustParsePrefix(c.wan)
		w, err := New(cfg)
		if err == nil {
			w.Close()
		}
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v; want %q", name, err, c.want)
		}
	}
}
