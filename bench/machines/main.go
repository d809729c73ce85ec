// Command machines boots an image on every machine that there is for it here, many
// times, sends traffic through it, and writes a table: docs/machines.md.
//
//	go run ./bench/machines -boots 20 -o docs/machines.md
//
// Hypervisors that are not on the PATH are named in the table as not run.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/thurward/thurward/internal/host/netlab"
	"github.com/thurward/thurward/internal/host/vmm"
)

var (
	image = flag.String("image", "build/thurward.img", "the image; its policy must be the repository's rules.yaml")
	boots = flag.Int("boots", 20, "boots of each machine")
	only  = flag.String("only", "", "machines whose row contains this")
	out   = flag.String("o", "", "file to write; standard output otherwise")
)

// A row is one kind of machine.
type row struct {
	machine, accel, transport string
	boots                     int
	find                      func() (vmm.Hypervisor, error)
	config                    func(c *vmm.Config)
}

func rows() (rs []row) {
	qemu := func() (vmm.Hypervisor, error) { return vmm.FindQEMU() }
	for _, accel := range []string{"TCG", "KVM"} {
		for _, m := range []struct {
			name, transport string
			typ             vmm.MachineType
		}{{"microvm", "MMIO, DSDT", vmm.Microvm}, {"microvm `pcie=on`", "PCI, `_CBA`", vmm.MicrovmPCI}, {"q35", "PCI, MCFG", vmm.Q35}, {"pc", "PCI, ports", vmm.PC}, {"q35-iommu", "PCI, MCFG, DMAR", vmm.Q35IOMMU}} {
			n := *boots
			if accel == "KVM" && m.typ >= vmm.Q35 {
				n = (n + 19) / 20 // a KVM that emulates ring 0 takes long for the firmware
			}
			rs = append(rs, row{"QEMU " + m.name, accel, m.transport, n, qemu, func(c *vmm.Config) { c.Machine, c.KVM = m.typ, accel == "KVM" }})
		}
	}
	firecracker := func(pci bool, jail string) func() (vmm.Hypervisor, error) {
		return func() (vmm.Hypervisor, error) {
			f, err := vmm.FindFirecracker()
			if err == nil && jail != "" {
				f.Jail, err = vmm.FindJail(jail)
			}
			if err != nil {
				return nil, err
			}
			f.PCI = pci
			return f, nil
		}
	}
	kvm := func(c *vmm.Config) { c.KVM = true }
	return append(rs,
		row{"Firecracker", "KVM", "MMIO, arguments", *boots, firecracker(false, ""), kvm},
		row{"Firecracker in its jailer", "KVM", "MMIO, arguments", *boots, firecracker(false, "nobody"), kvm},
		row{"Firecracker `--enable-pci`", "KVM", "PCI, MCFG", *boots, firecracker(true, ""), kvm},
		row{"cloud-hypervisor", "KVM", "PCI, MCFG", *boots, func() (vmm.Hypervisor, error) { return vmm.FindCloudHypervisor() }, kvm})
}

func main() {
	flag.Parse()
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "machines:", err)
		os.Exit(1)
	}
}

func run() error {
	st, err := os.Stat(*image)
	if err != nil {
		return err
	}
	var b strings.Builder
	fmt.Fprintf(&b, `# Machines

Made by `+"`make machines`"+`, not by hand: an image of %.1f MB, booted
on each machine one time after the other. Ready is from the start of the hypervisor until the rules
are live, median and worst. Traffic is 20 MB fetched and compared, 100 connections
at once, a name, a port that must be denied, and its event by vsock; its rate is that
of the fetch, through the simulated hosts of this process, which share the
processors with the machine: it compares machines, it is not what they can do.

%s, %s. Load averages of the host during the run: %s.

| machine | version | accelerator | transport | boots | ready | traffic |
| --- | --- | --- | --- | --- | --- | --- |
`, float64(st.Size())/1e6, processor(), kernel(), loadMark)
	busy := []string{load()}
	for _, r := range rows() {
		if !strings.Contains(r.machine+" "+r.accel, *only) {
			continue
		}
		line := r.measure()
		fmt.Fprintln(os.Stderr, line)
		b.WriteString(line + "\n")
		busy = append(busy, load())
	}
	table := strings.Replace(b.String(), loadMark, strings.Join(busy, ", "), 1)
	if *out == "" {
		_, err = io.WriteString(os.Stdout, table)
		return err
	}
	return os.WriteFile(*out, []byte(table), 0o644)
}

