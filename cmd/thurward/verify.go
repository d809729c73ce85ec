package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/thurward/thurward/internal/host/verify"
	"github.com/thurward/thurward/internal/shared/printable"
)

func newVerifyCmd() *cobra.Command {
	var o verify.Options
	var asJSON, changes bool
	cmd := &cobra.Command{
		Use:   "verify IMAGE",
		Short: "Verify who made an image, and from what",
		Long: `verify checks, without a network, the files beside an image: its signature
(` + verify.SignatureSuffix + `), its signed provenance (` + verify.AttestationSuffix + `), and the list of what is
linked into it (` + verify.SBOMSuffix + `). What the image itself tells, as version, commit, the
digests of policy and schema, toolchain and packages, must be what was signed.

Who must have signed is said by --key, the public key, or by the identity and the
issuer of a certificate, which ` + verify.Checker + ` verifies with Sigstore's trusted root.

It exits with 0 if the image may be booted, 1 if not, and 2 for a wrong command line.`,
		Example: `  thurward verify --key cosign.pub thurward.img
  thurward verify --key cosign.pub --not-older-than 1.4.0 thurward.img
  thurward verify --certificate-identity https://github.com/thurward/thurward/.github/workflows/release.yml@refs/tags/v1.4.0 \
    --certificate-oidc-issuer https://token.actions.githubusercontent.com --trusted-root trusted_root.json thurward.img`,
		Args: oneImage,
		RunE: func(cmd *cobra.Command, args []string) error {
			if !o.Demands() {
				return usageError{errors.New("verify: want --key, or --certificate-identity and --certificate-oidc-issuer")}
			}
			if err := o.Check("--key"); err != nil {
				return usageError{fmt.Errorf("verify: %w", err)}
			}
			r, err := verify.Verify(args[0], o)
			var refusal *verify.Refusal
			if errors.As(err, &refusal) && asJSON {
				if err := printJSON(cmd.OutOrStdout(), map[string]any{
					"path": args[0], "verified": false, "check": refusal.Check, "reason": refusal.Err.Error(),
				}); err != nil {
					return err
				}
				return exitError(exitInvalid)
			}
			if err != nil {
				return fmt.Errorf("not verified: %w", err)
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), struct {
					Verified bool `json:"verified"`
					*verify.Report
				}{true, r})
			}
			out := cmd.OutOrStdout()
			printable.Fprintf(out, "%s: verified\n", args[0])
			for _, c := range r.Checks {
				printable.Fprintf(out, "  %-12s %s\n", c.Name, c.Detail)
			}
			if c := r.Provenance.Changes(); c != nil {
				printable.Fprintf(out, "  %-12s %d sets of traffic and %d settings differ from the image sha256:%s (--changes)\n",
					"changes", len(c.Diff.Traffic), len(c.Diff.Other), c.Previous)
				if changes {
					printable.Fprintf(out, "\n")
					c.Diff.Write(out, -1)
				}
			}
			return nil
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&o.Key, "key", "", "file of the public key that must have signed, as cosign.pub")
	certificateFlags(cmd, &o)
	fl.StringVar(&o.NotOlderThan, "not-older-than", "", "the oldest version that is accepted, as 1.4.0")
	fl.StringVar(&o.Policy, "policy", "", "the digest of rules.yaml that it must have, as sha256:…")
	fl.StringVar(&o.Builder, "builder", "", "the id of the builder that must have made it")
	fl.StringVar(&o.Source, "source", "", "the repository that it must have been built from, as github.com/thurward/thurward; with @COMMIT that commit")
	fl.BoolVar(&asJSON, "json", false, "print JSON: the checks, the image as inspect shows it, the provenance")
	fl.BoolVar(&changes, "changes", false, "print what it does differently from the image before it, if its provenance says so")
	return cmd
}

// certificateFlags are the flags that say whose certificate must have signed.
func certificateFlags(cmd *cobra.Command, o *verify.Options) {
	fl := cmd.Flags()
	fl.StringVar(&o.Identity, "certificate-identity", "", "the identity in the certificate that must have signed")
	fl.StringVar(&o.Issuer, "certificate-oidc-issuer", "", "who must have vouched for it")
	fl.StringVar(&o.TrustedRoot, "trusted-root", "", "file of Sigstore's trusted root, for certificates")
}

// signedFlags are the flags that say who must have signed what a command boots or deploys.
func signedFlags(cmd *cobra.Command, o *verify.Options, does, done string) {
	fl := cmd.Flags()
	fl.StringVar(&o.Key, "require-signature", "", does+" the image only if the owner of this public key (a file, as cosign.pub) has signed it and its provenance")
	certificateFlags(cmd, o)
	fl.StringVar(&o.NotOlderThan, "not-older-than", "", "with one of these: the oldest version that is "+done+", as 1.4.0")
	fl.StringVar(&o.Source, "require-source", "", "with one of these: the repository that it must have been built from, as github.com/thurward/thurward")
}
