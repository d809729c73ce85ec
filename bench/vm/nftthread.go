package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A feed has packets arrive at fl0 for a time and returns how many of them
// reached wan0.
type feed func(d time.Duration) (arrived float64, err error)

// apart has the firewall work on processor 1 while a feed, on processor 0, gives
// it more than it can do. It returns what arrived for each second that processor
// 1 spent on it: in NAPI's thread, where packets are received, forwarded, sent
// and dropped, and in ksoftirqd, which takes over what the thread leaves.
func (l *linux) apart(give feed, d time.Duration) (perCPU float64, err error) {
	threads, err := l.threaded(1)
	if err != nil {
		return 0, err
	}
	if _, err := give(d / 8); err != nil { // the thread is there, and warm
		return 0, err
	}
	threads = append(threads, kernelThreads("ksoftirqd/1")...)
	before, err := taskTime(threads...)
	if err != nil {
		return 0, err
	}
	n, err := give(d)
	if err != nil {
		return 0, err
	}
	after, err := taskTime(threads...)
	if err != nil {
		return 0, err
	}
	if n == 0 || after <= before {
		return 0, errors.New("nothing arrived")
	}
	return n / (after - before).Seconds(), nil
}

// threaded has fl0 receive in threads of the kernel on a processor, one for each
// queue, and returns their schedstats. fl0 must have NAPI by then.
func (l *linux) threaded(cpu int) (schedstats []string, err error) {
	if out, err := exec.Command("ip", "netns", "exec", l.fw, "sh", "-c", "echo 1 > /sys/class/net/fl0/threaded").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("threaded NAPI: %w: %s", err, out)
	}
	schedstats = kernelThreads("napi/fl0")
	if len(schedstats) == 0 {
		return nil, errors.New("threaded NAPI: no thread")
	}
	var set unix.CPUSet
	set.Set(cpu)
	for _, s := range schedstats {
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(s)))
		if err == nil {
			err = unix.SchedSetaffinity(pid, &set)
		}
		if err != nil {
			return nil, fmt.Errorf("pinning NAPI's thread: %w", err)
		}
	}
	return schedstats, nil
}

// taskTime adds up the processor time of several schedstat files.
func taskTime(files ...string) (time.Duration, error) {
	total := int64(0)
	for _, p := range files {
		b, err := os.ReadFile(p)
		if err != nil {
			return 0, err
		}
		ns, err := strconv.ParseInt(strings.Fields(string(b))[0], 10, 64)
		if err != nil {
			return 0, err
		}
		total += ns
	}
	return time.Duration(total), nil
}

// kernelThreads finds the schedstats of kernel threads by the beginning of their
// names.
func kernelThreads(name string) (stats []string) {
	found, _ := filepath.Glob("/proc/[0-9]*/comm") //nolint:errcheck // the pattern is right
	for _, p := range found {
		if b, err := os.ReadFile(p); err == nil && strings.HasPrefix(string(b), name) {
			stats = append(stats, filepath.Join(filepath.Dir(p), "schedstat"))
		}
	}
	return stats
}
