package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/thurward/thurward/internal/host/policy/exportnft"
	"github.com/thurward/thurward/internal/shared/printable"
)

func newExportCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "export",
		Short: "Write a policy in the language of another firewall, for comparison",
		Long: `export prints a policy as the rules of another firewall, to be compared with those
that it comes from, or read by who knows that language better. What the other one cannot
do, as rules by name, is listed on standard error and as comments.`,
		Example: "  thurward export nft -f rules.yaml --lan eth1 --wan eth0 > rules.nft",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageError{fmt.Errorf("export: unknown format %q (want nft)", args[0])}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return usageError{errors.New("export: want nft")}
		},
	}
	cmd.AddCommand(newExportNFTCmd())
	return cmd
}

func newExportNFTCmd() *cobra.Command {
	var file string
	var o exportnft.Options
	cmd := &cobra.Command{
		Use:   "nft",
		Short: "Write a policy as a rule set of nftables",
		Long: `export nft prints a policy in nft's own language, as one table with the name thurward.
It is for comparison: it decides about packets as the firewall does, and lacks names, DNS,
limits and timeouts.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			p, _, _, err := openPolicy(cmd, file, false)
			if err != nil {
				return err
			}
			text, lacks := exportnft.Write(p, o)
			for _, l := range lacks {
				printable.Fprintf(cmd.ErrOrStderr(), "not in it: %s\n", l)
			}
			_, err = cmd.OutOrStdout().Write(text)
			return err
		},
	}
	policyFlag(cmd, &file, "the policy")
	cmd.Flags().StringVar(&o.LAN, "lan", "", "the LAN's interface (default: its name in the policy)")
	cmd.Flags().StringVar(&o.WAN, "wan", "", "the WAN's interface (default: its name in the policy)")
	return cmd
}
