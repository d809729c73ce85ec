package main

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/thurward/thurward/internal/host/limited"
	"github.com/thurward/thurward/internal/host/policy"
	"github.com/thurward/thurward/internal/host/policy/check"
	"github.com/thurward/thurward/internal/host/policy/compile"
	"github.com/thurward/thurward/internal/host/replay"
)

func newReplayCmd() *cobra.Command {
	var file, events, neighbours string
	var mac [2]string
	var o replay.Options
	cmd := &cobra.Command{
		Use:   "replay",
		Short: "Run captures through the data plane",
		Long: `replay takes captures (pcap or pcapng, Ethernet) of what arrives at each side,
runs them through the firewall's own data plane in virtual time, and writes what
leaves each side and the events. Time is the captures': a timeout of an hour
takes no longer than the packets around it. The same captures, policy and seed
give the same output, byte for byte, which makes it the tool for bug reports.

A capture may hold both directions of a link: the firewall's own frames are left
out. They are known by its hardware address, which --lan-mac and --wan-mac give,
or the policy, or ARP and the packets' addresses; the summary says which. Where
none is found, the frames to all hosts are taken as frames to the firewall. ARP
requests of the firewall are answered with the addresses that the captures show,
or with made-up ones. docs/replay.md has an example.`,
		Example: `  thurward replay --policy rules.yaml --lan lan.pcap --wan wan.pcap \
      --out-lan out-lan.pcap --out-wan out-wan.pcap --events events.json
  thurward replay --policy rules.yaml --wan attack.pcapng --events - --drain 3h`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.In == [2]string{} {
				return usageError{fmt.Errorf("replay: no capture (want --lan FILE, --wan FILE or both)")}
			}
			switch neighbours {
			case "all", "seen":
				o.SeenOnly = neighbours == "seen"
			default:
				return usageError{fmt.Errorf("replay: unknown --neighbours %q (want all or seen)", neighbours)}
			}
			if o.Drain < 0 || o.Drain > 31*24*time.Hour {
				return usageError{fmt.Errorf("replay: --drain %v (want 0 to 744h)", o.Drain)}
			}
			if o.MaxBytes < 1 {
				return usageError{fmt.Errorf("replay: --max-bytes %d (want at least 1)", o.MaxBytes)}
			}
			for i, name := range []string{"lan", "wan"} {
				if mac[i] == "" {
					continue
				}
				a, err := net.ParseMAC(mac[i])
				if err != nil || len(a) != 6 || a[0]&1 != 0 {
					return usageError{fmt.Errorf("replay: --%s-mac %q is not the address of a host (want aa:bb:cc:dd:ee:ff)", name, mac[i])}
				}
				o.MAC[i] = [6]byte(a)
			}
			if err := apart(
				[]flagged{{"--policy", file}, {"--lan", o.In[replay.LAN]}, {"--wan", o.In[replay.WAN]}},
				[]flagged{{"--out-lan", o.Out[replay.LAN]}, {"--out-wan", o.Out[replay.WAN]}, {"--events", events}}); err != nil {
				return usageError{err}
			}
			src, err := limited.ReadFile(file, policy.MaxBytes)
			if err != nil {
				return fmt.Errorf("%w (name the policy with --policy)", err)
			}
			p, diags := check.Load(file, src)
			if err := showText(cmd.ErrOrStderr(), file, src, diags); err != nil {
				return err
			}
			if p == nil {
				return fmt.Errorf("%s is not valid; nothing was replayed", file)
			}
			if o.Policy, err = compile.Compile(p); err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			done := func() error { return nil }
			switch events {
			case "":
			case "-":
				b := bufio.NewWriter(out)
				o.Events, done, out = b, b.Flush, cmd.ErrOrStderr()
			default:
				f, err := os.Create(events)
				if err != nil {
					return err
				}
				defer f.Close()
				b := bufio.NewWriter(f)
				o.Events, done = b, func() error {
					if err := b.Flush(); err != nil {
						return err
					}
					return f.Close()
				}
			}
			sum, err := replay.Run(o)
			if e := done(); err == nil {
				err = e
			}
			if err != nil {
				return fmt.Errorf("replay: %w", err)
			}
			sum.Print(out)
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&file, "policy", "rules.yaml", "the policy")
	f.StringVar(&o.In[replay.LAN], "lan", "", "capture of what arrives at the LAN side")
	f.StringVar(&o.In[replay.WAN], "wan", "", "capture of what arrives at the WAN side")
	f.StringVar(&o.Out[replay.LAN], "out-lan", "", "where to write what leaves the LAN side")
	f.StringVar(&o.Out[replay.WAN], "out-wan", "", "where to write what leaves the WAN side")
	f.StringVar(&events, "events", "", "where to write the events; - is standard output, the summary then goes to standard error")
	f.StringVar(&mac[replay.LAN], "lan-mac", "", "the firewall's hardware address in the LAN capture")
	f.StringVar(&mac[replay.WAN], "wan-mac", "", "the firewall's hardware address in the WAN capture")
	f.StringVar(&neighbours, "neighbours", "all", "who answers the firewall's ARP requests: all addresses, or only those seen in the captures")
	f.Uint64Var(&o.Seed, "seed", 1, "seed of the firewall's secret, which chooses ports")
	f.DurationVar(&o.Drain, "drain", 10*time.Second, "how long time runs on behind the last frame")
	f.Int64Var(&o.MaxBytes, "max-bytes", replay.MaxBytes, "limit on the bytes of a capture's frames")
	f.BoolVar(&o.FixChecksums, "fix-checksums", false, "make IPv4, TCP, UDP and ICMP checksums right: hosts that leave them to their network device show wrong ones in their own captures")
	return cmd
}

// A flagged is a file that a flag names; empty: it does not.
type flagged struct{ flag, path string }

// apart returns an error if a file would be written that is read, or that is
// written already: the capture of a fault is not to be had twice.
func apart(in, out []flagged) error {
	for i, o := range out {
		for _, other := range append(in[:len(in):len(in)], out[:i]...) {
			if o.path != "" && sameFile(o.path, other.path) {
				return fmt.Errorf("replay: %s and %s are the same file, %s", o.flag, other.flag, o.path)
			}
		}
	}
	return nil
}

// sameFile reports whether two paths lead to the same regular file, which may
// not be there yet.
func sameFile(a, b string) bool {
	x, errX := os.Stat(a)
	y, errY := os.Stat(b)
	if errX == nil && errY == nil {
		return x.Mode().IsRegular() && os.SameFile(x, y)
	}
	return errX != nil && errY != nil && filepath.Clean(a) == filepath.Clean(b)
}
