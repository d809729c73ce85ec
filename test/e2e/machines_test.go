package e2e

import (
	"context"
	"crypto/sha256"
	"io"
	"maps"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/thurward/thurward/internal/host/vmm"
	"github.com/thurward/thurward/internal/shared/ruleset"
)

// machines are QEMU's that the image boots on.
var machines = []vmm.MachineType{vmm.Microvm, vmm.MicrovmPCI, vmm.Q35, vmm.PC, vmm.Q35IOMMU}

// TestMachines: the image boots on every machine, forwards what is allowed and
// nothing else, and tells it over vsock.
func TestMachines(t *testing.T) {
	t.Parallel()
	for _, m := range machines[1:] { // all other tests run on the first
		t.Run(m.String(), func(t *testing.T) {
			each(t, func(t *testing.T, kvm bool) {
				if kvm && m >= vmm.Q35 && softwareKVM() {
					t.Skip("this KVM emulates ring 0, and takes half a minute for the firmware (make machines has it)")
				}
				l, r := watched(t, kvm, func(c *vmm.Config) { c.Machine = m })
				traffic(t, l)
				r.awaitEvents(1, map[string]any{"event.action": "drop", "destination.port": 25.0})
			})
		})
	}
}

// softwareKVM reports whether the host's KVM emulates ring 0 in software.
func softwareKVM() bool {
	q, err := vmm.FindQEMU()
	if err != nil {
		return false
	}
	image, err := defaultImage()
	if err != nil {
		return false
	}
	_, why, err := q.Choose(context.Background(), vmm.Auto, image, 64)
	return err == nil && strings.Contains(why, "emulates ring 0")
}

// traffic sends what is allowed through a firewall, and what is not.
func traffic(t *testing.T, l *lab) {
	t.Helper()
	if a, err := l.Alice.Resolve(soon(t), l.DNS.Addr, l.WebName()); err != nil || a != l.Web.Addr {
		t.Errorf("a name: %v, %v", a, err)
	}
	if c, err := l.Alice.DialTCP(brief(t), netip.AddrPortFrom(l.Web.Addr, 25)); err == nil {
		c.Close()
		t.Error("connected to a port that no rule allows")
	}
	var sum [2][32]byte
	for i := range sum {
		b, err := l.get(soon(t), l.Alice, "/bytes/2000000")
		if err != nil {
			t.Fatalf("a page: %v", err)
		}
		sum[i] = sha256.Sum256([]byte(b))
	}
	if sum[0] != sum[1] {
		t.Error("two downloads of one page differ")
	}
}

// console boots the image on a machine as its user would describe it, until it
// ends or says that it is ready.
func console(t *testing.T, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	return consoleUntil(ctx, t, cancel, args...)
}

// consoleUntil is console with another thing to do once it is ready.
func consoleUntil(ctx context.Context, t *testing.T, atReady func(), args ...string) string {
	t.Helper()
	all := append([]string{"-accel", "tcg", "-cpu", "max", "-m", "64M", "-nodefaults", "-no-user-config", "-display", "none",
		"-serial", "stdio", "-no-reboot", "-kernel", testImage(t), "-append", "thurward.lan=" + vmm.DefaultMAC(vmm.LAN) + " thurward.wan=" + vmm.DefaultMAC(vmm.WAN)}, args...)
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64", all...)
	cmd.WaitDelay = time.Second
	out := &until{word: "thurward: ready ", end: atReady}
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Run(); err != nil && !out.seen {
		t.Errorf("%v: %v; console:\n%s", args, err, out.b)
	}
	return string(out.b)
}

// An until keeps what is written, and does something at a word.
type until struct {
	b    []byte
	word string
	end  func()
	seen bool
}

func (u *until) Write(b []byte) (int, error) {
	if u.b = append(u.b, b...); strings.Contains(string(u.b), u.word) && !u.seen {
		u.seen = true
		u.end()
	}
	return len(b), nil
}

// nics are the two interfaces as devices of a kind, which lead nowhere.
func nics(device string) []string {
	return []string{"-netdev", "hubport,id=n0,hubid=0", "-netdev", "hubport,id=n1,hubid=1",
		"-device", device + ",netdev=n0,mac=" + vmm.DefaultMAC(vmm.LAN), "-device", device + ",netdev=n1,mac=" + vmm.DefaultMAC(vmm.WAN)}
}

