package main

import (
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/term"

	"github.com/thurward/thurward/internal/host/dashboard"
	"github.com/thurward/thurward/internal/host/ecs"
	"github.com/thurward/thurward/internal/host/journal"
	"github.com/thurward/thurward/internal/host/netlab"
	"github.com/thurward/thurward/internal/host/peer"
	"github.com/thurward/thurward/internal/host/terminal"
	"github.com/thurward/thurward/internal/host/verify"
	"github.com/thurward/thurward/internal/host/vmm"
	"github.com/thurward/thurward/internal/shared/printable"
	"github.com/thurward/thurward/internal/shared/ruleset"
)

// demoRestarts is after how many restarts in a row a demonstration gives up, where --restarts does
// not say.
const demoRestarts = 5

// A launch is one run of an image.
type launch struct {
	image          string
	state          string          // folder of a firewall whose image is deployed; "": image
	signed         *verify.Options // who must have signed the image; nil: anybody may boot
	accel          vmm.Accel
	machine        vmm.MachineType
	autoMachine    bool   // machineFor chooses it
	vmm            string // which hypervisor
	pci            bool   // Firecracker's devices on PCI
	jailer         string // whom Firecracker becomes in its jail; "": none
	user           string // whom a hypervisor becomes without it; "": a user of its own
	noSandbox      bool
	printConfig    bool
	snapshot, from string // folders; "": none
	lan, wan       vmm.Spec
	memoryMB, cpus int
	vsock          vmm.Vsock
	name           string // of the firewall, for readers of the stream; "": its own
	reader         readerMode
	page           string         // "": none
	policyFile     string         // rules.yaml of the image, for the page; "": what is found
	pageToken      string         // file of the token of the page; "": beside the sockets
	web            *dashboard.Web // by which the page is served; nil: plain HTTP
	pageInsecure   bool           // for other hosts without TLS or authentication, too
	args           string
	restart        vmm.Restart
	maxRestarts    int
	watchdog       time.Duration
	trusted        peer.Users

	journal     *journal.Journal   // where messages and the console go; nil: to out and errOut
	confined    string             // how the hypervisor is
	restarts    restarts           // of the firewall
	policies    dashboard.Policies // that its machines run
	out, errOut io.Writer          // they do not block
	terminal    bool               // out is a terminal
}

func isTerminal(f *os.File) bool { return term.IsTerminal(int(f.Fd())) }

// say prints a message of the launcher.
func (l *launch) say(format string, a ...any) {
	if l.journal != nil {
		l.journal.Say(fmt.Sprintf(format, a...))
		return
	}
	printable.Fprintf(l.errOut, "thurward: "+format+"\n", a...)
}

// fail prints why the launcher ends.
func (l *launch) fail(err error) {
	if l.journal != nil {
		l.journal.Fail(err.Error())
		return
	}
	l.say("%v", err)
}

// demonstrates reports whether the simulated network is on both sides.
func (l *launch) demonstrates() bool { return l.lan.Kind == vmm.Demo && l.wan.Kind == vmm.Demo }

// run boots the image and supervises it until its end.
func (l *launch) run(ctx context.Context) error {
	if l.state != "" {
		return l.serve(ctx)
	}
	img, done, err := l.openImage()
	if err != nil {
		return err
	}
	defer done()
	h, err := l.hypervisor()
	if err != nil {
		return err
	}
	if err := l.tell(img); err != nil {
		return err
	}
	topo := topology(img.Policy)
	w, err := l.makeNetwork(topo)
	if err != nil {
		return err
	}
	if w != nil {
		defer w.Close()
	}
	nics, err := l.nics(img.Policy, topo, w)
	if err != nil {
		return err
	}
	if img.PolicyErr != nil {
		l.say("%s: %v", img.Path, img.PolicyErr)
	}
	kvm, why, err := l.accelerate(ctx, h)
	if err != nil {
		return err
	}
	cfg := l.machineConfig(l.image, kvm, nics)
	if l.printConfig {
		s, err := h.Print(cfg)
		if err == nil {
			_, err = io.WriteString(l.out, s)
		}
		return err
	}
	l.say("booting %s (%.1f MB%s) on %s with %s (%s)",
		img.Path, float64(img.Size)/1e6, digest(img.Policy), l.machineName(h, kvm), name(kvm), why)
	if l.confined != "" {
		l.say("the hypervisor is %s", l.confined)
	}
	if l.vsock.Path != "" || l.vsock.CID != 0 {
		l.say("events, metrics and spans go to %v", l.vsock)
	}
	stop, reads := l.startReader(ctx)
	defer stop()
	cfg.Verdicts = l.verdicts(reads)
	notify := newNotifier(l.say)
	defer notify.stopOn(ctx)()
	opts := l.options()
	if f, ok := h.(*vmm.Firecracker); ok && l.snapshot != "" {
		opts.OnLine = l.shower()
		if err := f.MakeSnapshot(ctx, cfg, l.snapshot, opts); err != nil {
			return err
		}
		l.say("the machine is saved in %s; start from it with --from-snapshot %s", l.snapshot, l.snapshot)
		return nil
	}
	if l.demonstrates() {
		if opts.MaxRestarts == 0 {
			opts.MaxRestarts = demoRestarts // it is to end by itself
		}
		return l.demonstrate(ctx, h, cfg, opts, w)
	}
	opts.OnLine = l.shower()
	return vmm.Run(ctx, h, cfg, notify.attach(opts))
}

