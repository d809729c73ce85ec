// Command thurward is the host's command line: it checks policies, builds
// images and runs them.
package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/thurward/thurward/internal/host/meant"
	"github.com/thurward/thurward/internal/host/terminal"
	"github.com/thurward/thurward/internal/shared/printable"
	"github.com/thurward/thurward/internal/shared/stamp"
)

// version is what this program is.
var version = stamp.Own().Version

// Exit codes of every command; explain, diff and run add their own.
const (
	exitOK      = 0
	exitInvalid = 1 // what was asked about is wrong, or the command failed
	exitUsage   = 2
)

// An exitError ends the program with a code; its message has been printed.
type exitError int

func (e exitError) Error() string { return fmt.Sprintf("exit %d", int(e)) }

// A usageError is a wrong command line.
type usageError struct{ err error }

func (e usageError) Error() string { return e.err.Error() }

func main() { os.Exit(run(os.Args[1:])) }

func run(args []string) int {
	root := newRootCmd()
	root.SetArgs(args)
	refuseShells(root, args)
	root.SetOut(terminal.New(os.Stdout))
	root.SetErr(terminal.New(os.Stderr))
	err := root.Execute()
	var code exitError
	var usage usageError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &code):
		return int(code)
	case errors.As(err, &usage):
		printable.Fprintf(root.ErrOrStderr(), "thurward: %v\n", err)
		return exitUsage
	}
	printable.Fprintf(root.ErrOrStderr(), "thurward: %v\n", err)
	return exitInvalid
}

// more are commands that only some builds have.
var more []func() *cobra.Command

func newRootCmd() *cobra.Command {
	root := &cobra.Command{
		Use:   "thurward",
		Short: "A firewall that boots as a unikernel",
		Long: `thurward makes a firewall from a policy, rules.yaml: one bootable image with the
policy compiled in. To change it, edit the policy and build a new image.`,
		Example: `  thurward init                   # write a first rules.yaml
  thurward check                  # is it valid?
  thurward test                   # do its own tests pass?
  thurward build                  # make build/thurward.img
  thurward run --lan demo --wan demo
  thurward replay --lan lan.pcap --wan wan.pcap --events -
  thurward events --action drop   # why was this dropped?
  thurward top
  sudo thurward deploy new.img --name edge`,
		Version:       version,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageError{fmt.Errorf("unknown command %q (%s)", args[0], meantCommand(cmd, args[0]))}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		remedy := cmd.CommandPath() + " --help lists the flags"
		if unknown, ok := errors.AsType[*pflag.NotExistError](err); ok {
			if flag := meant.Word(unknown.GetSpecifiedName(), flagsOf(cmd)); flag != "" {
				remedy = "did you mean --" + flag + "? " + remedy
			}
		}
		if cmd.HasParent() {
			err = fmt.Errorf("%s: %w", cmd.Name(), err)
		}
		return usageError{fmt.Errorf("%w (%s)", err, remedy)}
	})
	root.SetVersionTemplate(versionLine() + "\n")
	root.CompletionOptions.HiddenDefaultCmd = true
	root.AddCommand(newCheckCmd(), newBuildCmd(), newRunCmd(), newReplayCmd(), newEventsCmd(), newTopCmd())
	root.AddCommand(newTestCmd(), newSuggestCmd(), newInitCmd(), newDoctorCmd(), newInspectCmd(), newVerifyCmd())
	root.AddCommand(newExplainCmd(), newDiffCmd(), newImportCmd(), newExportCmd(), newVersionCmd(), newFmtCmd())
	for _, command := range more {
		root.AddCommand(command())
	}
	root.AddCommand(newDeployCmd(), newRollbackCmd(), newStatusCmd())
	return root
}

// meantCommand names the command that was probably meant.
func meantCommand(root *cobra.Command, typed string) string {
	var names []string
	for _, c := range root.Commands() {
		names = append(names, c.Name())
	}
	if near := meant.Word(typed, names); near != "" {
		return "did you mean " + near + "? thurward --help lists them"
	}
	return "thurward --help lists them"
}

// flagsOf returns the names of a command's flags.
func flagsOf(cmd *cobra.Command) (names []string) {
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if !f.Hidden {
			names = append(names, f.Name)
		}
	})
	return names
}

// completes lets shells complete the values of a flag.
func completes(cmd *cobra.Command, flag string, values ...string) {
	if err := cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp)); err != nil {
		panic(err) // no such flag: a mistake in this program
	}
}

// completesBeginnings lets shells complete what a flag's values begin with.
func completesBeginnings(cmd *cobra.Command, flag string, values ...string) {
	directive := cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
	if err := cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, directive)); err != nil {
		panic(err) // no such flag: a mistake in this program
	}
}

// completesFiles lets shells complete a command's arguments with files of policies.
func completesFiles(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
	return []cobra.Completion{"yaml", "yml"}, cobra.ShellCompDirectiveFilterFileExt
}

// policyFlag adds the flag for the policy's file, which is the same in all commands.
func policyFlag(cmd *cobra.Command, file *string, usage string) {
	*file = defaultPolicy
	addPolicyFlag(cmd, file, usage+"; -: standard input")
}

// addPolicyFlag adds that flag with another default, which file has.
func addPolicyFlag(cmd *cobra.Command, file *string, usage string) {
	cmd.Flags().VarP(&policyPath{file: file}, "file", "f", usage)
	if err := cmd.MarkFlagFilename("file", "yaml", "yml"); err != nil {
		panic(err) // no such flag: a mistake in this program
	}
}

// noArgs refuses arguments that are not flags.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usageError{fmt.Errorf("%s: unexpected argument %q (%s --help shows what it takes)",
			cmd.Name(), args[0], cmd.CommandPath())}
	}
	return nil
}
