package evasions

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/thurward/thurward/internal/host/image"
	"github.com/thurward/thurward/internal/host/kernelbuild"
	"github.com/thurward/thurward/internal/host/policy/compile"
	"github.com/thurward/thurward/internal/host/vmm"
)

// booted are attacks that run on the booted image: some of each family. Those
// of a group share one start of it, so that what one leaves behind is of no use
// to the next.
var booted = [][]string{
	{"tcp/xmas-scan", "tcp/middle", "tcp/blind-reset", "tcp/blind-data", "tcp/slipstream",
		"addresses/inside-address", "addresses/not-a-partner", "addresses/land", "addresses/foreign-source", "addresses/loose-source-route", "addresses/vlan", "addresses/ipv6",
		"fragments/tiny", "fragments/overlap", "fragments/teardrop", "fragments/mixed-sources",
		"icmp/blind-error", "icmp/redirect", "icmp/reply-first", "icmp/side-channel",
		"arp/lan-address-on-wan", "arp/other-hardware", "arp/short", // own-address is defended once in 10 seconds
		// These last: what they leave is reset after 10 seconds, in the middle of others.
		"hello/plain", "hello/ttl-of-one", "hello/checksum", "hello/overlap", "hello/segments", "hello/records", "hello/two-names", "hello/in-ack", "hello/split-handshake"},
	{"names/binding-of-other"}, {"names/forged-id"}, {"names/two-labels"},
	{"shares/query-rate"},
}

var every = flag.Bool("every", false, "TestOnTheImage: every attack, each on a firewall that has just started (root, QEMU; an hour)")

// TestOnTheImage: attacks on the booted image, between two namespaces, in each
// of which packet sockets are the hosts.
func TestOnTheImage(t *testing.T) {
	q, err := vmm.FindQEMU()
	if err != nil {
		t.Skip(err)
	}
	w := newWires(t, 40*time.Millisecond, true)
	for i, r := range []vmm.Role{vmm.LAN, vmm.WAN} {
		m, err := net.ParseMAC(vmm.DefaultMAC(r))
		if err != nil {
			t.Fatal(err)
		}
		w.macs[i] = [6]byte(m)
	}
	dir := t.TempDir()
	in, err := builtParts(dir)
	if err != nil {
		t.Fatal(err)
	}
	link := func(t *testing.T, at *attack) (path string) {
		in.Policy = compile.Encode(compiled(t, at))
		b, err := image.Link(in)
		if err != nil {
			t.Fatal(err)
		}
		path = filepath.Join(dir, strings.ReplaceAll(at.name, "/", "-")+".img")
		if err := os.WriteFile(path, b, 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	if *every {
		for _, f := range families {
			for i := range f.attacks {
				at := &f.attacks[i]
				if !strings.Contains(at.name, *only) {
					continue
				}
				t.Run(at.name, func(t *testing.T) {
					if at.local == inCounter {
						t.Skip(inCounter)
					}
					path := link(t, at)
					defer os.Remove(path)
					off := func() {}
					defer func() { off() }()
					again := func() {
						off()
						off = powerOn(t, q, path, w.bridge)
						w.settle()
					}
					if o := w.outcome(t, at, again); o != mine(at) {
						t.Errorf("%s, want %s", o, mine(at))
					}
				})
			}
		}
		return
	}
	byName := map[string]*attack{}
	for _, f := range families {
		for i := range f.attacks {
			byName[f.attacks[i].name] = &f.attacks[i]
		}
	}
	for _, group := range booted {
		at := byName[group[0]]
		if at == nil {
			t.Fatalf("no attack %q", group[0])
		}
		off := powerOn(t, q, link(t, at), w.bridge)
		for _, name := range group {
			t.Run(name, func(t *testing.T) {
				at := byName[name]
				if at == nil {
					t.Fatal("there is no such attack")
				}
				if o := w.outcome(t, at, nil); o != holds {
					t.Error(o)
				}
			})
		}
		off()
	}
}

// powerOn boots an image between two bridges and returns when it is ready; off
// ends it.
func powerOn(t *testing.T, q *vmm.QEMU, path string, bridges [2]string) (off func()) {
	t.Helper()
	c := vmm.Config{Image: path, MemoryMB: 64, CPUs: 1, KVM: kvm(q, path)}
	for i, r := range []vmm.Role{vmm.LAN, vmm.WAN} {
		b, err := vmm.NewBackend(vmm.Spec{Kind: vmm.Bridge, Arg: bridges[i]}, vmm.Network{})
		if err != nil {
			t.Skip(err)
		}
		c.NICs = append(c.NICs, vmm.NIC{Role: r, MAC: vmm.DefaultMAC(r), Backend: b})
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	ready, ended := make(chan bool, 1), make(chan error, 1)
	var mu sync.Mutex
	var console strings.Builder
	go func() {
		ended <- q.Run(ctx, c, vmm.RunOptions{OnLine: func(l vmm.Line) {
			mu.Lock()
			defer mu.Unlock()
			if l.Kind == vmm.Ready {
				ready <- true
			} else if l.Kind != vmm.EventLine {
				console.WriteString(l.Text + "\n")
			}
		}})
	}()
	off = func() {
		cancel(errors.New("the test is over"))
		<-ended
	}
	select {
	case <-ready:
	case err := <-ended:
		mu.Lock()
		defer mu.Unlock()
		t.Fatalf("the machine ended: %v\n%s", err, console.String())
	case <-time.After(20 * time.Second):
		off()
		t.Fatal("not ready within 20 seconds")
	}
	return off
}

// kvm reports whether images run under KVM here.
func kvm(q *vmm.QEMU, path string) bool {
	kvmOnce.Do(func() { kvmWorks, _, _ = q.Choose(context.Background(), vmm.Auto, path, 64) })
	return kvmWorks
}

var (
	kvmOnce  sync.Once
	kvmWorks bool
)

// builtParts builds the kernel and the firewall.
func builtParts(dir string) (in image.Input, err error) {
	kernel, program := filepath.Join(dir, "kernel.elf"), filepath.Join(dir, "firewall.elf")
	if err := kernelbuild.Kernel(kernel); err != nil {
		return in, err
	}
	cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w -buildid=", "-o", program, "github.com/thurward/thurward/cmd/firewall")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64")
	if b, err := cmd.CombinedOutput(); err != nil {
		return in, fmt.Errorf("building the firewall: %w\n%s", err, b)
	}
	if in.Kernel, err = os.ReadFile(kernel); err != nil {
		return in, err
	}
	in.Program, err = os.ReadFile(program)
	return in, err
}
