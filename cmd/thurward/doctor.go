package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/thurward/thurward/internal/host/dashboard"
	"github.com/thurward/thurward/internal/host/doctor"
	"github.com/thurward/thurward/internal/host/ingest"
	"github.com/thurward/thurward/internal/host/parts"
	"github.com/thurward/thurward/internal/host/vmm"
	"github.com/thurward/thurward/internal/shared/printable"
)

func newDoctorCmd() *cobra.Command {
	var image, page string
	var asJSON, strict bool
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Look at this host before a firewall runs on it",
		Long: `doctor looks for what a firewall needs on this host and says what to do about
what is missing: hypervisors and their versions, KVM and whether it is the
processor's, kernel modules, memory, bridges and TAP devices, packet filters in
the way of bridges, addresses in use, and tools for signatures. It changes nothing.

It exits with 0 if a firewall can run, 1 if none can (with --strict: or it is
slower or less than it could be), and 2 for a wrong command line.`,
		Example: `  thurward doctor
  thurward doctor --image build/thurward.img     # boots it once, to see how fast KVM is
  thurward doctor --json | jq '.findings[] | select(.status != "ok")'`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if page == "none" {
				page = ""
			} else if err := dashboard.CheckPage(page); err != nil {
				return usageError{fmt.Errorf("doctor: --page: %w", err)}
			}
			h := doctor.This()
			h.Page, h.Tail, h.Parts = page, ingest.TailSocket(ingest.DefaultPath()), foundPart
			if image != "" {
				if _, err := vmm.OpenImage(image); err != nil {
					return err
				}
				h.Probe = func() (bool, string, error) {
					q, err := vmm.FindQEMU()
					if err != nil {
						return false, "", err
					}
					return q.Choose(cmd.Context(), vmm.Auto, image, minProbeMB)
				}
			}
			all := doctor.Examine(h)
			worst := doctor.Worst(all)
			ok := worst != doctor.Error && !(strict && worst == doctor.Warning)
			if asJSON {
				if err := printJSON(cmd.OutOrStdout(), map[string]any{"ok": ok, "version": version, "findings": all}); err != nil {
					return err
				}
			} else {
				printFindings(cmd, all)
			}
			if !ok {
				return exitError(exitInvalid)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&image, "image", "", "boot this image once under KVM until its kernel is up")
	cmd.Flags().StringVar(&page, "page", defaultPage, "the address of run's page, unix:PATH, or none")
	cmd.Flags().BoolVar(&strict, "strict", false, "exit with 1 for warnings too")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the findings as JSON")
	return cmd
}

// minProbeMB is the memory of the machine that probes KVM, as that of run.
const minProbeMB = 64

// foundPart returns the path of a part of an image, this program's where it has it built
// in, "" where there is none.
func foundPart(name string) string {
	if exe, err := os.Executable(); err == nil && parts.BuiltIn() {
		return exe
	}
	p := parts.Beside(name)
	if _, err := os.Stat(p); err != nil {
		return ""
	}
	return p
}

func printFindings(cmd *cobra.Command, all []doctor.Finding) {
	width, count := 0, map[doctor.Status]int{}
	for _, f := range all {
		width = max(width, len(f.Name))
		count[f.Status]++
	}
	for _, f := range all {
		printable.Fprintf(cmd.OutOrStdout(), "%-7s  %-*s  %s\n", string(f.Status), width, f.Name, f.Text)
		if f.Remedy != "" {
			printable.Fprintf(cmd.OutOrStdout(), "%*s  %s\n", 9+width, "", "do: "+f.Remedy)
		}
	}
	printable.Fprintf(cmd.OutOrStdout(), "%s, %s\n", counted(count[doctor.Error], "error"), counted(count[doctor.Warning], "warning"))
}
