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
source and destination NAT. Rules that it cannot convert are listed on standard
error and as comments. If a policy without such a rule would let more through than
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

// importFlags are the flags of the two formats.
type importFlags struct {
	importer.Options
	lan, wan, gateway string
	partial           bool
}

// An importFunc reads a format. It returns a result also with an error, if there is something to
// report.
type importFunc func([]byte, importer.Options) (*importer.Result, error)

func newImportFormatCmd(name, what string, read importFunc) *cobra.Command {
	var f importFlags
	cmd := &cobra.Command{
		Use:   name + " FILE",
		Short: "Import " + what,
		Long: "import " + name + " reads " + what + ` from a file, or from
standard input if the file is -, and prints a rules.yaml.

It exits with 0 if the policy lets nothing through that was denied before, and 1 if
a rule that denied traffic could not be converted.`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usageError{fmt.Errorf("import %s: want one file, or - for standard input", name)}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := f.check(); err != nil {
				return usageError{fmt.Errorf("import %s: %w", name, err)}
			}
			return f.run(cmd, args[0], read)
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&f.LAN, "lan", "", "the LAN's interface (default: guessed, and reported)")
	fs.StringVar(&f.WAN, "wan", "", "the WAN's interface (default: guessed, and reported)")
	fs.StringVar(&f.lan, "lan-address", "", "the firewall's address on the LAN, as 10.0.0.1/24")
	fs.StringVar(&f.wan, "wan-address", "", "the firewall's address on the WAN, as 203.0.113.10/24")
	fs.StringVar(&f.gateway, "gateway", "", "the next router on the WAN")
	fs.BoolVar(&f.partial, "partial", false, "print the policy even if it lets more through")
	return cmd
}

// check checks the flags, and completes the options by them.
func (f *importFlags) check() error {
	bad := func(flag, value, want string) error { return fmt.Errorf("--%s %q: want %s", flag, value, want) }
	for _, a := range []struct {
		flag, value string
		into        *netip.Prefix
	}{{"lan-address", f.lan, &f.LANAddress}, {"wan-address", f.wan, &f.WANAddress}} {
		if a.value == "" {
			continue
		}
		p, err := netip.ParsePrefix(a.value)
		if err != nil || !p.Addr().Is4() {
			return bad(a.flag, a.value, "the interface's address and its network's length, as 10.0.0.1/24")
		}
		*a.into = p
	}
	if f.gateway != "" {
		a, err := netip.ParseAddr(f.gateway)
		if err != nil || !a.Is4() {
			return bad("gateway", f.gateway, "an address")
		}
		f.Gateway = a
	}
	if f.LAN != "" && f.LAN == f.WAN {
		return bad("wan", f.WAN, "another interface than --lan")
	}
	return nil
}

// run imports a file, and prints the policy and what could not be converted.
func (f *importFlags) run(cmd *cobra.Command, file string, read importFunc) error {
	src, err := readInput(cmd.InOrStdin(), file)
	if err != nil {
		return err
	}
	f.File = file
	errs := cmd.ErrOrStderr()
	r, err := read(src, f.Options)
	if r != nil {
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
		printable.Fprintf(errs, "\nWARNING: rules that deny traffic could not be converted (MORE PERMISSIVE above).\n"+
			"Without them the policy lets through what %s did not.\n", file)
		if !f.partial {
			return errors.New("no policy was printed; --partial prints it all the same")
		}
	}
	_, err = cmd.OutOrStdout().Write(r.YAML)
	return err
}

func readInput(stdin io.Reader, file string) ([]byte, error) {
	if file == "-" {
		return limited.Read(stdin, "standard input", importer.MaxBytes)
	}
	return limited.ReadFile(file, importer.MaxBytes)
}
