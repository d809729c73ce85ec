package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/thurward/thurward/internal/host/policy/explain"
)

// exitDiffers is the exit code of explain for a packet that is not accepted, and of
// diff for policies that differ.
const exitDiffers = 3

func newExplainCmd() *cobra.Command {
	var file, format string
	var flow explain.FlowWords
	var all, everyone bool
	cmd := &cobra.Command{
		Use:   "explain",
		Short: "Show which rule decides about a packet, and why",
		Long: `explain shows what the policy does with the first packet of a flow: which rule
decides and its place, what destination and source NAT do, which shadow rules would
have decided, what happens to the answers, and for the rules before the one that
decides the first field that does not match. Nothing is sent.

With --matrix it shows who may reach what: the classes of hosts that the policy tells
apart, across, the services and names that it tells apart, down, and in each cell the
destinations to which new flows are accepted, for all packets that there can be.

It exits with 0 if the packet is accepted, 3 if not, 1 if the policy is not valid,
and 2 for a wrong command line.`,
		Example: `  thurward explain --from lan --proto tcp --src 10.0.0.5:40000 --dst 198.51.100.7:443
  thurward explain --from lan --proto tcp --src 10.0.0.5 --fqdn github.com:443
  thurward explain --from lan --proto tcp --src 10.0.0.5 --fqdn github.com:443 --resolved-ago 90s --ttl 60s
  thurward explain --from wan --proto udp --src 198.51.100.7:53 --dst 10.0.0.5:40000 --state established
  thurward explain --matrix
  thurward explain --matrix --format svg > matrix.svg`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if everyone {
				return showMatrix(cmd, file, format, all)
			}
			if format != "text" && format != "json" {
				return usageError{fmt.Errorf("explain: unknown format %q (want text or json; with --matrix also markdown or svg)", format)}
			}
			p, seg, _, err := openPolicy(cmd, file, false)
			if err != nil {
				return err
			}
			f, err := explain.ParseFlow(p, flow)
			if err != nil {
				return usageError{fmt.Errorf("explain: %w", err)}
			}
			e := explain.Explain(p, seg, f)
			if format == "json" {
				if err := printJSON(cmd.OutOrStdout(), e); err != nil {
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
	policyFlag(cmd, &file, "the policy")
	fs.StringVar(&flow.From, "from", "", "where the packet enters: lan or wan")
	fs.StringVar(&flow.Proto, "proto", "", "tcp, udp, icmp (an echo), or another protocol by its number or as gre, esp")
	fs.StringVar(&flow.Src, "src", "", "source: address, or address:port")
	fs.StringVar(&flow.Dst, "dst", "", "destination, as on the wire: address:port; without a port for icmp")
	fs.StringVar(&flow.FQDN, "fqdn", "", "name by which the sender knows the destination; name:port in place of --dst")
	fs.StringVar(&flow.Ago, "resolved-ago", "", "how long ago the sender resolved the name, as 90s; with --ttl")
	fs.StringVar(&flow.TTL, "ttl", "", "the TTL of that answer")
	fs.StringVar(&flow.Expired, "expired", "", "how long ago the name expired, as firewall.name_expired_seconds")
	fs.BoolVar(&flow.Others, "by-other", false, "another host has resolved the name, the sender has not")
	fs.StringVar(&flow.State, "state", "new", "new, or established for an answer (between the hosts' own addresses)")
	fs.BoolVar(&everyone, "matrix", false, "show who may reach what, of all packets")
	fs.BoolVar(&all, "all", false, "show all rules that do not match, not only the nearest; all of a large matrix")
	fs.StringVar(&format, "format", "text", "text or json (json has everything); with --matrix also markdown or svg")
	completes(cmd, "format", "text", "json", "markdown", "svg")
	completes(cmd, "from", "lan", "wan")
	completes(cmd, "proto", "tcp", "udp", "icmp", "gre", "esp", "sctp")
	completes(cmd, "state", "new", "established")
	return cmd
}
