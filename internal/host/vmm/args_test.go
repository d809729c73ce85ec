package vmm

import (
	"flag"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// TestArgs compares QEMU's command lines with testdata/*.args, one argument
// and its value a line.
func TestArgs(t *testing.T) {
	backend := func(s string, n Network) Backend {
		t.Helper()
		spec, err := ParseSpec(s)
		if err != nil {
			t.Fatal(err)
		}
		b, err := NewBackend(spec, n)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	discard := Network{Serve: func(c net.Conn) { c.Close() }}
	home := Network{Subnet: netip.MustParsePrefix("203.0.113.10/24"), Host: netip.MustParseAddr("203.0.113.1")}
	socket := filepath.Join(t.TempDir(), "vhost,0")
	if err := os.WriteFile(socket, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	two := func(lan, wan Backend) []NIC {
		return []NIC{{Role: LAN, MAC: DefaultMAC(LAN), Backend: lan}, {Role: WAN, MAC: DefaultMAC(WAN), Backend: wan}}
	}
	for name, c := range map[string]struct {
		cfg Config
		v   Version
	}{
		"demo-kvm":   {Config{Image: "fw.img", KVM: true, MemoryMB: 64, CPUs: 1, NICs: two(backend("demo", discard), backend("demo", discard))}, Version{7, 2}},
		"demo-old":   {Config{Image: "fw.img", MemoryMB: 128, CPUs: 2, NICs: two(backend("demo", discard), backend("demo", discard)), Append: "a=b c"}, Version{6, 2}},
		"user":       {Config{Image: "fw.img", MemoryMB: 64, CPUs: 1, NICs: two(Unplugged, backend("user", home))}, Version{7, 2}},
		"vhost-2":    {Config{Image: "fw.img", MemoryMB: 128, CPUs: 2, NICs: two(backend("vhost-user:"+socket, Network{BackEndQueues: 2, Queues: 4}), Unplugged)}, Version{7, 2}},
		"vhost-user": {Config{Image: "fw.img", KVM: true, MemoryMB: 256, CPUs: 1, NICs: two(backend("vhost-user:"+socket, Network{}), Unplugged)}, Version{7, 2}},
		"probe":      {Config{Image: "fw.img", KVM: true, MemoryMB: 64, CPUs: 1, Append: probeArg}, Version{7, 2}},
		"vsock":      {Config{Image: "fw.img", MemoryMB: 64, CPUs: 1, NICs: two(backend("demo", discard), Unplugged), Vsock: Vsock{Path: "/none/v"}}, Version{7, 2}},
		"vsock-port": {Config{Image: "fw.img", MemoryMB: 64, CPUs: 1, NICs: two(Unplugged, Unplugged), Vsock: Vsock{Path: "/none/v", Port: 4294967294}}, Version{7, 2}},
		"q35":        {Config{Image: "fw.img", Machine: Q35, dog: true, MemoryMB: 64, CPUs: 1, NICs: two(Unplugged, Unplugged), Vsock: Vsock{Path: "/none/v"}}, Version{7, 2}},
		"q35-iommu":  {Config{Image: "fw.img", KVM: true, Machine: Q35IOMMU, dog: true, MemoryMB: 64, CPUs: 1, NICs: two(Unplugged, Unplugged), Vsock: Vsock{Path: "/none/v"}}, Version{7, 2}},
		"pci":        {Config{Image: "fw.img", Machine: MicrovmPCI, dog: true, MemoryMB: 64, CPUs: 1, NICs: two(Unplugged, Unplugged)}, Version{7, 2}},
		"three":      {Config{Image: "fw.img", MemoryMB: 64, CPUs: 1, NICs: append(two(Unplugged, Unplugged), NIC{Role: None, MAC: "52:54:00:74:68:03", Backend: Unplugged})}, Version{7, 2}},
		"pc-old":     {Config{Image: "fw.img", Machine: PC, dog: true, MemoryMB: 64, CPUs: 1, NICs: two(backend("vhost-user:"+socket, Network{}), Unplugged)}, Version{5, 2}},
		"pc-new":     {Config{Image: "fw.img", Machine: PC, dog: true, MemoryMB: 64, CPUs: 1, NICs: two(backend("vhost-user:"+socket, Network{}), Unplugged)}, Version{9, 2}},
	} {
		t.Run(name, func(t *testing.T) {
			args, have, err := c.cfg.args(c.v)
			if err != nil {
				t.Fatal(err)
			}
			defer have.drop()
			var b strings.Builder
			for i, a := range args {
				if i > 0 && strings.HasPrefix(a, "-") {
					b.WriteByte('\n')
				} else if i > 0 {
					b.WriteByte(' ')
				}
				b.WriteString(strings.ReplaceAll(a, filepath.Dir(socket), "DIR"))
			}
			b.WriteByte('\n')
			golden := filepath.Join("testdata", name+".args")
			if *update {
				if err := os.WriteFile(golden, []byte(b.String()), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(string(want), b.String()); d != "" {
				t.Errorf("-want +got (go test ./internal/host/vmm -update accepts it):\n%s", d)
			}
		})
	}
}

// TestNetworksThatAreNotThere: each error has a remedy.
func TestNetworksThatAreNotThere(t *testing.T) {
	dir := t.TempDir()
	for spec, want := range map[string]string{
		"tap:thw-missing":             "ip tuntap add dev thw-missing",
		"tap:lo":                      "not a TAP device",
		"bridge:thw-missing":          "ip link add thw-missing type bridge",
		"unix:" + dir + "/none":       "something must listen there",
		"vhost-user:" + dir + "/none": "start the vhost-user back end first",
		"user":                        "does not say which network",
	} {
		s, err := ParseSpec(spec)
		if err != nil {
			t.Fatal(err)
		}
		b, err := NewBackend(s, Network{})
		if err == nil {
			_, err = b("n0", Version{7, 2}, 3)
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; want %q", spec, err, want)
		}
	}
}

// TestVsockOption: the values of --vsock, and its errors.
func TestVsockOption(t *testing.T) {
	for s, want := range map[string]Vsock{"none": {}, "auto": {Path: "/run/def"}, "/a/b": {Path: "/a/b"}, "kernel:42": {CID: 42}} {
		if v, err := ParseVsock(s, "/run/def"); err != nil || v != want {
			t.Errorf("%s: %+v, %v", s, v, err)
		}
	}
	for s, want := range map[string]string{"": "a path is missing", "kernel": "kernel:CID", "kernel:2": "3 or more", "kernel:x": "3 or more", "/" + strings.Repeat("x", 101): "at most 96"} {
		if _, err := ParseVsock(s, "/run/def"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; want %q", s, err, want)
		}
	}
	at, err := (&Config{Vsock: Vsock{CID: 42}}).attachVsock(3)
	if _, missing := os.Stat(vhostVsock); missing != nil {
		if err == nil || !strings.Contains(err.Error(), "modprobe vhost_vsock") {
			t.Errorf("without %s: %v", vhostVsock, err)
		}
	} else if err == nil && strings.Join(at.Args, " ") != "-device vhost-vsock-device,guest-cid=42,vhostfd=3" {
		t.Errorf("%v", at.Args)
	}
}

func TestParseMachine(t *testing.T) {
	for m := Microvm; m <= PC; m++ {
		if got, err := ParseMachine(m.String()); err != nil || got != m {
			t.Errorf("%v: %v, %v", m, got, err)
		}
	}
	if _, err := ParseMachine("virt"); err == nil || !strings.Contains(err.Error(), "want "+MachineHelp) {
		t.Error(err)
	}
}

// TestNoDog: machines with PCI have a watchdog device where QEMU has it, unless it is not wanted;
// QEMU is asked once, and only for a machine that could have one.
func TestNoDog(t *testing.T) {
	for _, c := range []struct {
		m         MachineType
		has, none bool
		want      bool
	}{{MicrovmPCI, true, false, true}, {MicrovmPCI, true, true, false}, {MicrovmPCI, false, false, false},
		{Q35, true, false, true}, {Microvm, true, false, false}} {
		asked := 0
		q := &QEMU{Path: "qemu-system-x86_64", Version: Version{7, 2}, hasDog: func() bool { asked++; return c.has }}
		s, err := q.Print(Config{Image: "fw.img", Machine: c.m, NoDog: c.none, KVM: true, MemoryMB: 64, CPUs: 1})
		if err != nil || strings.Contains(s, dogDevice) != c.want {
			t.Errorf("%+v: %v, %s", c, err, s)
		}
		if possible := c.m != Microvm && !c.none; (asked > 0) != possible {
			t.Errorf("%+v: QEMU was asked %d times", c, asked)
		}
	}
}
