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

// openPolicy reads, checks and compiles a policy. It prints errors to standard error,
// and with warn also warnings.
func openPolicy(cmd *cobra.Command, file string, warn bool) (*policy.Policy, *ruleset.Policy, []byte, error) {
	src, err := readPolicy(file)
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

// readPolicy reads a policy's file.
func readPolicy(file string) ([]byte, error) {
	src, err := limited.ReadFile(file, policy.MaxBytes)
	if err != nil {
		return nil, fileError(err)
	}
	return src, nil
}

// fileError adds the remedy to the error of a file that does not exist.
func fileError(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%w (name the policy with -f)", err)
	}
	return err
}
