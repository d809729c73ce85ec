package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/thurward/thurward/internal/host/vmm"
)

// The firewall's hardware addresses.
var guestMAC = [2][6]byte{{0x52, 0x54, 0, 0x74, 0x68, 1}, {0x52, 0x54, 0, 0x74, 0x68, 2}}

// rules is the policy that is measured: a stateful filter with masquerade.
// Events are off, as the flows are millions.
const rules = `
interfaces:
  lan0: { address: 10.1.255.254/16 }
  wan0: { address: 203.0.113.10/24, gateway: 203.0.113.1 }
defaults: { default_action: deny, max_flows: %d }
nat: { snat: [ { out_interface: wan0, source: 10.1.0.0/16, masquerade: true } ] }
rules:
  - { id: allow-udp, action: accept, direction: egress, source: 10.1.0.0/16, protocol: udp, destination_port: 9 }
  - { id: allow-tcp, action: accept, direction: egress, source: 10.1.0.0/16, protocol: tcp, destination_port: 9 }
  - { id: allow-established, action: accept, direction: ingress, state: established }
`

// A guest is a running machine on a processor of its own.
type guest struct {
	m   *vmm.Machine
	pid int
}

// A fewerError is that of a guest that does not use all of its processors.
type fewerError struct{ why string }

func (e *fewerError) Error() string { return "the guest uses fewer processors than it has: " + e.why }

// boot starts an image between the two ports and waits for its rules. Its
// stream goes to vsock.
func boot(q *vmm.QEMU, img string, kvm bool, memoryMB, cpu int, ports [2]*port, vsock vmm.Vsock, s scenario) (*guest, error) {
	cfg := vmm.Config{Image: img, KVM: kvm, MemoryMB: memoryMB, CPUs: max(s.pairs, 1), Vsock: vsock, Log: func(string, ...any) {}}
	if s.wire && s.like() {
		cfg.Append = "wire.like=firewall"
	}
	for i, role := range []vmm.Role{vmm.LAN, vmm.WAN} {
		b, err := vmm.NewBackend(vmm.Spec{Kind: vmm.VhostUser, Arg: ports[i].path}, vmm.Network{BackEndQueues: s.pairs})
		if err != nil {
			return nil, err
		}
		cfg.NICs = append(cfg.NICs, vmm.NIC{Role: role, MAC: vmm.DefaultMAC(role), Backend: b})
	}
	ready, why, fewer := make(chan struct{}), make(chan string, 100), ""
	m, err := q.Start(cfg, func(l vmm.Line) {
		if l.Kind == vmm.Ready {
			close(ready)
		} else if _, text, ok := strings.Cut(l.Text, " processors used: "); ok {
			fewer = text // before it is ready
		}
		select {
		case why <- l.Text:
		default:
		}
	})
	if err != nil {
		return nil, err
	}
	g := &guest{m: m, pid: m.Pid()}
	if err := pin(g.pid, cpu); err != nil {
		g.stop()
		return nil, err
	}
	select {
	case <-ready:
		if fewer != "" {
			g.stop()
			return nil, &fewerError{fewer}
		}
		return g, nil
	case <-m.Done():
		err = errors.New("the guest ended before it was ready")
	case <-time.After(60 * time.Second):
		err = errors.New("the guest was not ready within a minute")
	}
	g.stop()
	for len(why) > 0 {
		err = fmt.Errorf("%w\n  %s", err, <-why)
	}
	return nil, err
}

// halt stops the guest's time, but for its clock, and resume lets it go on.
func (g *guest) halt() error   { return unix.Kill(g.pid, unix.SIGSTOP) }
func (g *guest) resume() error { return unix.Kill(g.pid, unix.SIGCONT) }

func (g *guest) stop() {
	g.resume() //nolint:errcheck // a halted guest would not end
	g.m.Stop()
	<-g.m.Done()
}

// pin binds all threads of a process to one processor.
func pin(pid, cpu int) error {
	var set unix.CPUSet
	set.Set(cpu)
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return err
	}
	for _, t := range tasks {
		tid, err := strconv.Atoi(t.Name())
		if err != nil {
			continue
		}
		if err := unix.SchedSetaffinity(tid, &set); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("pinning the guest to processor %d: %w", cpu, err)
		}
	}
	return nil
}

// cpuTime returns the processor time that the guest has had, the monitor's
// included.
func (g *guest) cpuTime() (time.Duration, error) {
	total := time.Duration(0)
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", g.pid))
	if err != nil {
		return 0, err
	}
	for _, t := range tasks {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/schedstat", g.pid, t.Name()))
		if err != nil {
			continue // it has ended
		}
		ns, err := strconv.ParseInt(strings.Fields(string(bytes.TrimSpace(b)))[0], 10, 64)
		if err != nil {
			return 0, err
		}
		total += time.Duration(ns)
	}
	return total, nil
}