// TestDevicesAreFound: by the command line, by ACPI, by looking; behind bridges;
// and with windows on a page for each queue.
func TestDevicesAreFound(t *testing.T) {
	t.Parallel()
	if _, err := vmm.FindQEMU(); err != nil {
		t.Skip(err)
	}
	mmio := append(nics("virtio-net-device"), "-global", "virtio-mmio.force-legacy=false")
	behind := []string{"-device", "pcie-root-port,id=r0,slot=1,chassis=1", "-device", "pcie-root-port,id=r1,slot=2,chassis=2"}
	for _, a := range nics("virtio-net-pci") {
		a = strings.Replace(a, "netdev=n0", "bus=r0,netdev=n0", 1)
		behind = append(behind, strings.Replace(a, "netdev=n1", "bus=r1,netdev=n1", 1))
	}
	for name, args := range map[string][]string{
		"command line":      append([]string{"-M", "microvm,acpi=off"}, mmio...),
		"DSDT":              append([]string{"-M", "microvm"}, mmio...),
		"DSDT, one IOAPIC":  append([]string{"-M", "microvm,ioapic2=off"}, mmio...),
		"slots":             append([]string{"-M", "microvm,acpi=off,auto-kernel-cmdline=off"}, mmio...),
		"modern only":       append([]string{"-M", "q35"}, nics("virtio-net-pci,disable-legacy=on")...),
		"behind root ports": append([]string{"-M", "q35"}, behind...),
		"page for each":     append([]string{"-M", "q35"}, nics("virtio-net-pci,page-per-vq=on")...),
		"random numbers":    append([]string{"-M", "q35", "-cpu", "max,-rdrand", "-device", "virtio-rng-pci"}, nics("virtio-net-pci")...),
		"two vectors":       append([]string{"-M", "pc"}, nics("virtio-net-pci,vectors=2")...),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if out := console(t, args...); !strings.Contains(out, "thurward: ready ") {
				t.Errorf("console:\n%s", out)
			}
		})
	}
}

// TestFeaturesHidden: what a CPU template hides (Firecracker's T2, T2S and T2CL, and custom ones),
// or a cluster of unlike hosts, does not keep the firewall from starting. It asks for XSAVE and
// FSGSBASE, and says so where they are hidden (TestRefusesOldCPU).
func TestFeaturesHidden(t *testing.T) {
	t.Parallel()
	if _, err := vmm.FindQEMU(); err != nil {
		t.Skip(err)
	}
	hidden := map[string]string{
		"memory":    "-smep,-smap,-umip,-pku,-pcid,-invpcid,-pdpe1gb,-la57,-erms,-fsrm,-clflushopt,-clwb",
		"vectors":   "-avx,-avx2,-f16c,-fma,-ssse3,-sse4.1,-sse4.2,-sse4a",
		"XSAVE":     "-xsavec,-xgetbv1,-xsaves", // as T2 has it. Without XSAVEOPT too QEMU 7.2 itself stands still
		"numbers":   "-bmi1,-bmi2,-adx,-popcnt,-movbe,-abm,-aes,-pclmulqdq,-rdseed",
		"time":      "-rdtscp,-rdpid,-tsc-deadline,-x2apic,-arat,-invtsc,-kvmclock,-kvmclock-stable-bit",
		"cores, MP": "-hypervisor,-ht,-cmp-legacy,-mtrr,-pat,-mca,-mce,-acpi",
	}
	for _, h := range slices.Collect(maps.Values(hidden)) {
		hidden["all"] += "," + h
	}
	hidden["all"] = strings.TrimPrefix(hidden["all"], ",")
	for name, h := range hidden {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			args := append([]string{"-M", "microvm", "-cpu", "max," + h}, nics("virtio-net-device")...)
			if out := console(t, append(args, "-global", "virtio-mmio.force-legacy=false")...); !strings.Contains(out, "thurward: ready ") {
				t.Errorf("-cpu max,%s; console:\n%s", h, out)
			}
		})
	}
}

// TestNoNetworkIsExplained: a machine without a network that can be used is told
// what was found and what to write.
func TestNoNetworkIsExplained(t *testing.T) {
	t.Parallel()
	if _, err := vmm.FindQEMU(); err != nil {
		t.Skip(err)
	}
	for name, c := range map[string]struct {
		args []string
		want []string
	}{
		"none on microvm": {[]string{"-M", "microvm"}, []string{"the machine has no network device", "nothing says where one could be"}},
		"none on q35":     {[]string{"-M", "q35"}, []string{"the machine has no network device: looked on PCI, where ", " functions answered"}},
		"legacy":          {slices.Concat([]string{"-M", "q35"}, nics("virtio-net-pci,disable-modern=on")), []string{"speaks only virtio before version 1", "2 virtio device(s) speak only the version before 1", "disable-modern=off"}},
		"legacy on MMIO":  {slices.Concat([]string{"-M", "microvm"}, nics("virtio-net-device")), []string{"virtio-mmio.force-legacy=false"}},
		"no MSI-X":        {slices.Concat([]string{"-M", "pc"}, nics("virtio-net-pci,vectors=0")), []string{"it has no MSI-X (QEMU: leave vectors= away)", "2 virtio device(s) cannot be used"}},
		"one vector":      {slices.Concat([]string{"-M", "pc"}, nics("virtio-net-pci,vectors=1")), []string{"it has one interrupt, 2 are needed"}},
		"other addresses": {append([]string{"-M", "q35", "-append", "thurward.lan=02:00:00:00:00:01 thurward.wan=02:00:00:00:00:02"}, nics("virtio-net-pci")...),
			[]string{"no network device for the lan interface: want 02:00:00:00:00:01; the machine has " + vmm.DefaultMAC(vmm.LAN) + ", " + vmm.DefaultMAC(vmm.WAN)}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			out := console(t, c.args...)
			for _, w := range append(c.want, "thurward: refusing to start: ") {
				if !strings.Contains(out, w) {
					t.Errorf("no %q on the console:\n%s", w, out)
				}
			}
		})
	}
}

