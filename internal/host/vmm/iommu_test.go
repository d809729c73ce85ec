package vmm

import (
	"net"
	"path/filepath"
	"strings"
	"testing"
)

// TestPastTheIOMMU: on a machine with an IOMMU no back end is taken that reaches memory past
// it; on the same machine without one it is.
func TestPastTheIOMMU(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s, err := ParseSpec("vhost-user:" + socket)
	if err != nil {
		t.Fatal(err)
	}
	b, err := NewBackend(s, Network{})
	if err != nil {
		t.Fatal(err)
	}
	other := Config{Image: "fw.img", MemoryMB: 64, CPUs: 1, NICs: []NIC{{Role: LAN, MAC: DefaultMAC(LAN), Backend: b}, {Role: WAN, MAC: DefaultMAC(WAN), Backend: Unplugged}}}
	kernel := Config{Image: "fw.img", MemoryMB: 64, CPUs: 1, Vsock: Vsock{CID: 5}}
	for name, c := range map[string]struct {
		c    Config
		want string
	}{"vhost-user": {other, socket + " leads to"}, "the kernel's vsock": {kernel, "the kernel's vsock device would reach"}} {
		c.c.Machine = Q35IOMMU
		if _, all, err := c.c.args(Version{7, 2}); err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "--machine q35)") {
			all.drop()
			t.Errorf("%s: %v", name, err)
		}
		c.c.Machine = Q35
		if _, all, err := c.c.args(Version{7, 2}); err == nil {
			all.drop()
		} else if strings.Contains(err.Error(), "IOMMU") {
			t.Errorf("%s without an IOMMU: %v", name, err)
		}
	}
}
