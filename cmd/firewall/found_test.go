package main

import (
	"strings"
	"testing"

	"github.com/thurward/thurward/internal/shared/abi"
)

// TestNoNetwork: the explanation names where devices were looked for, what was
// found, and what to write.
func TestNoNetwork(t *testing.T) {
	for _, c := range []struct {
		f    abi.Found
		want []string
		not  string
	}{
		{abi.Found{}, []string{"nothing says where one could be", "virtio_mmio.device=SIZE@ADDRESS:IRQ"}, "looked"},
		{abi.Found{Sources: abi.SourceCmdline}, []string{"looked on the command line (virtio_mmio.device)", "network-interfaces"}, "PCI"},
		{abi.Found{Sources: abi.SourceACPI | abi.SourceECAM, Functions: 3}, []string{"in ACPI's DSDT, on PCI, where 3 functions answered", "virtio-net-pci"}, "slots"},
		{abi.Found{Sources: abi.SourceSlots | abi.SourcePorts, Functions: 5, Legacy: 2}, []string{"in microvm's slots, on PCI, where 5 functions", "2 virtio device(s) speak only the version before 1", "disable-modern=off"}, "network-interfaces"},
		{abi.Found{Sources: abi.SourcePorts, Unusable: 1}, []string{"1 virtio device(s) cannot be used, for the reasons above"}, "network-interfaces"},
	} {
		s := noNetwork(c.f)
		for _, w := range append(c.want, "the machine has no network device") {
			if !strings.Contains(s, w) {
				t.Errorf("%+v: no %q in %q", c.f, w, s)
			}
		}
		if strings.Contains(s, c.not) {
			t.Errorf("%+v: %q says %q", c.f, s, c.not)
		}
	}
}
