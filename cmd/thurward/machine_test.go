package main

import (
	"errors"
	"strings"
	"testing"

	"github.com/thurward/thurward/internal/host/vmm"
)

// TestMachineFor: auto takes devices on PCI where that is faster (ADR 0058), and a machine that
// is named is taken wherever. A machine that was not named has no watchdog device where its
// stream is watched.
func TestMachineFor(t *testing.T) {
	for _, c := range []struct {
		machine, lan, wan string
		kvm               bool
		want              vmm.MachineType
	}{
		{"auto", "bridge:br0", "bridge:br1", true, vmm.MicrovmPCI},
		{"auto", "tap:t0", "user", true, vmm.MicrovmPCI},
		{"auto", "user", "tap:t0", true, vmm.MicrovmPCI},
		{"auto", "bridge:br0", "bridge:br1", false, vmm.Microvm}, // TCG
		{"auto", "demo", "demo", true, vmm.Microvm},
		{"auto", "user", "unix:/s", true, vmm.Microvm},
		{"microvm", "bridge:br0", "bridge:br1", true, vmm.Microvm},
		{"q35", "bridge:br0", "bridge:br1", true, vmm.Q35},
		{"microvm-pci", "demo", "demo", false, vmm.MicrovmPCI},
	} {
		l := &launch{autoMachine: c.machine == autoMachine}
		var errs [3]error
		l.lan, errs[0] = vmm.ParseSpec(c.lan)
		l.wan, errs[1] = vmm.ParseSpec(c.wan)
		if !l.autoMachine {
			l.machine, errs[2] = vmm.ParseMachine(c.machine)
		}
		if err := errors.Join(errs[:]...); err != nil {
			t.Fatal(err)
		}
		if got := l.machineFor(c.kvm); got != c.want {
			t.Errorf("--machine %s --lan %s --wan %s, KVM %v: %v, want %v", c.machine, c.lan, c.wan, c.kvm, got, c.want)
		}
	}
	for _, c := range []struct {
		auto  bool
		vsock string
		want  bool
	}{{true, "/run/v", true}, {true, "", false}, {false, "/run/v", false}} {
		l := &launch{autoMachine: c.auto, machine: vmm.MicrovmPCI, vsock: vmm.Vsock{Path: c.vsock}}
		if got := l.machineConfig("x.img", true, nil).NoDog; got != c.want {
			t.Errorf("auto %v, stream at %q: without a watchdog device %v, want %v", c.auto, c.vsock, got, c.want)
		}
	}
	cmd := newRunCmd()
	if f := cmd.Flag("machine"); f.DefValue != autoMachine {
		t.Errorf("--machine is %s where it is not given", f.DefValue)
	}
	cmd.SetArgs([]string{"--machine", "virt"})
	if err := cmd.Execute(); err == nil || !strings.Contains(err.Error(), "want auto, microvm, microvm-pci, q35, q35-iommu or pc") {
		t.Errorf("--machine virt: %v", err)
	}
}