// TestCtrlAltDel: the keyboard controller's Ctrl-Alt-Del ends the firewall in good
// order, other keys do not.
func TestCtrlAltDel(t *testing.T) {
	t.Parallel()
	for _, m := range []string{"q35", "pc"} {
		t.Run(m, func(t *testing.T) {
			t.Parallel()
			endsAt(t, []string{"-M", m}, "virtio-net-pci", "sendkey ctrl-alt-a\nsendkey delete\n", "sendkey ctrl-alt-delete\n", "Ctrl-Alt-Del")
		})
	}
}

// TestPowerButton: the button, pressed as virsh shutdown or QEMU's system_powerdown does,
// ends the firewall in good order, by ACPI's fixed hardware and by its event device.
func TestPowerButton(t *testing.T) {
	t.Parallel()
	for _, m := range []string{"q35", "pc", "microvm", "microvm,ioapic2=off"} {
		t.Run(m, func(t *testing.T) {
			t.Parallel()
			args, device := []string{"-M", m}, "virtio-net-pci"
			if strings.HasPrefix(m, "microvm") {
				args, device = append(args, "-global", "virtio-mmio.force-legacy=false"), "virtio-net-device"
			}
			endsAt(t, args, device, "system_wakeup\n", "system_powerdown\n", "power button")
		})
	}
}

// endsAt boots a machine, gives QEMU's monitor commands after which it must go on, and then
// one at which it must end, saying why.
func endsAt(t *testing.T, args []string, device, others, last, why string) {
	t.Helper()
	if _, err := vmm.FindQEMU(); err != nil {
		t.Skip(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	dir, err := os.MkdirTemp("", "thurward-e2e") // without a comma in its name
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	monitor := dir + "/monitor"
	done := make(chan string, 1)
	ready := make(chan bool, 1)
	go func() {
		done <- consoleUntil(ctx, t, func() { ready <- true }, append(append(args, "-monitor", "unix:"+monitor+",server=on,wait=off"), nics(device)...)...)
	}()
	select {
	case <-ready:
	case out := <-done:
		t.Fatalf("console:\n%s", out)
	}
	c, err := net.Dial("unix", monitor)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	go io.Copy(io.Discard, c) //nolint:errcheck // what the monitor says is of no interest
	io.WriteString(c, others) //nolint:errcheck // the test fails then
	select {
	case out := <-done:
		t.Fatalf("it ended at %q; console:\n%s", others, out)
	case <-time.After(silence):
	}
	io.WriteString(c, last) //nolint:errcheck // likewise
	if out := <-done; !strings.Contains(out, "thurward: stopped: "+why) {
		t.Errorf("console:\n%s", out)
	}
}

// TestSmallMachines: what docs/run.md says of memory and flows.
func TestSmallMachines(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		memory int
		flows  uint32
	}{{32, 4096}, {48, 65536}} {
		image := linked(t, func(p *ruleset.Policy) { p.Settings.MaxFlows = c.flows })
		l := newLab(t, false, func(m *vmm.Config) { m.Image, m.MemoryMB = image, c.memory })
		l.awaitReady()
		traffic(t, l)
	}
}

// TestMTUBeyond: what a device says is carried as far as buffers and memory go, and said where
// they do not.
func TestMTUBeyond(t *testing.T) {
	t.Parallel()
	if _, err := vmm.FindQEMU(); err != nil {
		t.Skip(err)
	}
	for _, c := range []struct{ mtu, memory, carried string }{{"1500", "64M", ""}, {"1958", "64M", ""}, {"9000", "64M", ""}, {"9216", "64M", ""},
		{"9217", "64M", "9216"}, {"9000", "50M", "1958"}} {
		out := console(t, append(nics("virtio-net-device,host_mtu="+c.mtu), "-m", c.memory, "-M", "microvm", "-global", "virtio-mmio.force-legacy=false")...)
		if told := strings.Contains(out, "carries packets of "+c.mtu+" bytes, the firewall "+c.carried); told != (c.carried != "") ||
			c.carried == "" && strings.Contains(out, "carries packets") || !strings.Contains(out, "thurward: ready ") {
			t.Errorf("%+v: told %v; console:\n%s", c, told, out)
		}
	}
}