// options are those of the supervision.
func (l *launch) options() vmm.RunOptions {
	tell := func(e vmm.End) { l.say("%s", e.Text) }
	if l.journal != nil {
		tell = l.journal.Restart
	}
	return vmm.RunOptions{Restart: l.restart, MaxRestarts: l.maxRestarts, Watchdog: l.watchdog, Say: l.say,
		Told: func(e vmm.End) { l.restarts.add(e.Reason); tell(e) }}
}

// machineConfig is the machine for an image. One that was not named has no watchdog device
// where its stream is watched.
func (l *launch) machineConfig(image string, kvm bool, nics []vmm.NIC) vmm.Config {
	return vmm.Config{
		Image: image, Machine: l.machineFor(kvm), NoDog: l.autoMachine && l.vsock.Path != "", KVM: kvm, MemoryMB: l.memoryMB, CPUs: l.cpus, NICs: nics,
		Append: l.args, Name: l.name, Vsock: l.vsock, Trusted: l.trusted, Log: l.say,
	}
}

// shower prints the lines of the console.
func (l *launch) shower() func(vmm.Line) {
	if l.journal != nil {
		return l.journal.Line
	}
	style := ecs.Style{Color: terminal.Colour(l.out), Zone: time.Local}
	return func(ln vmm.Line) {
		if ln.Kind == vmm.EventLine && l.terminal { // programs get the line unchanged
			if e, err := ecs.Parse(ln.Rest); err == nil {
				fmt.Fprintln(l.out, style.Text(e.Time(), e)) // Text escapes
				return
			}
			ln.Text = ecs.Clean(ln.Text) // it must not control the terminal
		}
		fmt.Fprintln(l.out, ln.Text)
	}
}

// verdicts chooses how run gets the firewall's events; reads is whether some process reads
// the stream that passes through the launcher. A demonstration cannot do without them.
func (l *launch) verdicts(reads bool) vmm.Verdicts {
	switch {
	case reads:
		return vmm.StreamVerdicts
	case l.demonstrates():
		return vmm.ConsoleVerdicts
	case l.vsock.Path != "":
		l.say("verdicts are not printed here: follow the process that reads the stream (thurward events)")
	default:
		l.say("verdicts are not printed: run does not see the stream (--append thurward.events=console prints some on the console, which holds packets up)")
	}
	return vmm.NoVerdicts
}

// hypervisor finds the hypervisor that was asked for, and confines it.
func (l *launch) hypervisor() (vmm.Hypervisor, error) {
	var confine *vmm.Confinement
	if !l.noSandbox {
		var err error
		if confine, err = vmm.NewConfinement(l.user); err != nil {
			return nil, fmt.Errorf("--user: %w", err)
		}
	}
	switch l.vmm {
	case "firecracker":
		f, err := vmm.FindFirecracker()
		if err != nil {
			return nil, err
		}
		f.PCI, f.Confine = l.pci, confine
		if l.from != "" {
			if f.From, err = vmm.OpenSnapshot(l.from); err != nil {
				return nil, fmt.Errorf("--from-snapshot: %w", err)
			}
		}
		if l.jailer != "" {
			if f.Jail, err = vmm.FindJail(l.jailer); err != nil {
				return nil, fmt.Errorf("--jailer: %w", err)
			}
			return f, nil
		}
		l.confined = confine.String()
		return f, nil
	case "cloud-hypervisor":
		h, err := vmm.FindCloudHypervisor()
		if err == nil {
			h.Confine, l.confined = confine, confine.String()
		}
		return h, err
	}
	q, err := vmm.FindQEMU()
	if err != nil {
		return nil, err
	}
	q.Confine, l.confined = confine, confine.String()
	if confine != nil && confine.Spaces == nil && l.lan.Kind != vmm.User && l.wan.Kind != vmm.User {
		l.confined += ", no network"
	}
	if confine != nil && !q.Sandbox {
		l.confined += "; QEMU was built without its own filter of system calls"
	}
	return q, nil
}

// accelerate chooses the accelerator, and says why that one.
func (l *launch) accelerate(ctx context.Context, h vmm.Hypervisor) (kvm bool, why string, err error) {
	q, ok := h.(*vmm.QEMU)
	switch {
	case ok && l.printConfig && l.accel == vmm.Auto:
		return vmm.KVMError() == nil, "not tried", nil
	case ok:
		return q.Choose(ctx, l.accel, l.image, l.memoryMB)
	case l.printConfig:
		return true, "", nil
	}
	if err := vmm.KVMError(); err != nil {
		return false, "", fmt.Errorf("%v needs KVM: %w (gain access: usermod -aG kvm $USER; or take --vmm qemu)",
			h, err)
	}
	return true, "the only one it has", nil
}

