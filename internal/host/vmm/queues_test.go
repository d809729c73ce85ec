package vmm

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestQueues: as many pairs of queues as a machine's processors can use, a power of two.
func TestQueues(t *testing.T) {
	for cpus, want := range map[int]int{0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 7: 4, 8: 8, 16: 8} {
		if got := Queues(cpus); got != want {
			t.Errorf("%d processors: %d, want %d", cpus, got, want)
		}
	}
}

// TestQueueArgs: a TAP device with several queues is given to QEMU with as many descriptors, and the
// kernel's vhost-net with as many; the device has as many interrupts on PCI. Where a network has
// one, the launcher says so and why, unless the machine has one processor.
func TestQueueArgs(t *testing.T) {
	there := filepath.Join(t.TempDir(), "vhost-net")
	if err := os.WriteFile(there, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	before := vhostNet
	defer func() { vhostNet = before }()
	tap := func(queues int) Backend {
		return func(id string, _ Version, fd int) (Attachment, error) {
			var fs []*os.File
			for range queues {
				f, err := os.Open(os.DevNull)
				if err != nil {
					return Attachment{}, err
				}
				fs = append(fs, f)
			}
			return tapAttachment(id, "none", fd, fs...), nil
		}
	}
	for _, x := range []struct {
		name         string
		cpus, queues int
		machine      MachineType
		vhost        bool
		netdev, dev  string
		files        int
		said         string
	}{
		{"one", 1, 1, Microvm, false, "tap,id=n0,fd=3", ",netdev=n0,mac=M", 1, ""},
		{"two", 2, 2, Microvm, false, "tap,id=n0,fds=3:4", ",netdev=n0,mac=M,mq=on", 2, ""},
		{"two on PCI", 2, 2, Q35, false, "tap,id=n0,fds=3:4", ",netdev=n0,mac=M,mq=on,vectors=6", 2, ""},
		{"four, vhost", 4, 4, MicrovmPCI, true, "tap,id=n0,fds=3:4:5:6,vhost=on,vhostfds=7:8:9:10", ",netdev=n0,mac=M,mq=on,vectors=10", 8, ""},
		{"one of two", 2, 1, Q35, false, "tap,id=n0,fd=3", ",netdev=n0,mac=M", 1, "the lan has 1 pair of queues: of 2 processors one forwards packets"},
	} {
		if vhostNet = filepath.Join(filepath.Dir(there), "none"); x.vhost {
			vhostNet = there
		}
		said := ""
		c := Config{Image: "fw.img", Machine: x.machine, KVM: true, MemoryMB: 64, CPUs: x.cpus,
			NICs: []NIC{{Role: LAN, MAC: "M", Backend: tap(x.queues)}, {MAC: DefaultMAC(WAN), Backend: Unplugged}},
			Log:  func(f string, a ...any) { said += fmt.Sprintf(f, a...) }}
		args, at, err := c.args(Version{7, 2})
		if err != nil {
			t.Fatal(err)
		}
		files := 0
		for _, f := range at.Files {
			if n := f.Name(); n == os.DevNull || n == there {
				files++
			}
		}
		said = strings.TrimPrefix(said, "the kernel moves the frames of a TAP device (vhost-net)")
		if !slices.Contains(args, x.netdev) || !slices.Contains(args, x.machine.netDevice()+x.dev) || files != x.files || (said == "") != (x.said == "") || !strings.Contains(said, x.said) {
			t.Errorf("%s: %q, %d files, said %q", x.name, args, files, said)
		}
		at.drop()
	}
}

// TestTapQueues: a device that was made for several queues is opened as often; of one that was not
// one queue is used, and the remedy is said; a bridge's device is made with as many.
func TestTapQueues(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root makes network devices")
	}
	ip := func(args string) {
		t.Helper()
		if out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput(); err != nil {
			t.Skipf("ip %s: %s", args, out)
		}
	}
	id := fmt.Sprint(os.Getpid() % 100000)
	one, many, bridge := "thwo"+id, "thwm"+id, "thwq"+id
	defer func() {
		for _, n := range []string{one, many, bridge} {
			exec.Command("ip", "link", "del", n).Run() //nolint:errcheck // it may not be there
		}
	}()
	ip("tuntap add dev " + one + " mode tap")
	ip("tuntap add dev " + many + " mode tap multi_queue")
	ip("link add " + bridge + " type bridge")
	open := func(kind Kind, arg string, queues int) (at Attachment) {
		t.Helper()
		b, err := NewBackend(Spec{Kind: kind, Arg: arg}, Network{Queues: queues})
		if err == nil {
			at, err = b("n0", Version{7, 2}, 3)
		}
		if err != nil {
			t.Fatal(err)
		}
		return at
	}
	for _, x := range []struct {
		kind         Kind
		dev          string
		asked, have  int
		single       string
		partedByPlug bool
	}{
		{Tap, many, 4, 4, "", false}, {Tap, many, 1, 1, "", true}, {Tap, many, 0, 1, "", true},
		{Tap, one, 4, 1, "ip tuntap add dev " + one + " mode tap multi_queue", false},
		{Bridge, bridge, 2, 2, "", true}, {Bridge, bridge, 1, 1, "", true},
	} {
		at := open(x.kind, x.dev, x.asked)
		if at.queues != x.have || len(at.Files) != x.have || !strings.Contains(at.single, x.single) || (at.single == "") != (x.single == "") ||
			(at.plug() != nil) != x.partedByPlug {
			t.Errorf("%s, %d asked for: %d queues, %d files, %q", x.dev, x.asked, at.queues, len(at.Files), at.single)
		}
		at.drop()
	}
}
