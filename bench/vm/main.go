// Command vm measures the firewall in a virtual machine: packets per second of
// the guest's processor time, beside a guest that is only a wire. Generator and
// sink are one thread on one processor, which plays the guest's two network
// devices (vhost-user); the guest has the other processor. As root it also
// measures this machine's Linux with nftables in the guest's place (nft.go).
//
//	go run ./bench/vm                     all scenarios
//	go run ./bench/vm -rounds 3           three times, and the medians
//	go run ./bench/vm -accel tcg -t 2s    with the emulator, shorter
//
// Rows of 64 KB are TCP segments of 65,160 bytes with the offloads that the firewall takes; their
// rate is that of frames. Rows of 2 queues are those of a guest with two processors and two pairs
// of queues, both on the guest's one processor of the host: they say what a packet costs each of
// two workers, not that two processors do more. Where the guest uses one of its processors only,
// as where ring 0 is emulated, they are not measured (-accel tcg does). The wire beside both
// takes offloads and queues as the firewall does, and sleeps when it has nothing to do.
//
// A guest polls, so that all of its processor's time is used however little
// there is to do. What the firewall says of itself, the share of the time in
// which it had packets, is printed beside: where that is below 100 %, the
// generator is what limits the rate, and the last column is what the firewall
// would do with a faster one.
//
// What it prints is for comparison within one run: machines differ, and one
// machine from second to second. The wire is measured anew for each scenario, with
// the same frames and by turns of a tenth of a second.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/thurward/thurward/bench/parts"
	"github.com/thurward/thurward/internal/host/vmm"
)

// A scenario is one line of the table.
type scenario struct {
	name  string
	wire  bool
	flows int
	size  int
	fresh bool

	large  bool // TCP segments of 64 KB, in place of datagrams
	pairs  int  // of queues, and processors; 0: 1
	astray bool // each pair of queues gets the frames of the other worker
}

// like reports whether the wire beside it is one that takes offloads and pairs of queues as the
// firewall does.
func (s scenario) like() bool { return s.large || s.pairs > 1 }

var scenarios = []scenario{
	{name: "wire, 64 B", wire: true, flows: 65536, size: 60},
	{name: "16 flows, 64 B", flows: 16, size: 60},
	{name: "64 k flows, 64 B", flows: 65536, size: 60},
	{name: "1 M flows, 64 B", flows: 1 << 20, size: 60},
	{name: "64 k flows, 1514 B", flows: 65536, size: 1514},
	{name: "64 k flows, IMIX", flows: 65536},
	{name: "a new flow each", flows: 1 << 16, size: 60, fresh: true},
	{name: "16 flows, 64 KB TCP", flows: 16, large: true},
	{name: "64 k flows, 64 KB TCP", flows: 65536, large: true},
	{name: "2 queues, 16 flows", flows: 16, size: 60, pairs: 2},
	{name: "2 queues, 4 k flows", flows: 4096, size: 60, pairs: 2},
	{name: "2 queues, new flows", flows: 1 << 16, size: 60, fresh: true, pairs: 2},
	{name: "2 queues, other's", flows: 4096, size: 60, pairs: 2, astray: true},
	{name: "2 queues, 64 KB TCP", flows: 16, large: true, pairs: 2},
}

// What this machine's Linux does, beside it, on a processor of its own as the
// guest, with frames as a NIC gives them: given little more than it can do, which
// is best for it, and as many as processor 0 can send.
var linuxScenarios = []struct {
	scenario
	pause int
}{
	{scenario{name: "nftables, 16 flows", flows: 16, size: 60}, pause},
	{scenario{name: "nftables, 64 k flows", flows: 65536, size: 60}, pause},
	{scenario{name: "... flooded, 16", flows: 16, size: 60}, 0},
	{scenario{name: "... flooded, 64 k", flows: 65536, size: 60}, 0},
}

func main() {
	accel := flag.String("accel", "auto", "auto, kvm or tcg")
	seconds := flag.Duration("t", 3*time.Second, "how long each scenario is measured")
	only := flag.String("run", "", "only scenarios whose names contain this")
	rounds := flag.Int("rounds", 1, "how often all of it is done; then the medians are printed")
	flag.Parse()
	if err := run(*accel, *seconds, *only, *rounds); err != nil {
		fmt.Fprintln(os.Stderr, "bench/vm:", err)
		os.Exit(1)
	}
}

func run(accel string, d time.Duration, only string, rounds int) error {
	if runtime.NumCPU() < 2 {
		return errors.New("two processors are needed: one for the guest, one for the generator")
	}
	a, err := vmm.ParseAccel(accel)
	if err != nil {
		return err
	}
	q, err := vmm.FindQEMU()
	if err != nil {
		return err
	}
	kvm := a == vmm.KVM || a == vmm.Auto && vmm.KVMError() == nil
	dir, err := os.MkdirTemp("", "thurward-bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	p, err := parts.Build(dir)
	if err != nil {
		return err
	}
	var ports [2][2]*port // of a scenario's guest, and of its wire
	for i := range ports {
		for n := range ports[i] {
			if ports[i][n], err = newPort(n, filepath.Join(dir, [...]string{"guest", "wire"}[i])); err != nil {
				return err
			}
			defer ports[i][n].close()
		}
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, os.Interrupt)
	runtime.LockOSThread()
	var set unix.CPUSet
	set.Set(0)
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		return fmt.Errorf("pinning the generator to processor 0: %w", err)
	}
	with := "TCG"
	if kvm {
		with = "KVM"
	}
	fmt.Printf("%s, %s; Mpps are those that arrived, per second of the guest's processor time\n", with, time.Now().UTC().Format("2006-01-02 15:04"))
	var sum summary
	for range rounds {
		fmt.Printf("%-20s %8s %8s %8s %7s %8s %7s %6s %9s\n", "", "Mpps", "wall", "arrived", "guest", "wire", "of wire", "busy", "Mpps busy")
		t := table{}
		for _, s := range scenarios {
			if only != "" && !s.wire && !strings.Contains(s.name, only) {
				continue
			}
			r, err := measure(q, &p, s, kvm, d, dir, ports, stop)
			if few := (*fewerError)(nil); errors.As(err, &few) {
				fmt.Printf("%-20s not measured: %v\n", s.name, err)
				continue
			}
			if err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
			t.add(s.name, r)
			fmt.Printf("%-20s %8.2f %8.2f %7.0f%% %6.0f%% %8.2f %6.0f%%", s.name, r.perCPU/1e6, r.wall/1e6, 100*r.arrived, 100*r.share, r.wire/1e6, 100*r.perCPU/r.wire)
			if r.busy > 0 {
				fmt.Printf(" %5.0f%% %9.2f", 100*r.busy, r.perCPU/r.busy/1e6)
			}
			fmt.Println()
		}
		for _, s := range linuxScenarios {
			if only != "" && !strings.Contains(s.name, only) {
				continue
			}
			v, err := nftables(s.flows, s.size, d, s.pause)
			if err != nil {
				fmt.Printf("%-20s not measured: %v\n", s.name, err)
				continue
			}
			t.add(s.name, result{perCPU: v})
			fmt.Printf("%-20s %8.2f\n", s.name, v/1e6)
		}
		sum = append(sum, t)
	}
	if rounds > 1 {
		sum.print(os.Stdout)
	}
	return nil
}