// loadMark stands for the load averages until they are known.
const loadMark = "LOAD"

// load returns the host's load average of the last minute.
func load() string {
	b, _ := os.ReadFile("/proc/loadavg") //nolint:errcheck // then it is not known
	one, _, _ := strings.Cut(string(b), " ")
	return one
}

// processor and kernel name what the host has.
func processor() string {
	b, _ := os.ReadFile("/proc/cpuinfo") //nolint:errcheck // then it is not named
	for l := range strings.Lines(string(b)) {
		if name, ok := strings.CutPrefix(l, "model name\t: "); ok {
			return strings.TrimSpace(name)
		}
	}
	return "unknown processor"
}

func kernel() string {
	b, _ := os.ReadFile("/proc/sys/kernel/osrelease") //nolint:errcheck // then it is not named
	s := "Linux " + strings.Join(strings.SplitN(strings.TrimSpace(string(b)), ".", 3)[:2], ".")
	if q, err := vmm.FindQEMU(); err == nil {
		if _, why, err := q.Choose(context.Background(), vmm.Auto, *image, 64); err == nil {
			s += "; KVM: " + why
		}
	}
	return s
}

// measure boots a machine many times and returns its line of the table.
func (r *row) measure() string {
	cells := []string{r.machine, "", r.accel, r.transport}
	h, err := r.find()
	if err == nil && r.accel == "KVM" {
		err = vmm.KVMError()
	}
	if err != nil {
		return "| " + strings.Join(append(cells, "not run: "+err.Error(), "", ""), " | ") + " |"
	}
	name := h.String()
	_, cells[1], _ = strings.Cut(name, " ")
	cells[1], _, _ = strings.Cut(cells[1], " ")
	var took []time.Duration
	var failed error
	traffic := ""
	for i := range r.boots {
		d, said, err := r.boot(h, i == r.boots-1)
		if err != nil {
			failed = errors.Join(failed, err)
			continue
		}
		took, traffic = append(took, d), said
	}
	ready := "never"
	if len(took) > 0 {
		slices.Sort(took)
		ready = fmt.Sprintf("%d ms, %d ms", took[len(took)/2].Milliseconds(), took[len(took)-1].Milliseconds())
	}
	if failed != nil {
		fmt.Fprintln(os.Stderr, r.machine, failed)
	}
	return "| " + strings.Join(append(cells, fmt.Sprintf("%d of %d", len(took), r.boots), ready, traffic), " | ") + " |"
}

