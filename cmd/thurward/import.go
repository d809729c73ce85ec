package main

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"

	"github.com/spf13/cobra"

	"github.com/thurward/thurward/internal/host/importer"
	"github.com/thurward/thurward/internal/host/limited"
	"github.com/thurward/thurward/internal/shared/printable"
)

func newImportCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "import",
		Short: "Turn another firewall's rules into a policy",
		Long: `import reads the rules of nftables, iptables or OPNsense and prints a rules.yaml for
review: filter rules for forwarded packets with the chains that they jump to,
source and destination NAT, ping and DNS of the router itself. Rules that it cannot
convert are listed on standard error and as comments, with what that means for
traffic. If a policy without such a rule would let more through than before, it
prints no policy and exits with 1, unless --partial is given. What thurward does by
design for every policy is listed once.`,
		Example: `  nft -j list ruleset > fw.json && thurward import nft fw.json > rules.yaml
  (ip -j address; ip -j route) > links.json && thurward import nft --links links.json fw.json
  iptables-save | thurward import iptables --lan eth1 --wan eth0 - > rules.yaml`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageError{fmt.Errorf("import: unknown format %q (want nft, iptables or opnsense)", args[0])}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return usageError{errors.New("import: want nft, iptables or opnsense, and a file")}
		},
	}
	cmd.AddCommand(
		newImportFormatCmd("nft", "the output of nft -j list ruleset, or a rule set in nft's own language", importer.NFTAny),
		newImportFormatCmd("iptables", "the output of iptables-save", importer.IPTables),
		newImportFormatCmd("opnsense", "config.xml of OPNsense", importer.OPNsense))
	return cmd
}

// importFlags are the flags of the two formats.
type importFlags struct {
	importer.Options
	lan, wan, gateway string
	dns, others       []string
	links             string
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
	fs.StringSliceVar(&f.dns, "dns", nil, "name servers that the firewall asks, where the router answered DNS")
	fs.StringArrayVar(&f.others, "other", nil, "a third interface and what is behind it, as wg0=10.8.0.0/24 or wg0=none, which is denied")
	fs.StringVar(&f.links, "links", "", "file with the output of ip -j address and ip -j route, for interfaces and addresses")
	fs.BoolVar(&f.Partial, "partial", false, "print the policy even if it lets more through, and guess interfaces")
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
	for _, d := range f.dns {
		a, err := netip.ParseAddr(d)
		if err != nil || !a.Is4() {
			return bad("dns", d, "an address")
		}
		f.DNS = append(f.DNS, a)
	}
	for _, o := range f.others {
		name, nets, ok := strings.Cut(o, "=")
		if !ok || name == "" {
			return bad("other", o, "an interface and its networks, as wg0=10.8.0.0/24, or wg0=none")
		}
		if f.Others == nil {
			f.Others = map[string][]netip.Prefix{}
		}
		f.Others[name] = f.Others[name][:len(f.Others[name]):len(f.Others[name])]
		for _, n := range strings.Split(nets, ",") {
			p, err := netip.ParsePrefix(n)
			switch {
			case n == "none":
			case err != nil || !p.Addr().Is4():
				return bad("other", o, "an interface and its networks, as wg0=10.8.0.0/24, or wg0=none")
			default:
				f.Others[name] = append(f.Others[name], p.Masked())
			}
		}
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
	if f.links != "" {
		b, err := limited.ReadFile(f.links, importer.MaxBytes)
		if err != nil {
			return err
		}
		if f.Links, err = importer.ReadLinks(b); err != nil {
			return fmt.Errorf("%s: %w", f.links, err)
		}
	}
	errs := cmd.ErrOrStderr()
	r, err := read(src, f.Options)
	if r != nil {
		report(errs, r)
	}
	if err != nil {
		return err
	}
	if r.Permissive() {
		printable.Fprintf(errs, "\nWARNING: rules that deny traffic could not be converted (MORE PERMISSIVE above).\n"+
			"Without them the policy lets through what %s did not.\n", file)
		if !f.Partial {
			return errors.New("no policy was printed; --partial prints it all the same")
		}
	}
	_, err = cmd.OutOrStdout().Write(r.YAML)
	return err
}

// report prints what was assumed, what was not converted, the worst first, and what
// thurward does by design.
func report(w io.Writer, r *importer.Result) {
	for _, a := range r.Assumptions {
		printable.Fprintf(w, "assumed: %s\n", a)
	}
	for _, e := range []importer.Effect{importer.Permissive, importer.Stricter, importer.Differs, importer.Nothing} {
		var notes []importer.Note
		for _, n := range r.Notes {
			if n.Effect == e {
				notes = append(notes, n)
			}
		}
		for _, l := range importer.Lines(notes) {
			printable.Fprintf(w, "not converted: %s\n", l)
		}
	}
	printable.Fprintf(w, "\nwhat thurward does by design, for every policy:\n")
	for _, d := range r.Designs {
		printable.Fprintf(w, "  %s\n", d)
	}
}

func readInput(stdin io.Reader, file string) ([]byte, error) {
	if file == "-" {
		return limited.Read(stdin, "standard input", importer.MaxBytes)
	}
	return limited.ReadFile(file, importer.MaxBytes)
}
