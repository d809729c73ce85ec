package main

import (
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// A live run (BPF_PROG_TEST_RUN with live frames) sends what an XDP program makes
// of its frame. Its begin and end take tens of milliseconds in which nothing is
// sent, so that one run has many frames.
const (
	liveFrames = 1 << 1  // BPF_F_TEST_XDP_LIVE_FRAMES (linux/bpf.h)
	liveBatch  = 256     // the most that the kernel takes
	liveRun    = 1 << 20 // half a second's
)

// nftables returns how many packets this kernel forwards in a second of the
// time of a processor that does nothing else, when they come as a NIC gives them:
// in frames, from XDP on processor 0 into the ring of fl0, whose NAPI allocates
// an skb for each and frees it in the end.
//
// That is a NIC with an easy driver. No descriptors are read or refilled, and
// sending is one more ring, which wan0 empties into an XDP program that drops; on
// the other hand buffers go back to the pool of another processor. pause says how
// long processor 0 waits before each frame: see generatorProgram.
func nftables(flows, size int, d time.Duration, pause int) (perCPU float64, err error) {
	l, err := newLinux()
	if err != nil {
		return 0, err
	}
	defer l.close()
	st := l.stream(flows, size)
	if err := l.prime(st, flows); err != nil {
		return 0, err
	}
	n := nic{st: st, pause: pause}
	defer n.close()
	if err := n.attach(l); err != nil {
		return 0, err
	}
	// Linux is 2 to 3 % faster without GRO here: nothing can be merged, and what
	// finds that out is saved (medians of 25 pairs, at 16 flows and at 64 k).
	if err := ethtool(l.fw, "fl0", setGRO, 0); err != nil {
		return 0, err
	}
	return l.apart(func(d time.Duration) (arrived float64, err error) {
		err = within(l.lan, func() error {
			arrived, err = n.give(d)
			return err
		})
		return arrived, err
	}, d)
}

// A nic is the XDP programs that play one.
type nic struct {
	st          *stream
	pause       int
	generator   *ebpf.Program
	next, count *ebpf.Map
	opened      []interface{ Close() error }
}

func (n *nic) close() {
	for _, o := range n.opened {
		o.Close() //nolint:errcheck // at the end
	}
}

// attach loads the programs and binds them to their devices. That of fl0, which
// passes all, is what makes veth use NAPI without GRO.
func (n *nic) attach(l *linux) (err error) {
	if n.next, err = nextMap(n.st.next); err != nil {
		return fmt.Errorf("a BPF map: %w", err)
	}
	n.opened = append(n.opened, n.next)
	if n.count, err = countMap(); err != nil {
		return fmt.Errorf("a BPF map: %w", err)
	}
	n.opened = append(n.opened, n.count)
	if err := within(l.fw, func() error { return n.bind("fl0", passProgram()) }); err != nil {
		return fmt.Errorf("an XDP program on fl0: %w", err)
	}
	if err := within(l.wan, func() error { return n.bind("wan0", sinkProgram(n.count)) }); err != nil {
		return fmt.Errorf("an XDP program on wan0: %w", err)
	}
	return within(l.lan, func() error {
		lan0, err := net.InterfaceByName("lan0")
		if err != nil {
			return err
		}
		if n.generator, err = ebpf.NewProgram(generatorProgram(n.st, n.next, lan0.Index, n.pause)); err != nil {
			return fmt.Errorf("the generator's XDP program: %w", err)
		}
		n.opened = append(n.opened, n.generator)
		return nil
	})
}

// bind loads a program and attaches it to the driver of a device.
func (n *nic) bind(dev string, spec *ebpf.ProgramSpec) error {
	p, err := ebpf.NewProgram(spec)
	if err != nil {
		return err
	}
	n.opened = append(n.opened, p)
	i, err := net.InterfaceByName(dev)
	if err != nil {
		return err
	}
	at, err := link.AttachXDP(link.XDPOptions{Program: p, Interface: i.Index, Flags: link.XDPDriverMode})
	if err != nil {
		return err
	}
	n.opened = append(n.opened, at)
	return nil
}

// give has frames arrive for a time. It is called within [lan], where the
// generator's program finds lan0.
func (n *nic) give(d time.Duration) (arrived float64, err error) {
	var set unix.CPUSet
	set.Set(0)
	if err := unix.SchedSetaffinity(0, &set); err != nil { // this thread's
		return 0, fmt.Errorf("pinning the generator to processor 0: %w", err)
	}
	before, err := total(n.count)
	if err != nil {
		return 0, err
	}
	run := ebpf.RunOptions{Data: n.st.template[:n.st.frameRoom()], Repeat: liveRun, Flags: liveFrames, BatchSize: liveBatch}
	for until := time.Now().Add(d); time.Now().Before(until); {
		if _, err := n.generator.Run(&run); errors.Is(err, unix.EINVAL) {
			return 0, fmt.Errorf("this kernel sends no frames of XDP programs (Linux 5.18 does): %w", err)
		} else if err != nil {
			return 0, err
		}
	}
	time.Sleep(10 * time.Millisecond) // what waits in fl0's ring arrives too
	after, err := total(n.count)
	return float64(after - before), err
}
