package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const target = "203.0.113.1"

// iperf measures one kind of traffic in Gbit/s, as it was received, and how many GB that were.
func (l *lab) iperf(args string) (gbit, gb float64, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(*seconds)*time.Second+20*time.Second)
	defer cancel()
	a := append([]string{"netns", "exec", l.lan, "iperf3", "-c", target, "-p", "80", "-J", "-t", fmt.Sprint(*seconds)}, strings.Fields(args)...)
	out, err := exec.CommandContext(ctx, "ip", a...).Output()
	type sum struct {
		Bits  float64 `json:"bits_per_second"`
		Bytes float64
	}
	var r struct {
		Error string
		End   struct {
			Up   sum `json:"sum_received"`
			Down sum `json:"sum_received_bidir_reverse"`
		}
	}
	if jerr := json.Unmarshal(out, &r); jerr != nil {
		return 0, 0, errors.Join(err, jerr)
	}
	if r.Error != "" {
		return 0, 0, errors.New(r.Error)
	}
	return (r.End.Up.Bits + r.End.Down.Bits) / 1e9, (r.End.Up.Bytes + r.End.Down.Bytes) / 1e9, nil
}

// background sends at a rate in Gbit/s until its result is called.
func (l *lab) background(gbit float64) (stop func()) {
	cmd := exec.Command("ip", "netns", "exec", l.lan, "iperf3", "-c", target, "-p", "80", "-t", "600", "-b", fmt.Sprintf("%.0fM", gbit*1000))
	if cmd.Start() != nil {
		return func() {}
	}
	time.Sleep(500 * time.Millisecond)
	return func() {
		cmd.Process.Signal(os.Interrupt) //nolint:errcheck // it may have ended
		cmd.Wait()                       //nolint:errcheck // likewise
	}
}

// reach waits until the hosts reach each other: both sides have learned addresses then.
func (l *lab) reach() error {
	for end := time.Now().Add(20 * time.Second); ; { // a ping ends when its host hears of no neighbour
		out, err := exec.Command("ip", "netns", "exec", l.lan, "ping", "-c", "1", "-w", "5", target).CombinedOutput()
		if err == nil {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("the hosts do not reach each other: %w: %s", err, out)
		}
	}
}

// ping pings every 5 ms until its result is called, which returns the latencies.
func (l *lab) ping() func() percentiles {
	cmd := exec.Command("ip", "netns", "exec", l.lan, "ping", "-i", "0.005", target)
	var out bytes.Buffer
	cmd.Stdout = &out
	if cmd.Start() != nil {
		return func() percentiles { return percentiles{} }
	}
	return func() percentiles {
		cmd.Process.Signal(os.Interrupt) //nolint:errcheck // it may have ended
		cmd.Wait()                       //nolint:errcheck // likewise
		var d []time.Duration
		for line := range strings.SplitSeq(out.String(), "\n") {
			if _, after, ok := strings.Cut(line, "time="); ok {
				if t, err := time.ParseDuration(strings.ReplaceAll(after, " ", "")); err == nil {
					d = append(d, t)
				}
			}
		}
		return percentilesOf(d)
	}
}

// connects makes n connections one after the other, each after a pause, and returns how
// long their handshakes took: the time of the first packets of flows.
func (l *lab) connects(n int, pause time.Duration) (p percentiles, err error) {
	ln, err := l.listen()
	if err != nil {
		return p, err
	}
	defer ln.Close()
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				io.Copy(io.Discard, c) //nolint:errcheck // until the client resets it
				c.Close()
			}()
		}
	}()
	var d []time.Duration
	err = within(l.lan, func() error {
		for range n {
			time.Sleep(pause)
			start := time.Now()
			c, err := dial()
			if err != nil {
				return err
			}
			d = append(d, time.Since(start))
			// A reset, so that no port waits for the connection's end.
			unix.SetsockoptLinger(c, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}) //nolint:errcheck // then one waits
			unix.Close(c)                                                                     //nolint:errcheck // the end of the measurement
		}
		return nil
	})
	return percentilesOf(d), err
}

// dial connects to the server, on this thread.
func dial() (fd int, err error) {
	fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fd, err
	}
	if err = unix.Connect(fd, &unix.SockaddrInet4{Port: 443, Addr: [4]byte{203, 0, 113, 1}}); err != nil {
		unix.Close(fd) //nolint:errcheck // it was never used
	}
	return fd, err
}

// listen listens on the server's second port.
func (l *lab) listen() (ln net.Listener, err error) {
	err = within(l.wan, func() (err error) {
		ln, err = net.Listen("tcp4", target+":443")
		return err
	})
	return ln, err
}

// digestBytes is how much is sent in each direction to compare its digest.
const digestBytes = 256 << 20

// digests sends data in both directions at once and compares the digests of what was sent
// and received.
func (l *lab) digests() error {
	ln, err := l.listen()
	if err != nil {
		return err
	}
	defer ln.Close()
	type sums struct {
		sent, got [32]byte
		err       error
	}
	both := func(c net.Conn) (s sums) {
		defer c.Close()
		sent := make(chan error, 1)
		go func() {
			h := sha256.New()
			block := make([]byte, 1<<20)
			rand.Read(block) //nolint:errcheck // never fails
			for i := range digestBytes >> 20 {
				block[i] ^= 0x55
				h.Write(block)
				if _, err := c.Write(block); err != nil {
					sent <- err
					return
				}
			}
			s.sent = [32]byte(h.Sum(nil))
			sent <- c.(*net.TCPConn).CloseWrite()
		}()
		h := sha256.New()
		n, err := io.Copy(h, c)
		if s.got = [32]byte(h.Sum(nil)); n != digestBytes && err == nil {
			err = fmt.Errorf("%d bytes of %d arrived", n, digestBytes)
		}
		s.err = errors.Join(err, <-sent)
		return s
	}
	server := make(chan sums, 1)
	go func() {
		c, err := ln.Accept()
		if err != nil {
			server <- sums{err: err}
			return
		}
		server <- both(c)
	}()
	var c net.Conn
	if err := within(l.lan, func() error {
		fd, err := dial()
		if err != nil {
			return err
		}
		f := os.NewFile(uintptr(fd), "connection")
		defer f.Close()
		c, err = net.FileConn(f)
		return err
	}); err != nil {
		return err
	}
	a := both(c)
	b := <-server
	if err := errors.Join(a.err, b.err); err != nil {
		return err
	}
	if a.sent != b.got || b.sent != a.got {
		return errors.New("what arrived is not what was sent")
	}
	return nil
}

// within calls f in a namespace, on a thread that ends with it.
func within(ns string, f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: nothing else may run there
		done <- func() error {
			n, err := os.Open(filepath.Join("/run/netns", ns))
			if err != nil {
				return err
			}
			defer n.Close()
			if err := unix.Setns(int(n.Fd()), unix.CLONE_NEWNET); err != nil {
				return fmt.Errorf("entering a network namespace: %w", err)
			}
			return f()
		}()
	}()
	return <-done
}
