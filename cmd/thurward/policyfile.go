package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/thurward/thurward/internal/host/limited"
	"github.com/thurward/thurward/internal/host/policy"
	"github.com/thurward/thurward/internal/host/policy/check"
	"github.com/thurward/thurward/internal/host/policy/compile"
	"github.com/thurward/thurward/internal/shared/ruleset"
)

// standardInput is what messages call the file -.
const standardInput = "standard input"

// openPolicy reads, checks and compiles a policy. It prints errors to standard error,
// and with warn also warnings.
func openPolicy(cmd *cobra.Command, file string, warn bool) (*policy.Policy, *ruleset.Policy, []byte, error) {
	file, src, err := readPolicy(file)
	if err != nil {
		return nil, nil, nil, err
	}
	p, diags := check.Load(file, src)
	if p == nil || warn {
		if err := showText(cmd.ErrOrStderr(), file, src, diags); err != nil {
			return nil, nil, nil, err
		}
	}
	if p == nil {
		return nil, nil, nil, fmt.Errorf("%s is not valid", file)
	}
	seg, err := compile.Compile(p)
	return p, seg, src, err
}

// readPolicy reads a policy from a file, or from standard input if that is -, and returns
// the name that messages give it.
func readPolicy(file string) (name string, src []byte, err error) {
	if file == "-" {
		src, err = limited.Read(os.Stdin, standardInput, policy.MaxBytes)
		return standardInput, src, err
	}
	src, err = limited.ReadFile(file, policy.MaxBytes)
	return file, src, fileError(file, err)
}

// fileError adds the remedy to the error of a file that does not exist.
func fileError(file string, err error) error {
	switch {
	case !errors.Is(err, os.ErrNotExist):
		return err
	case file == defaultPolicy:
		return fmt.Errorf("%w (name the policy with -f, or write a first one: thurward init)", err)
	}
	return fmt.Errorf("there is no file %s", file)
}

// A policyPath is the value of the flag for the policy's file. A second one would take the
// first one's place without a word, so it is refused.
type policyPath struct {
	file *string
	set  bool
}

func (p *policyPath) String() string { return *p.file }
func (p *policyPath) Type() string   { return "string" }

func (p *policyPath) Set(file string) error {
	switch {
	case file == "":
		return errors.New("no file is named")
	case p.set:
		return fmt.Errorf("there is one policy, %s, already", *p.file)
	}
	*p.file, p.set = file, true
	return nil
}