// machineName names a hypervisor, and its machine where it has several.
func (l *launch) machineName(h vmm.Hypervisor, kvm bool) string {
	if _, ok := h.(*vmm.QEMU); ok {
		return fmt.Sprintf("%v %v", h, l.machineFor(kvm))
	}
	return h.String()
}

// machineFor returns QEMU's machine. Devices on PCI interrupt without being asked why, which
// on MMIO takes the processor out of the guest twice; TCG has nothing to leave, and without TAP
// devices the time of a boot counts for more (ADR 0058).
func (l *launch) machineFor(kvm bool) vmm.MachineType {
	tap := func(s vmm.Spec) bool { return s.Kind == vmm.Tap || s.Kind == vmm.Bridge }
	if l.autoMachine && kvm && (tap(l.lan) || tap(l.wan)) {
		return vmm.MicrovmPCI
	}
	return l.machine
}

func name(kvm bool) string {
	if kvm {
		return "KVM"
	}
	return "TCG"
}

func digest(p *ruleset.Policy) string {
	if p == nil {
		return ""
	}
	return ", policy sha256:" + hex.EncodeToString(p.Digest[:4]) + "…"
}

// topology returns the networks of an image's policy, or those of the repository's
// rules.yaml if the policy is not known.
func topology(p *ruleset.Policy) netlab.Config {
	c := netlab.DefaultConfig()
	if p == nil {
		return c
	}
	lan, wan := p.Interface(ruleset.LAN), p.Interface(ruleset.WAN)
	if lan == nil || wan == nil {
		return c
	}
	prefix := func(i *ruleset.Interface) netip.Prefix {
		return netip.PrefixFrom(netip.AddrFrom16(i.Address).Unmap(), int(i.PrefixLen))
	}
	c = netlab.Config{LAN: prefix(lan), WAN: prefix(wan), Gateway: netip.AddrFrom16(wan.Gateway).Unmap()}
	return c
}

// makeNetwork makes the simulated network if one of the interfaces is joined to it.
func (l *launch) makeNetwork(c netlab.Config) (*netlab.Network, error) {
	if l.lan.Kind != vmm.Demo && l.wan.Kind != vmm.Demo {
		return nil, nil
	}
	return netlab.New(c)
}

// nics returns the two interfaces with their networks.
func (l *launch) nics(p *ruleset.Policy, c netlab.Config, w *netlab.Network) ([]vmm.NIC, error) {
	lan := vmm.Network{Subnet: c.LAN, Host: neighbour(c.LAN), Trusted: l.trusted}
	wan := vmm.Network{Subnet: c.WAN, Host: c.Gateway, Trusted: l.trusted}
	if p == nil {
		lan.Subnet, wan.Subnet = netip.Prefix{}, netip.Prefix{}
	}
	if w != nil {
		lan.Serve = func(c net.Conn) { w.LANSwitch.ServeVM(c) }
		wan.Serve = func(c net.Conn) { w.WANSwitch.ServeVM(c) }
	}
	a, err := l.nic(l.lan, lan)
	if err != nil {
		return nil, fmt.Errorf("--lan: %w", err)
	}
	b, err := l.nic(l.wan, wan)
	if err != nil {
		return nil, fmt.Errorf("--wan: %w", err)
	}
	a.Role, a.MAC = vmm.LAN, mac(p, ruleset.LAN, vmm.LAN)
	b.Role, b.MAC = vmm.WAN, mac(p, ruleset.WAN, vmm.WAN)
	return []vmm.NIC{a, b}, nil
}

// nic joins an interface to its network, as the hypervisor needs it.
func (l *launch) nic(s vmm.Spec, n vmm.Network) (nic vmm.NIC, err error) {
	if l.vmm == "qemu" {
		n.Queues = l.queues(s)
		nic.Backend, err = vmm.NewBackend(s, n)
		return nic, err
	}
	if s.Kind == vmm.Tap {
		nic.TapName = s.Arg
	}
	nic.OnBridge = s.Kind == vmm.Bridge
	nic.Tap, err = vmm.NewTap(s, n)
	return nic, err
}

// queues returns how many pairs of queues a network may have. Two machines that take turns at one
// TAP device have one each: they are joined to it and parted from it by that.
func (l *launch) queues(s vmm.Spec) int {
	if l.state != "" && s.Kind == vmm.Tap {
		return 1
	}
	return vmm.Queues(l.cpus)
}

// neighbour returns another address of an interface's network.
func neighbour(p netip.Prefix) netip.Addr {
	a := p.Masked().Addr().Next()
	if a == p.Addr() {
		a = a.Next()
	}
	return a
}

// mac returns the hardware address that the policy sets, or the default.
func mac(p *ruleset.Policy, role ruleset.Role, r vmm.Role) string {
	if p != nil {
		if i := p.Interface(role); i != nil && i.HasMAC != 0 {
			return net.HardwareAddr(i.MAC[:]).String()
		}
	}
	return vmm.DefaultMAC(r)
}
