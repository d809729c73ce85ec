package main

import (
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"
)

// exitDiffers is explain's answer for a packet that does not get through, and
// diff's for policies that are not the same.
const exitDiffers = 3

func newExplainCmd() *cobra.Command {
	var file, format, from, proto, src, dst, fqdn, state string
	var all bool
	cmd := &cobra.Command{
		Use:   "explain",
		Short: "Say which rule decides about a packet, and why",
		Long: `explain says what the policy does with the first packet of a flow: which rule
decides and where it stands, what destination and source NAT do, which shadow
rules would have decided, what happens to the answers, and for the rules before
the one that decides the first field that does not match. Nothing is sent.

It exits with 0 when the packet is accepted, 3 when not, 1 when the policy is
not valid and 2 for a wrong command line.`,
		Example: `  thurward explain --from lan --proto tcp --src 10.0.0.5:40000 --dst 198.51.100.7:443
  thurward explain --from lan --proto tcp --src 10.0.0.5 --fqdn github.com:443
  thurward explain --from wan --proto udp --src 198.51.100.7:53 --dst 10.0.0.5:40000 --state established`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if format != "text" && format != "json" {
				return usageError{fmt.Errorf("explain: unknown format %q (want text or json)", format)}
			}
			p, seg, _, err := openPolicy(cmd, file, false)
			if err != nil {
				return err
			}
			f, err := p.ParseFlow(from, proto, src, dst, fqdn, state)
			if err != nil {
				return usageError{fmt.Errorf("explain: %w", err)}
			}
			e := p.Explain(seg, f)
			if format == "json" {
				enc := json.NewEncoder(cmd.OutOrStdout())
				enc.SetIndent("", "  ")
				if err := enc.Encode(e); err != nil {
					return err
				}
			} else {
				e.Write(cmd.OutOrStdout(), all)
			}
			if !e.Accepted() {
				return exitError(exitDiffers)
			}
			return nil
		},
	}
	fs := cmd.Flags()
	fs.StringVarP(&file, "file", "f", "rules.yaml", "the policy")
	fs.StringVar(&from, "from", "", "where the packet enters: lan or wan")
	fs.StringVar(&proto, "proto", "", "tcp, udp or icmp (an echo)")
	fs.StringVar(&src, "src", "", "who sends it: address, or address:port")
	fs.StringVar(&dst, "dst", "", "where to, as on the wire: address:port; without a port for icmp")
	fs.StringVar(&fqdn, "fqdn", "", "name by which the sender knows the destination; name:port in place of --dst")
	fs.StringVar(&state, "state", "new", "new, or established for an answer (between the hosts' own addresses)")
	fs.BoolVar(&all, "all", false, "show all rules that do not match, not only the nearest")
	fs.StringVar(&format, "format", "text", "text or json (json has all rules)")
	return cmd
}
