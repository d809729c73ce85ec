package main

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A cost is what carrying data took a machine, in the time of one kind of traffic. A busy
// host makes a machine slower, but hardly changes these.
type cost struct {
	gb      float64 // of payload, both ways
	vcpu    time.Duration
	io      time.Duration // the hypervisor's first thread, which moves frames
	frames  float64       // packets on the wire that the machine received
	large   float64       // frames of several of them
	bells   float64       // notifications of the machine
	signals float64       // interrupts of network devices
}

// metrics of the machine that cost needs.
const (
	mFrames     = "thurward_interface_receive_packets_total"
	mLarge      = "thurward_interface_receive_large_total"
	mNotifies   = "thurward_interface_notifies_total"
	mInterrupts = "thurward_interface_interrupts_total"
)

// spending begins to measure; its result ends that, gb being what was carried.
func (t *told) spending() (end func(gb float64) (cost, error), err error) {
	before, err := t.counters()
	if err != nil {
		return nil, err
	}
	vcpu, io := threadTimes()
	return func(gb float64) (c cost, err error) {
		v, i := threadTimes()
		after, err := t.counters()
		d := func(name string) float64 { return after[name] - before[name] }
		return cost{gb, v - vcpu, i - io, d(mFrames), d(mLarge), d(mNotifies), d(mInterrupts)}, err
	}, nil
}

// String returns what 1 GB costs.
func (c cost) String() string {
	return fmt.Sprintf("%.2f s | %.2f s | %.1f k | %.1f k | %.1f k | %.1f k",
		c.vcpu.Seconds()/c.gb, c.io.Seconds()/c.gb, c.frames/c.gb/1e3, c.large/c.gb/1e3, c.bells/c.gb/1e3, c.signals/c.gb/1e3)
}

// total is what carrying takes in processor time.
func (c cost) total() time.Duration { return time.Duration(float64(c.vcpu+c.io) / c.gb) }

// printCosts prints what 1 GB cost each machine, of the round with the median processor time.
func printCosts(ws []way, res map[string][]result) {
	fmt.Print("\nWhat 1 GB of payload cost a machine, of the round with the median processor time.\n\n" +
		"| | traffic | guest | hypervisor | packets | large frames | notifications | interrupts |\n| --- | --- | --- | --- | --- | --- | --- | --- |\n")
	for _, w := range ws {
		for i, k := range kinds {
			var all []cost
			for _, x := range res[w.name] {
				if x.cost[i].gb > 0 {
					all = append(all, x.cost[i])
				}
			}
			if len(all) == 0 {
				continue
			}
			slices.SortFunc(all, func(a, b cost) int { return cmp.Compare(a.total(), b.total()) })
			fmt.Printf("| %s | %s | %v |\n", w.name, k.name, all[len(all)/2])
		}
	}
}

// threadTimes returns the processor time of the hypervisors that this process has started: of
// their virtual processors, and of their first threads.
func threadTimes() (vcpu, io time.Duration) {
	children := map[int][]int{}
	all, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range all {
		b, _ := os.ReadFile(path)
		_, rest, ok := strings.Cut(string(b), ") ")
		f := strings.Fields(rest)
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if !ok || len(f) < 2 || err != nil {
			continue
		}
		if parent, err := strconv.Atoi(f[1]); err == nil {
			children[parent] = append(children[parent], pid)
		}
	}
	for todo := slices.Clone(children[os.Getpid()]); len(todo) > 0; todo = todo[1:] {
		pid := todo[0]
		todo = append(todo, children[pid]...)
		comm, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
		if s := string(comm); !strings.HasPrefix(s, "qemu-system") && !strings.HasPrefix(s, "firecracker") {
			continue
		}
		tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
		for _, t := range tasks {
			b, _ := os.ReadFile(t)
			first, _, _ := strings.Cut(string(b), " ")
			ns, _ := strconv.ParseInt(first, 10, 64)
			if filepath.Base(filepath.Dir(t)) == strconv.Itoa(pid) {
				io += time.Duration(ns)
			} else {
				vcpu += time.Duration(ns)
			}
		}
	}
	return vcpu, io
}
