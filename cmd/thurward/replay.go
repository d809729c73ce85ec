package main

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/thurward/thurward/internal/host/replay"
	"github.com/thurward/thurward/internal/host/terminal"
	"github.com/thurward/thurward/internal/shared/ruleset"
)

// replayFlags are the flags of replay.
type replayFlags struct {
	replay.Options
	policy, events, neighbours string
	mac                        [2]string
}

func newReplayCmd() *cobra.Command {
	var f replayFlags
	cmd := &cobra.Command{
		Use:   "replay",
		Short: "Run captures through the data plane",
		Long: `replay reads captures of frames that arrive at each side, runs them through the firewall's
own data plane in virtual time, and writes the frames that leave each side and the
events. A timeout of an hour takes no longer than the packets around it. The same
captures, policy and seed give the same output, byte for byte, as bug reports need it.

Captures are pcap or pcapng, also compressed with gzip, or a pipe; - is standard
input. They are of Ethernet, of raw IP, or Linux's cooked ones (tcpdump -i any). With
--any, one capture of all interfaces of a Linux router is both sides.

A capture may have both directions of a link: frames that the firewall sent are
left out. They are known by its hardware address: that of --lan-mac and --wan-mac,
of the policy, or found by ARP and the packets' addresses; the summary says how. If
none is found, frames to any host are taken as frames to the firewall. ARP requests
of the firewall are answered with addresses in the captures, or with made-up ones.
docs/replay.md has an example.`,
		Example: `  thurward replay -f rules.yaml --lan lan.pcap --wan wan.pcap \
      --out-lan out-lan.pcap --out-wan out-wan.pcap --events events.json
  thurward replay -f rules.yaml --wan attack.pcapng --events - --drain 3h
  ssh router tcpdump -i any -w - | thurward replay --any - --fix-checksums`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := f.check(); err != nil {
				return usageError{fmt.Errorf("replay: %w", err)}
			}
			return f.run(cmd)
		},
	}
	fl := cmd.Flags()
	policyFlag(cmd, &f.policy, "the policy")
	fl.Var(fl.Lookup("file").Value, "policy", "the policy")
	fl.Lookup("policy").Hidden = true // as it was called before -f
	fl.StringVar(&f.In[replay.LAN], "lan", "", "capture of frames that arrive at the LAN side")
	fl.StringVar(&f.In[replay.WAN], "wan", "", "capture of frames that arrive at the WAN side")
	fl.StringVar(&f.Any, "any", "", "capture of all interfaces of a Linux router, instead of --lan and --wan")
	fl.StringVar(&f.Out[replay.LAN], "out-lan", "", "capture to write, of frames that leave the LAN side")
	fl.StringVar(&f.Out[replay.WAN], "out-wan", "", "capture to write, of frames that leave the WAN side")
	fl.StringVar(&f.events, "events", "", "file of the events to write; - is standard output, the summary is then on standard error")
	fl.StringVar(&f.mac[replay.LAN], "lan-mac", "", "the firewall's hardware address in the LAN capture")
	fl.StringVar(&f.mac[replay.WAN], "wan-mac", "", "the firewall's hardware address in the WAN capture")
	fl.StringVar(&f.neighbours, "neighbours", "all", "who answers the firewall's ARP requests: all addresses, or only those seen in the captures")
	fl.Uint64Var(&f.Seed, "seed", 1, "seed of the firewall's secret, by which it chooses ports")
	fl.DurationVar(&f.Drain, "drain", 10*time.Second, "virtual time after the last frame")
	fl.Int64Var(&f.MaxBytes, "max-bytes", replay.MaxBytes, "limit on the bytes of a capture's frames")
	completes(cmd, "neighbours", "all", "seen")
	fl.BoolVar(&f.FixChecksums, "fix-checksums", false, "correct IPv4, TCP, UDP and ICMP checksums: those of frames that the capturing host sent may be wrong, since its network device computes them")
	return cmd
}

