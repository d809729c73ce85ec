package main

import (
	"errors"
	"fmt"
	"io"
	"net/netip"

	"github.com/spf13/cobra"

	"github.com/thurward/thurward/internal/host/importer"
	"github.com/thurward/thurward/internal/host/limited"
	"github.com/thurward/thurward/internal/shared/printable"
)

func newImportCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "import",
		Short: "Turn another firewall's rules into a policy",
		Long: `import reads the rules of nftables or iptables and prints a rules.yaml for
review: filter rules for forwarded packets with the chains that they jump to,
source and destination NAT. What it cannot convert is listed rule by rule, on
stderr and as comments. Where leaving a rule out would let more through than
before, it prints no policy and exits with 1, unless --partial is given.`,
		Example: `  nft -j list ruleset > fw.json && thurward import nft fw.json > rules.yaml
  iptables-save | thurward import iptables --lan eth1 --wan eth0 - > rules.yaml`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageError{fmt.Errorf("import: unknown format %q (want nft or iptables)", args[0])}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return usageError{errors.New("import: want nft or iptables, and a file")}
		},
	}
	cmd.AddCommand(
		newImportFormatCmd("nft", "the output of nft -j list ruleset", importer.NFT),
		newImportFormatCmd("iptables", "the output of iptables-save", importer.IPTables))
	return cmd
}

func newImportFormatCmd(name, what string, read func([]byte, importer.Options) (*importer.Result, error)) *cobra.Command {
	var o importer.Options
	var lan, wan, gateway string
	var partial bool
	cmd := &cobra.Command{
		Use:   name + " FILE",
		Short: "Import " + what,
		Long: "import " + name + " reads " + what + ` from a file, or from standard input
when the file is -, and prints a rules.yaml.

It exits with 0 when nothing is let through that was not before, and 1 when
there is something that it could not convert which denied traffic.`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usageError{fmt.Errorf("import %s: want one file, or - for standard input", name)}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			bad := func(flag, value, want string) error {
				return usageError{fmt.Errorf("import %s: --%s %q: want %s", name, flag, value, want)}
			}
			for _, f := range []struct {
				flag, value string
				into        *netip.Prefix
			}{{"lan-address", lan, &o.LANAddress}, {"wan-address", wan, &o.WANAddress}} {
				if f.value != "" {
					p, err := netip.ParsePrefix(f.value)
					if err != nil || !p.Addr().Is4() {
						return bad(f.flag, f.value, "the interface's address and its network's length, as 10.0.0.1/24")
					}
					*f.into = p
				}
			}
			if gateway != "" {
				a, err := netip.ParseAddr(gateway)
				if err != nil || !a.Is4() {
					return bad("gateway", gateway, "an address")
				}
				o.Gateway = a
			}
			if o.LAN != "" && o.LAN == o.WAN {
				return bad("wan", o.WAN, "another interface than --lan")
			}
			src, err := readInput(cmd.InOrStdin(), args[0])
			if err != nil {
				return err
			}
			o.File = args[0]
			r, err := read(src, o)
			if r != nil {
				errs := cmd.ErrOrStderr()
				for _, a := range r.Assumptions {
					printable.Fprintf(errs, "assumed: %s\n", a)
				}
				for _, n := range r.Notes {
					printable.Fprintf(errs, "not converted: %s\n", n)
				}
			}
			if err != nil {
				return err
			}
			if r.Permissive() {
				printable.Fprintf(cmd.ErrOrStderr(), "\nWARNING: rules that deny traffic could not be converted (MORE PERMISSIVE above).\nWithout them the policy lets through what %s did not.\n", args[0])
				if !partial {
					return errors.New("no policy was printed; --partial prints it all the same")
				}
			}
			_, err = cmd.OutOrStdout().Write(r.YAML)
			return err
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&o.LAN, "lan", "", "the LAN's interface (guessed without, which is said)")
	fs.StringVar(&o.WAN, "wan", "", "the WAN's interface (guessed without, which is said)")
	fs.StringVar(&lan, "lan-address", "", "the firewall's address on the LAN, as 10.0.0.1/24")
	fs.StringVar(&wan, "wan-address", "", "the firewall's address on the WAN, as 203.0.113.10/24")
	fs.StringVar(&gateway, "gateway", "", "the next router on the WAN")
	fs.BoolVar(&partial, "partial", false, "print the policy even if it lets more through")
	return cmd
}

func readInput(stdin io.Reader, file string) ([]byte, error) {
	if file == "-" {
		return limited.Read(stdin, "standard input", importer.MaxBytes)
	}
	return limited.ReadFile(file, importer.MaxBytes)
}
