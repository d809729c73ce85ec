package vmm

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestVhostNet: a TAP device is given to the kernel where there is vhost-net, by a
// descriptor that QEMU inherits, and run says so; with TCG, for other networks and without
// vhost-net nothing changes. A file stands in for it.
func TestVhostNet(t *testing.T) {
	there := filepath.Join(t.TempDir(), "vhost-net")
	if err := os.WriteFile(there, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	before := vhostNet
	defer func() { vhostNet = before }()
	tap := func(id string, _ Version, fd int) (Attachment, error) {
		f, err := os.Open(os.DevNull)
		return tapAttachment(id, "none", fd, f), err
	}
	for _, x := range []struct {
		name, path string
		kvm        bool
		wan        Backend
		want       []string // -netdev
		files      int
		said       string
	}{
		{"both", there, true, tap, []string{"tap,id=n0,fd=3,vhost=on,vhostfd=4", "tap,id=n1,fd=5,vhost=on,vhostfd=6"}, 4, "vhost-net"},
		{"one", there, true, Unplugged, []string{"tap,id=n0,fd=3,vhost=on,vhostfd=4", "hubport,id=n1,hubid=1"}, 2, "vhost-net"},
		{"TCG", there, false, tap, []string{"tap,id=n0,fd=3", "tap,id=n1,fd=4"}, 2, ""},
		{"there is none", there + "-not", true, tap, []string{"tap,id=n0,fd=3", "tap,id=n1,fd=4"}, 2, ""},
		{"may not be opened", filepath.Dir(there), true, tap, []string{"tap,id=n0,fd=3", "tap,id=n1,fd=4"}, 2, "which takes longer"},
	} {
		vhostNet = x.path
		said := ""
		c := Config{Image: "fw.img", KVM: x.kvm, MemoryMB: 64, CPUs: 1,
			NICs: []NIC{{Role: LAN, MAC: DefaultMAC(LAN), Backend: tap}, {Role: WAN, MAC: DefaultMAC(WAN), Backend: x.wan}},
			Log:  func(f string, a ...any) { said += fmt.Sprintf(f, a...) }}
		args, at, err := c.args(Version{7, 2})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for i, a := range args {
			if a == "-netdev" {
				got = append(got, args[i+1])
			}
		}
		files := 0
		for _, f := range at.Files {
			if n := f.Name(); n == os.DevNull || n == there {
				files++
			}
		}
		if !slices.Equal(got, x.want) || files != x.files || (said == "") != (x.said == "") || !strings.Contains(said, x.said) {
			t.Errorf("%s: %q, %d files, said %q", x.name, got, files, said)
		}
		at.drop()
	}
}