// check checks the flags, and completes the options by them.
func (f *replayFlags) check() error {
	switch {
	case f.In == [2]string{} && f.Any == "":
		return errors.New("no capture (want --lan FILE, --wan FILE or both, or --any FILE)")
	case f.In != [2]string{} && f.Any != "":
		return errors.New("--any is both sides; leave out --lan and --wan")
	case f.In[replay.LAN] == "-" && f.In[replay.WAN] == "-":
		return errors.New("--lan and --wan cannot both be standard input")
	case f.policy == "-" && (f.In[replay.LAN] == "-" || f.In[replay.WAN] == "-" || f.Any == "-"):
		return errors.New("--file and a capture cannot both be standard input")
	}
	switch f.neighbours {
	case "all", "seen":
		f.SeenOnly = f.neighbours == "seen"
	default:
		return fmt.Errorf("unknown --neighbours %q (want all or seen)", f.neighbours)
	}
	if f.Drain < 0 || f.Drain > 31*24*time.Hour {
		return fmt.Errorf("--drain %v (want 0 to 744h)", f.Drain)
	}
	if f.MaxBytes < 1 {
		return fmt.Errorf("--max-bytes %d (want at least 1)", f.MaxBytes)
	}
	for i, name := range []string{"lan", "wan"} {
		if f.mac[i] == "" {
			continue
		}
		a, err := net.ParseMAC(f.mac[i])
		if err != nil || len(a) != 6 || a[0]&1 != 0 {
			return fmt.Errorf("--%s-mac %q is not the address of a host (want aa:bb:cc:dd:ee:ff)", name, f.mac[i])
		}
		f.MAC[i] = [6]byte(a)
	}
	return apart(
		[]flagged{{"--file", f.policy}, {"--lan", f.In[replay.LAN]}, {"--wan", f.In[replay.WAN]}, {"--any", f.Any}},
		[]flagged{{"--out-lan", f.Out[replay.LAN]}, {"--out-wan", f.Out[replay.WAN]}, {"--events", f.events}})
}

// run replays the captures and prints the summary.
func (f *replayFlags) run(cmd *cobra.Command) error {
	var err error
	if f.Policy, err = f.compile(cmd); err != nil {
		return err
	}
	out := cmd.OutOrStdout()
	done := func() error { return nil }
	switch f.events {
	case "":
	case "-":
		b := bufio.NewWriter(out)
		f.Events, done, out = b, b.Flush, cmd.ErrOrStderr()
	default:
		file, err := os.Create(f.events)
		if err != nil {
			return err
		}
		defer file.Close()
		b := bufio.NewWriter(file)
		f.Events, done = b, func() error {
			if err := b.Flush(); err != nil {
				return err
			}
			return file.Close()
		}
	}
	f.Stdin = cmd.InOrStdin()
	if tty, ok := terminal.File(cmd.ErrOrStderr()); ok && isTerminal(tty) {
		p := progress{w: tty}
		f.Progress, done = p.show, p.end(done)
	}
	sum, err := replay.Run(f.Options)
	if e := done(); err == nil {
		err = e
	}
	if err != nil {
		return fmt.Errorf("replay: %w", err)
	}
	sum.Print(out)
	return nil
}

// compile reads and compiles the policy.
func (f *replayFlags) compile(cmd *cobra.Command) (*ruleset.Policy, error) {
	_, seg, _, err := openPolicy(cmd, f.policy, true)
	if err != nil {
		return nil, fmt.Errorf("%w; nothing was replayed", err)
	}
	return seg, nil
}

// A flagged is a flag that names a file; path is "" if it is not set.
type flagged struct{ flag, path string }

// apart returns an error if a file to write is also read or written otherwise: the
// capture of a fault may not be possible twice.
func apart(in, out []flagged) error {
	for i, o := range out {
		for _, other := range append(in[:len(in):len(in)], out[:i]...) {
			if o.path != "" && sameFile(o.path, other.path) {
				return fmt.Errorf("%s and %s are the same file, %s", o.flag, other.flag, o.path)
			}
		}
	}
	return nil
}

// sameFile reports whether two paths are the same regular file, which need not exist.
func sameFile(a, b string) bool {
	x, errX := os.Stat(a)
	y, errY := os.Stat(b)
	if errX == nil && errY == nil {
		return x.Mode().IsRegular() && os.SameFile(x, y)
	}
	return errX != nil && errY != nil && filepath.Clean(a) == filepath.Clean(b)
}
