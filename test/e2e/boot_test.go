package e2e

import (
	"bytes"
	"context"
	"os"
	"regexp"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/thurward/thurward/internal/host/vmm"
	"github.com/thurward/thurward/internal/shared/ruleset"
)

// slack is how much later than a frame the console's line may be read that
// was printed before the frame was sent: two goroutines read them.
const slack = 50 * time.Millisecond

// fromVM watches what the machine sends on both sides: the time of its first
// IPv4 frame, zero as long as there is none.
func fromVM(l *lab) func() time.Time {
	var mu sync.Mutex
	var first time.Time
	tap := func(from string, f []byte) {
		if from != "vm" || f[12] != 8 || f[13] != 0 {
			return
		}
		mu.Lock()
		defer mu.Unlock()
		if first.IsZero() {
			first = time.Now()
		}
	}
	l.LANSwitch.Tap(tap)
	l.WANSwitch.Tap(tap)
	return func() time.Time { mu.Lock(); defer mu.Unlock(); return first }
}

// knock keeps both sides asking for something until ctx ends.
func knock(ctx context.Context, l *lab) {
	for ctx.Err() == nil {
		c, cancel := context.WithTimeout(ctx, 5*time.Millisecond)
		var wg sync.WaitGroup
		wg.Go(func() { l.Alice.Ping(c, l.Web.Addr) })   //nolint:errcheck // most must fail
		wg.Go(func() { l.Mallory.Ping(c, l.Bob.Addr) }) //nolint:errcheck // all must fail
		wg.Wait()
		cancel()
	}
}

// TestS48_NothingBeforeReady: hosts on both sides send from power-on, and
// nothing is forwarded before the rules are live; a firewall that refuses to
// start forwards nothing at all.
func TestS48_NothingBeforeReady(t *testing.T) {
	eachAlone(t, func(t *testing.T, kvm bool) {
		l := newLab(t, kvm, nil)
		first := fromVM(l)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { knock(ctx, l) })
		l.awaitReady()
		ready := time.Now()
		if _, err := l.get(soon(t), l.Bob, "/"); err != nil {
			t.Errorf("after ready: %v", err)
		}
		cancel()
		wg.Wait()
		if at := first(); at.IsZero() || ready.Sub(at) > slack {
			t.Errorf("first frame forwarded at %v, ready at %v", at, ready)
		}

		bad := altered(t, func(b []byte) []byte {
			b[bytes.LastIndex(b, []byte(ruleset.Magic))+ruleset.HeaderSize] ^= 1
			return b
		})
		l = newLab(t, kvm, func(c *vmm.Config) { c.Image = bad })
		first = fromVM(l)
		ctx, cancel = context.WithCancel(t.Context())
		wg.Go(func() { knock(ctx, l) })
		select {
		case <-l.ended:
		case <-soon(t).Done():
			t.Error("the refusal took too long")
		}
		cancel()
		wg.Wait()
		if at := first(); !at.IsZero() {
			t.Error("a firewall that refused to start forwarded a frame")
		}
	})
}

// TestReadyLine: the line says what runs.
func TestReadyLine(t *testing.T) {
	each(t, func(t *testing.T, kvm bool) {
		l := newLab(t, kvm, nil)
		r := l.awaitReady()
		if r.Version == "" || r.LAN != vmm.DefaultMAC(vmm.LAN) || r.WAN != vmm.DefaultMAC(vmm.WAN) || r.Boot <= 0 ||
			r.Policy != "sha256:e2e0000000000000000000000000000000000000000000000000000000000000" {
			t.Errorf("%+v", r)
		}
	})
}

// TestChoose: the image comes up under KVM where there is one, and the
// launcher says what it took and why.
func TestChoose(t *testing.T) {
	q, err := vmm.FindQEMU()
	if err != nil {
		t.Skip(err)
	}
	kvm, why, err := q.Choose(soon(t), vmm.Auto, testImage(t), 64)
	t.Logf("kvm=%v: %s", kvm, why)
	if err != nil || kvm && vmm.KVMError() != nil || why == "" {
		t.Errorf("%v, %q, %v", kvm, why, err)
	}
	if kvm, _, err := q.Choose(soon(t), vmm.TCG, testImage(t), 64); kvm || err != nil {
		t.Errorf("asked for TCG: %v, %v", kvm, err)
	}
	bad := altered(t, func(b []byte) []byte { copy(b[0x1000:], make([]byte, 1<<18)); return b })
	if vmm.KVMError() == nil {
		kvm, why, err = q.Choose(soon(t), vmm.Auto, bad, 64)
		t.Logf("damaged image: kvm=%v: %s", kvm, why)
		if err != nil || kvm {
			t.Errorf("an image that does not come up: %v, %v", kvm, err)
		}
	}
}

// TestOldNetdev: the socket netdev of QEMU before 7.2 carries the same frames.
func TestOldNetdev(t *testing.T) {
	t.Parallel()
	q, err := vmm.FindQEMU()
	if err != nil {
		t.Skip(err)
	}
	old := *q
	old.Version = vmm.Version{Major: 7, Minor: 1}
	l := newLabOn(t, &old, false, nil)
	l.awaitReady()
	if _, err := l.get(soon(t), l.Alice, "/bytes/100000"); err != nil {
		t.Error(err)
	}
}

// Bounds of the image, without and with DNS over TLS, in MB (ADR 61).
const (
	imageMB = 3.3
	dotMB   = 6.2
)

// TestImageSize: the image with its policy stays small, and is as large as
// documents say, with and without TLS.
func TestImageSize(t *testing.T) {
	t.Parallel()
	size := func(path string) float64 {
		fi, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%d bytes", fi.Size())
		return float64(fi.Size()) / 1e6
	}
	plain, dot := size(testImage(t)), size(linked(t, func(p *ruleset.Policy) {
		name := ruleset.Text{Off: uint32(len(p.Strings)), Len: uint32(len("dns.example"))}
		p.Strings = append(p.Strings, "dns.example"...)
		p.Upstreams = append(p.Upstreams, ruleset.Upstream{Address: p.Interfaces[1].Gateway, ServerName: name, Port: 853, TLS: 1})
	}))
	if plain > imageMB || dot > dotMB {
		t.Errorf("the images have %.2f and %.2f MB, at most %v and %v are wanted", plain, dot, imageMB, dotMB)
	}
	for _, c := range []struct {
		file, says string
		is         float64
	}{
		{"SPECIFICATION.md", `\(([0-9.]+) MB with the sample policy`, plain},
		{"README.md", `one ELF file, ([0-9.]+) MB`, plain},
		{"docs/dns.md", `in place of ([0-9.]+) MB`, plain},
		{"docs/dns.md", `the image has ([0-9.]+) MB`, dot},
	} {
		b, err := os.ReadFile("../../" + c.file)
		if err != nil {
			t.Fatal(err)
		}
		m := regexp.MustCompile(c.says).FindSubmatch(b)
		if m == nil {
			t.Errorf("%s does not say how large the image is", c.file)
			continue
		}
		if mb, _ := strconv.ParseFloat(string(m[1]), 64); c.is < 0.95*mb || c.is > 1.05*mb {
			t.Errorf("%s says %v MB, the image has %.2f", c.file, mb, c.is)
		}
	}
}
