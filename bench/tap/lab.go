package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// A lab has the two hosts, and a bridge on each side:
//
//	[lan] 10.0.0.2 ── brL ── … ── brW ── 203.0.113.1 [wan]
//
// What the hosts offload stays as Linux has it.
type lab struct {
	lan, wan, fw string // namespaces
	brL, brW     string
	vethL, vethW string
	server       *exec.Cmd
	machine      bool  // stands between the hosts
	told         *told // of a firewall between them; nil: it is none
	closing      []func()

	mu   sync.Mutex
	shut func() error // the way that is open; nil: none
}

func newLab() (l *lab, err error) {
	for _, p := range []string{"ip", "nft", "iperf3"} {
		if _, err := exec.LookPath(p); err != nil {
			return nil, fmt.Errorf("%s is not installed (Debian: iproute2 nftables iperf3)", p)
		}
	}
	id := fmt.Sprint(os.Getpid() % 100000)
	l = &lab{lan: "tbl" + id, wan: "tbw" + id, fw: "tbf" + id, brL: "tbbl" + id, brW: "tbbw" + id, vethL: "tbvl" + id, vethW: "tbvw" + id}
	defer func() {
		if err != nil {
			l.close()
		}
	}()
	for _, ns := range []string{l.lan, l.wan, l.fw} {
		if err := ip("netns add " + ns); err != nil {
			return nil, err
		}
		l.closing = append(l.closing, func() {
			emptied(ns)
			ip("netns del " + ns) //nolint:errcheck // at the end
		})
	}
	for _, s := range []struct{ ns, br, veth, addr string }{{l.lan, l.brL, l.vethL, "10.0.0.2/24"}, {l.wan, l.brW, l.vethW, "203.0.113.1/24"}} {
		if err := ip("link add " + s.br + " type bridge"); err != nil {
			return nil, err
		}
		l.closing = append(l.closing, func() {
			ip("link del " + s.veth) //nolint:errcheck // at the end; connections keep its namespace for some time
			ip("link del " + s.br)   //nolint:errcheck // likewise
		})
		err := errors.Join(ip("link set "+s.br+" up"),
			ip("link add "+s.veth+" type veth peer name eth0 netns "+s.ns),
			ip("link set "+s.veth+" master "+s.br+" up"), ip("-n "+s.ns+" addr add "+s.addr+" dev eth0"),
			ip("-n "+s.ns+" link set lo up"), ip("-n "+s.ns+" link set eth0 up"))
		if err != nil {
			return nil, err
		}
	}
	l.server = exec.Command("ip", "netns", "exec", l.wan, "iperf3", "-s", "-p", "80")
	if err := l.server.Start(); err != nil {
		return nil, err
	}
	l.closing = append(l.closing, func() {
		l.server.Process.Kill() //nolint:errcheck // it may have ended
		l.server.Wait()         //nolint:errcheck // killed
	})
	return l, nil
}

func (l *lab) close() {
	for i := len(l.closing) - 1; i >= 0; i-- {
		l.closing[i]()
	}
}

// emptied kills what still runs in a namespace, which would keep it.
func emptied(ns string) {
	out, _ := exec.Command("ip", "netns", "pids", ns).Output()
	for _, f := range strings.Fields(string(out)) {
		if pid, err := strconv.Atoi(f); err == nil {
			unix.Kill(pid, unix.SIGKILL) //nolint:errcheck // it may have ended
		}
	}
}

// closeOnSignal leaves nothing behind when the measurement is interrupted, until its result is
// called.
func (l *lab) closeOnSignal() (done func()) {
	c := make(chan os.Signal, 1)
	signal.Notify(c, os.Interrupt, unix.SIGTERM)
	go func() {
		if s, ok := <-c; ok {
			err := l.shutWay()
			l.close()
			fmt.Fprintln(os.Stderr, "tap:", s, err)
			os.Exit(1)
		}
	}()
	return func() { signal.Stop(c); close(c) }
}

// openWay keeps what shuts the way that was opened.
func (l *lab) openWay(shut func() error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.shut = shut
}

// shutWay shuts the way that is open, if there is one.
func (l *lab) shutWay() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	shut := l.shut
	if l.shut = nil; shut == nil {
		return nil
	}
	return shut()
}

func ip(args string) error {
	if out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput(); err != nil {
		return fmt.Errorf("ip %s: %w: %s", args, err, bytes.TrimSpace(out))
	}
	return nil
}
