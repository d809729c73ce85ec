package kernel

import (
	"os"
	"regexp"
	"strings"
	"testing"
	"time"
)

// waiterMachines are those on which several packet loops wait: QEMU's arguments, and how many
// vectors the device of random numbers has there.
var waiterMachines = map[string]struct {
	args    []string
	vectors string
}{
	"mmio, 1 processor":            {[]string{"-M", "microvm", "-smp", "1", "-device", "virtio-rng-device"}, "1 pci=false"},
	"mmio, 2 processors":           {[]string{"-M", "microvm", "-smp", "2", "-device", "virtio-rng-device"}, "1 pci=false"},
	"mmio, 4 processors":           {[]string{"-M", "microvm", "-smp", "4", "-device", "virtio-rng-device"}, "1 pci=false"},
	"pci, 1 processor":             {[]string{"-M", "q35", "-smp", "1", "-device", "virtio-rng-pci,vectors=5"}, "1 pci=true"},
	"pci, 2 processors":            {[]string{"-M", "q35", "-smp", "2", "-device", "virtio-rng-pci,vectors=5"}, "2 pci=true"},
	"pci, 4 processors":            {[]string{"-M", "q35", "-smp", "4", "-device", "virtio-rng-pci,vectors=5"}, "4 pci=true"},
	"pci, fewer vectors":           {[]string{"-M", "q35", "-smp", "4", "-device", "virtio-rng-pci,vectors=3"}, "2 pci=true"},
	"pci, one vector for queues":   {[]string{"-M", "pc", "-smp", "4", "-device", "virtio-rng-pci,vectors=2"}, "1 pci=true"},
	"pci, more vectors than used":  {[]string{"-M", "pc", "-smp", "2", "-device", "virtio-rng-pci,vectors=64"}, "2 pci=true"},
	"pci, 8 processors":            {[]string{"-M", "q35", "-smp", "8", "-device", "virtio-rng-pci,vectors=16"}, "8 pci=true"},
	"pci, a processor is left out": {[]string{"-M", "q35", "-smp", "2", "-append", "CHECK=waiters smp=off", "-device", "virtio-rng-pci,vectors=5"}, "1 pci=true"},
}

// TestWaiters: several packet loops sleep, each until its own interrupt, a wake-up or its
// deadline; a device's vectors lead to the processors of their queues.
func TestWaiters(t *testing.T) {
	src, err := os.ReadFile("guest/wait.go")
	if err != nil {
		t.Fatal(err)
	}
	names := regexp.MustCompile(`(?m)^\t\{"(waiter-[a-z]+)", `).FindAllSubmatch(src, -1)
	if len(names) < 7 {
		t.Fatalf("found %d checks in guest/wait.go", len(names))
	}
	run := func(t *testing.T, accel, args []string, vectors string) {
		out := boot(t, accel, 3*time.Minute, "CHECK=waiters", args...)
		for _, n := range names {
			if !strings.Contains(out, "guest: ok "+string(n[1])+"\n") {
				t.Errorf("check %s did not pass", n[1])
			}
		}
		if !strings.Contains(out, "guest: vectors="+vectors+"\n") {
			t.Errorf("want vectors=%s", vectors)
		}
		if !strings.Contains(out, "guest: done") || t.Failed() {
			t.Errorf("console:\n%s", out)
		}
	}
	needQEMU(t)
	for name, m := range waiterMachines {
		t.Run(name, func(t *testing.T) { run(t, tcg, m.args, m.vectors) })
	}
	t.Run("accelerators", func(t *testing.T) {
		each(t, func(t *testing.T, accel []string) {
			run(t, accel, []string{"-device", "virtio-rng-device"}, "1 pci=false")
		})
	})
}
