package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/thurward/thurward/internal/host/deploy"
	"github.com/thurward/thurward/internal/host/ingest"
	"github.com/thurward/thurward/internal/host/journal"
	"github.com/thurward/thurward/internal/host/pageweb"
	"github.com/thurward/thurward/internal/host/peer"
	"github.com/thurward/thurward/internal/host/verify"
	"github.com/thurward/thurward/internal/host/vmm"
	"github.com/thurward/thurward/internal/shared/abi"
)

// runFlags is the command line of run.
type runFlags struct {
	image, vmm, machine, accel, lan, wan, vsock, memory, restart, args, reader, page, pageToken, pageConfig, policy string

	trusted      []string
	pageInsecure bool
	signed       verify.Options

	vsockPort   uint
	cpus        int
	jailer      string
	user        string
	name        string
	state       string // folder of a firewall whose image is deployed
	noSandbox   bool
	snapshot    string
	from        string
	pci         bool
	printConfig bool
	timeout     time.Duration
	watchdog    time.Duration
	restarts    int
}

func newRunCmd() *cobra.Command {
	var f runFlags
	cmd := &cobra.Command{
		Use:   "run [IMAGE]",
		Short: "Boot an image",
		Long: `run boots an image in QEMU's microvm machine, or the one that --machine names
(auto: with devices on PCI where that is faster, with KVM and a TAP device), joins its two network interfaces to what --lan and --wan name, and prints its
console. After a crash, or when it hangs, it boots it again; it ends with the
machine, or on Ctrl-C.
With --vmm it takes Firecracker or cloud-hypervisor in place of QEMU. The
hypervisor is confined: it is a user without rights, has no capabilities, and
sees nothing of the host but its programs, its image and its devices.

With Firecracker, --snapshot DIR saves the machine once its rules are live, and ends.
--from-snapshot DIR then starts any number of machines from it, with other networks
but the same image and flags. Their random numbers differ. DIR holds secrets.

A network is one of
  demo             a simulated network in this process, with hosts and servers
  user             QEMU's user-mode network: no privileges, outgoing only
  tap:NAME         an existing TAP device
  bridge:NAME      a new TAP device on an existing bridge (root, or QEMU's helper)
  unix:PATH        a stream socket that speaks QEMU's framing
  vhost-user:PATH  a vhost-user socket

Events, metrics and spans are sent by vsock: with --vsock PATH to the process that
listens on the Unix socket PATH_9000, if it is yours or root's. auto is a path in
the run directory, the default of the collector and thurward events; kernel:CID
uses the host's own vhost-vsock; none is no device. If no process listens there,
run itself does: it then serves a web page and metrics for Prometheus on loopback
(--page), and thurward events and thurward top follow what it reads. The page's
URL, which run prints, has a token; Prometheus reads one from a file
(--page-token). For other hosts the page needs TLS, and passwords or client
certificates, by Prometheus' web configuration (--page-config). Its policy as a table of
who may reach what needs the image's rules.yaml (-f). run prints the events that pass to
the reader.

With --state the image is the one that thurward deploy has put into the folder, which
can be changed while the firewall runs; its name is the folder's unless --name says
another.

With demo on both sides a demonstration is played first. On a terminal the
firewall then stays up and its verdicts are printed, until Ctrl-C; otherwise
run ends, with 0 if every step went as it should.`,
		Example: `  thurward run --lan demo --wan demo
  thurward run edge.img --lan tap:lan0 --wan user
  sudo thurward run --state /var/lib/thurward/edge --lan bridge:br-lan --wan bridge:br-wan
  sudo thurward run edge.img --lan bridge:br-lan --wan bridge:br-wan`,
		RunE: func(cmd *cobra.Command, args []string) error {
			named := cmd.Flags().Changed("image")
			switch {
			case len(args) > 1 || len(args) == 1 && named:
				return usageError{errors.New("run: want one image")}
			case len(args) == 1:
				f.image, named = args[0], true
			}
			if named && f.state != "" {
				return usageError{errors.New("run: an image and --state: the image of a folder is deployed (thurward deploy IMAGE --name NAME)")}
			}
			l, err := f.launch()
			if err != nil {
				return usageError{fmt.Errorf("run: %w", err)}
			}
			out, errOut := newOutput(cmd.OutOrStdout(), time.Now), newOutput(cmd.ErrOrStderr(), time.Now)
			l.out, l.errOut = out, errOut
			l.terminal = isTerminal(os.Stdout)
			if l.journal = journal.Open(l.name); l.journal != nil {
				defer l.journal.Close(outputLimit)
			}
			ctx, cancel := untilStopped(cmd.Context(), f.timeout)
			defer cancel()
			if err = l.run(ctx); errors.Is(err, errInterrupted) {
				err = nil
			}
			out.close(outputLimit)
			if err != nil {
				l.fail(err)
				err = exitError(exitInvalid)
			}
			errOut.close(outputLimit)
			return err
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&f.image, "image", "build/thurward.img", "the image, where no argument names one")
	fl.StringVar(&f.state, "state", "", "run the image that thurward deploy has put into this folder, "+deploy.Home+"/NAME, and change it on request")
	signedFlags(cmd, &f.signed, "boot", "booted")
	fl.StringVar(&f.vmm, "vmm", "qemu", "the virtual machine monitor: "+vmmHelp)
	fl.StringVar(&f.jailer, "jailer", "", "run Firecracker in its jail, as this user or UID:GID (root)")
	fl.StringVar(&f.user, "user", "", "whom the hypervisor becomes, a name or UID:GID (root; default a number of its own)")
	fl.BoolVar(&f.noSandbox, "no-sandbox", false, "let the hypervisor have all rights of this process: only to find out whether the sandbox breaks it")
	fl.BoolVar(&f.pci, "pci", false, "Firecracker: devices on PCI")
	fl.StringVar(&f.snapshot, "snapshot", "", "Firecracker: save the machine in this new folder once it is ready, and end")
	fl.StringVar(&f.from, "from-snapshot", "", "Firecracker: start from the machine that was saved in this folder")
	fl.BoolVar(&f.printConfig, "print-config", false, "print what would be run, and end")
	fl.StringVar(&f.machine, "machine", autoMachine, "QEMU's machine: auto, "+vmm.MachineHelp)
	fl.StringVar(&f.accel, "accel", "auto", "auto, kvm or tcg; auto takes KVM where the image boots under it")
	fl.StringVar(&f.lan, "lan", "demo", "network of the LAN interface")
	fl.StringVar(&f.wan, "wan", "demo", "network of the WAN interface")
	fl.StringVar(&f.vsock, "vsock", "auto", "where events, metrics and spans go: "+vmm.VsockHelp)
	fl.StringVar(&f.name, "name", "", "the firewall's name for those who read them (default its WAN address)")
	fl.UintVar(&f.vsockPort, "vsock-port", vmm.DefaultPort, "the host's vsock port to which they go; a Unix socket's path ends in it")
	fl.StringVar(&f.reader, "reader", "auto", "auto: read them here unless another process does; none: leave them to a collector")
	fl.StringVar(&f.page, "page", defaultPage, "address of the web page and the metrics, on loopback without --page-config; unix:PATH, or none")
	addPolicyFlag(cmd, &f.policy, "the rules.yaml that the image was built from, for the page (default: its provenance's, or rules.yaml here, where it is that one)")
	fl.StringVar(&f.pageConfig, "page-config", "", "serve the page by Prometheus' web configuration: TLS, passwords, client certificates")
	fl.BoolVar(&f.pageInsecure, "page-insecure", false, "let --page be for other hosts without TLS or without authentication (the token is needed all the same)")
	fl.StringVar(&f.pageToken, "page-token", "", "file of the token for the metrics (default PATH_token of --vsock, made if it does not exist)")
	fl.StringSliceVar(&f.trusted, "trust-user", nil, "users, beside you and root, whose sockets may be used for networks and the stream")
	fl.StringVar(&f.memory, "memory", "64M", "memory of the machine, as 64M or 1G")
	fl.IntVar(&f.cpus, "cpus", 1, "number of virtual processors, each forwarding packets of queues of its own where both networks are TAP devices (docs/run.md); a line of the console says how many of them are not used, and why")
	fl.StringVar(&f.args, "append", "", "more boot arguments")
	fl.StringVar(&f.restart, "restart", "on-crash", "when to restart the machine: on-crash or never")
	fl.IntVar(&f.restarts, "restarts", 0, "give up after this number of restarts in a row (0: never; a demonstration after 5)")
	fl.DurationVar(&f.watchdog, "watchdog", vmm.DefaultWatchdog, "restart a firewall that shows no sign of life for this time; while its stream is received for a quarter, or 5s (0: never)")
	fl.DurationVar(&f.timeout, "timeout", 0, "end with an error after this time, as 30s (0: no limit)")
	completes(cmd, "vmm", "qemu", "firecracker", "cloud-hypervisor")
	completes(cmd, "machine", autoMachine, "microvm", "microvm-pci", "q35", "q35-iommu", "pc")
	completes(cmd, "accel", "auto", "kvm", "tcg")
	completes(cmd, "reader", "auto", "none")
	completes(cmd, "restart", "on-crash", "never")
	for _, side := range []string{"lan", "wan"} {
		completesBeginnings(cmd, side, "demo", "user", "tap:", "bridge:", "unix:", "vhost-user:")
	}
	return cmd
}

// autoMachine is the value of --machine with which machineFor chooses.
const autoMachine = "auto"

// vmmHelp lists what --vmm takes.
const vmmHelp = "qemu, firecracker or cloud-hypervisor"

// launch checks the command line.
func (f *runFlags) launch() (*launch, error) {
	if f.vmm != "qemu" && f.vmm != "firecracker" && f.vmm != "cloud-hypervisor" {
		return nil, fmt.Errorf("--vmm %q is not known (want %s)", f.vmm, vmmHelp)
	}
	if f.vmm != "firecracker" && (f.jailer != "" || f.pci) {
		return nil, errors.New("--jailer and --pci are Firecracker's (--vmm firecracker)")
	}
	if f.vmm != "firecracker" && (f.snapshot != "" || f.from != "") {
		return nil, errors.New("--snapshot and --from-snapshot are Firecracker's (--vmm firecracker)")
	}
	if f.snapshot != "" && f.from != "" {
		return nil, errors.New("--snapshot saves a machine that boots; --from-snapshot does not boot one")
	}
	if f.vmm != "qemu" && f.accel == "tcg" {
		return nil, fmt.Errorf("--accel tcg: %s has only KVM", f.vmm)
	}
	if f.vmm != "qemu" && f.machine != autoMachine {
		return nil, fmt.Errorf("--machine is QEMU's, %s has one", f.vmm)
	}
	if f.jailer != "" && (f.user != "" || f.noSandbox) || f.user != "" && f.noSandbox {
		return nil, errors.New("--jailer, --user and --no-sandbox exclude each other")
	}
	l := &launch{image: f.image, vmm: f.vmm, jailer: f.jailer, pci: f.pci, printConfig: f.printConfig, user: f.user, noSandbox: f.noSandbox,
		snapshot: f.snapshot, from: f.from}
	if err := f.signed.Check("--require-signature"); err != nil {
		return nil, err
	}
	if f.signed.Demands() {
		l.signed = &f.signed
	}
	switch {
	case l.signed != nil && f.from != "":
		return nil, errors.New("--from-snapshot: a snapshot is not signed, only an image is, and one that is signed is demanded")
	case f.state != "" && (f.snapshot != "" || f.from != ""):
		return nil, errors.New("--snapshot and --from-snapshot are of one image, and --state is for a firewall whose image is changed (name it with --image)")
	case f.state != "" && f.printConfig:
		return nil, errors.New("--print-config is for --image: what --state runs changes")
	}
	var errs [7]error
	l.accel, errs[0] = vmm.ParseAccel(f.accel)
	l.lan, errs[1] = vmm.ParseSpec(f.lan)
	l.wan, errs[2] = vmm.ParseSpec(f.wan)
	l.restart, errs[3] = vmm.ParseRestart(f.restart)
	l.memoryMB, errs[4] = parseMemory(f.memory)
	l.vsock, errs[5] = vmm.ParseVsock(f.vsock, ingest.DefaultPath())
	if l.autoMachine = f.machine == autoMachine; !l.autoMachine {
		if l.machine, errs[6] = vmm.ParseMachine(f.machine); errs[6] != nil {
			errs[6] = fmt.Errorf("%q is not a machine (want auto, %s)", f.machine, vmm.MachineHelp)
		}
	}
	for i, flag := range []string{"accel", "lan", "wan", "restart", "memory", "vsock", "machine"} {
		if errs[i] != nil {
			return nil, fmt.Errorf("--%s: %w", flag, errs[i])
		}
	}
	var err error
	if l.trusted, err = peer.ParseUsers(f.trusted); err != nil {
		return nil, fmt.Errorf("--trust-user: %w", err)
	}
	if l.vsock.Port, err = vmm.ParseVsockPort(f.vsockPort); err != nil {
		return nil, fmt.Errorf("--vsock-port: %w", err)
	}
	if f.pageConfig != "" {
		if l.web, err = pageweb.Load(f.pageConfig); err != nil {
			return nil, fmt.Errorf("--page-config: %w", err)
		}
	}
	l.pageInsecure = f.pageInsecure
	if l.reader, l.page, err = parseReader(f.reader, f.page, l.web, f.pageInsecure); err != nil {
		return nil, err
	}
	if f.cpus < 1 || f.cpus > maxCPUs {
		return nil, fmt.Errorf("--cpus %d is out of range (want 1 to %d: the image uses no more)", f.cpus, maxCPUs)
	}
	if l.watchdog, err = vmm.ParseWatchdog(f.watchdog); err != nil {
		return nil, fmt.Errorf("--watchdog: %w", err)
	}
	if f.restarts < 0 {
		return nil, fmt.Errorf("--restarts %d is negative", f.restarts)
	}
	if f.timeout < 0 {
		return nil, fmt.Errorf("--timeout %v is negative", f.timeout)
	}
	if f.name != "" {
		if err := ingest.CheckGiven(f.name); err != nil {
			return nil, fmt.Errorf("--name: %w", err)
		}
	}
	l.name, l.maxRestarts = f.name, f.restarts
	if err := l.deployed(f.state); err != nil {
		return nil, err
	}
	if f.policy != "" && f.state != "" {
		return nil, errors.New("--file is the policy of one image, and --state is for a firewall whose image is changed; its folder keeps their policies")
	}
	l.cpus, l.args, l.pageToken, l.policyFile = f.cpus, f.args, f.pageToken, f.policy
	return l, nil
}

// Limits of the command line. More CPUs than the image uses would only cost
// memory; the upper memory limit is where its 32-bit hole begins, the lower one
// what the image needs to say how much it needs.
const (
	maxCPUs     = abi.MaxProcessors
	minMemoryMB = 4
	maxMemoryMB = 3 << 10
)

// parseMemory reads an amount of memory and returns it in megabytes.
func parseMemory(s string) (int, error) {
	digits, unit := strings.TrimRight(s, "MGmg"), 1
	switch suffix := strings.ToUpper(s[len(digits):]); suffix {
	case "", "M":
	case "G":
		unit = 1 << 10
	default:
		return 0, fmt.Errorf("%q is not an amount of memory (want 64M or 1G)", s)
	}
	n, err := strconv.Atoi(digits)
	if err != nil || n < 1 || n > maxMemoryMB/unit || n*unit < minMemoryMB {
		return 0, fmt.Errorf("%q is not an amount of memory that a machine can have (want %dM to %dG)",
			s, minMemoryMB, maxMemoryMB>>10)
	}
	return n * unit, nil
}

// errInterrupted is the cause of a context that a signal has ended.
var errInterrupted = errors.New("interrupted")

// untilStopped returns a context that ends with Ctrl-C or SIGTERM, or after the time
// limit if it is not 0.
func untilStopped(ctx context.Context, limit time.Duration) (context.Context, context.CancelFunc) {
	if ctx == nil {
		ctx = context.Background()
	}
	ctx, stop := context.WithCancelCause(ctx)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		select {
		case <-signals:
			signal.Stop(signals) // a second signal ends the launcher at once
			stop(errInterrupted)
		case <-ctx.Done():
		}
	}()
	if limit == 0 {
		return ctx, func() { stop(nil) }
	}
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("not done within the time limit of %v", limit))
	return ctx, func() { cancel(); stop(nil) }
}