// boot starts a machine, waits until it is ready, sends traffic if asked to, and
// ends it.
func (r *row) boot(h vmm.Hypervisor, send bool) (ready time.Duration, said string, err error) {
	w, err := netlab.New(netlab.DefaultConfig())
	if err != nil {
		return 0, "", err
	}
	defer w.Close()
	dir, err := os.MkdirTemp("", "machines-")
	if err != nil {
		return 0, "", err
	}
	defer os.RemoveAll(dir)
	events, err := listen(filepath.Join(dir, "v_9000"))
	if err != nil {
		return 0, "", err
	}
	defer events.l.Close()
	c := vmm.Config{Image: *image, MemoryMB: 64, CPUs: 1, Vsock: vmm.Vsock{Path: filepath.Join(dir, "v")}}
	for role, sw := range map[vmm.Role]*netlab.Switch{vmm.LAN: w.LANSwitch, vmm.WAN: w.WANSwitch} {
		n := vmm.Network{Serve: sw.ServeVM}
		nic := vmm.NIC{Role: role, MAC: vmm.DefaultMAC(role)}
		if nic.Backend, err = vmm.NewBackend(vmm.Spec{Kind: vmm.Demo}, n); err == nil {
			nic.Tap, err = vmm.NewTap(vmm.Spec{Kind: vmm.Demo}, n)
		}
		if err != nil {
			return 0, "", err
		}
		c.NICs = append(c.NICs, nic)
	}
	r.config(&c)
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	live, ended := make(chan time.Time, 1), make(chan error, 1)
	start := time.Now()
	go func() {
		ended <- vmm.Run(ctx, h, c, vmm.RunOptions{Restart: vmm.Never, OnLine: func(l vmm.Line) {
			if l.Kind == vmm.Ready {
				select {
				case live <- time.Now():
				default:
				}
			}
		}})
	}()
	select {
	case at := <-live:
		ready = at.Sub(start)
	case err := <-ended:
		return 0, "", fmt.Errorf("ended: %w", err)
	}
	if send {
		said, err = traffic(ctx, w, events)
	}
	cancel()
	<-ended
	return ready, said, err
}

// A stream is a receiver of a firewall's stream.
type stream struct {
	l    net.Listener
	deny chan struct{} // closed once a denied packet was told
}

func listen(path string) (*stream, error) {
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	s := &stream{l: l, deny: make(chan struct{})}
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		var all []byte
		b := make([]byte, 64<<10)
		for told := false; ; {
			n, err := c.Read(b)
			if all = append(all, b[:n]...); !told && strings.Contains(string(all), "default-deny") {
				told = true
				close(s.deny)
			}
			if told || len(all) > 16<<20 {
				all = nil
			}
			if err != nil {
				return
			}
		}
	}()
	return s, nil
}

// traffic sends what the policy allows, and what it does not, and returns the rate
// of a large fetch.
func traffic(ctx context.Context, w *netlab.Network, events *stream) (string, error) {
	const size = 20_000_000
	if a, err := w.Alice.Resolve(ctx, w.DNS.Addr, w.WebName()); err != nil || a != w.Web.Addr {
		return "", fmt.Errorf("a name: %v, %w", a, err)
	}
	start := time.Now()
	body, err := get(ctx, w, w.Alice, fmt.Sprintf("/bytes/%d", size))
	if err != nil {
		return "", fmt.Errorf("20 MB: %w", err)
	}
	rate := size / time.Since(start).Seconds() / 1e6
	want, err := io.ReadAll(io.LimitReader(netlab.Pattern(), size))
	if err != nil || string(body) != string(want) {
		return "", errors.New("20 MB arrived changed")
	}
	var wg sync.WaitGroup
	errs := make([]error, 100)
	for i := range errs {
		wg.Go(func() {
			host := w.Alice
			if i%2 == 1 {
				host = w.Bob
			}
			_, errs[i] = get(ctx, w, host, fmt.Sprintf("/meet/%d", len(errs)))
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return "", fmt.Errorf("100 connections: %w", err)
	}
	short, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	if c, err := w.Alice.DialTCP(short, netip.AddrPortFrom(w.Web.Addr, 25)); err == nil {
		c.Close()
		return "", errors.New("a port that no rule allows is open")
	}
	select {
	case <-events.deny:
	case <-time.After(10 * time.Second):
		return "", errors.New("no event of the denied packet by vsock")
	}
	return fmt.Sprintf("all, %.0f MB/s", rate), nil
}

func get(ctx context.Context, w *netlab.Network, h *netlab.Host, path string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://%v%s", w.Web.Addr, path), nil)
	if err != nil {
		return nil, err
	}
	r, err := h.HTTP().Do(req)
	if err != nil {
		return nil, err
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err == nil && r.StatusCode != http.StatusOK {
		err = errors.New(r.Status)
	}
	return b, err
}
