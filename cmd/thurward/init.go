package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/thurward/thurward/internal/host/policy/first"
	"github.com/thurward/thurward/internal/shared/printable"
)

func newInitCmd() *cobra.Command {
	a := first.Answers{}
	var out string
	var force, asJSON bool
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Write a first policy",
		Long: `init writes a policy for two networks: the LAN's hosts may resolve names, use
the web, ask for the time and ping, share the firewall's address on the WAN, and
nobody comes in. The policy has tests of that, and a line by which editors find
the schema. Edit it afterwards.

On a terminal init asks for what no flag says; elsewhere --lan-address,
--wan-address and --gateway must be given. The addresses are the firewall's own,
which no other host has. An existing file is kept unless --force is given.`,
		Example: `  thurward init
  thurward init --lan-address 10.0.0.1/24 --wan-address 203.0.113.10/24 --gateway 203.0.113.1
  thurward init --dns none -o /etc/thurward/edge/rules.yaml`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if !force {
				// Before anything is asked.
				if _, err := os.Lstat(out); err == nil {
					return fmt.Errorf("%s exists and is kept (--force writes over it, -o names another file)", out)
				} else if !errors.Is(err, fs.ErrNotExist) {
					return err
				}
			}
			switch {
			case len(a.DNS) == 1 && a.DNS[0] == noDNS:
				a.DNS = nil
			case len(a.DNS) == 0:
				return usageError{errors.New("init: --dns: no address (want name servers, or none)")}
			}
			if missing := missingFlags(cmd); len(missing) > 0 {
				if asJSON || !isTerminal(os.Stdin) {
					return usageError{fmt.Errorf("init: %s missing (init asks only on a terminal)", strings.Join(missing, ", "))}
				}
				if err := ask(cmd, &a); err != nil {
					return err
				}
			}
			y, err := a.YAML()
			var wrong *first.WrongError
			if errors.As(err, &wrong) {
				return usageError{fmt.Errorf("init: %w", err)}
			}
			if err != nil {
				return err
			}
			write := createFile
			if force {
				write = writeFile
			}
			if err := write(out, y); err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), map[string]any{
					"file": out, "lan": a.LANAddress, "wan": a.WANAddress, "gateway": a.Gateway, "dns": append([]string{}, a.DNS...),
				})
			}
			printable.Fprintf(cmd.OutOrStdout(), "%s: written; its tests hold\nnext: edit it, then thurward test -f %[1]s, and thurward build -f %[1]s\n", out)
			return nil
		},
	}
	fl := cmd.Flags()
	fl.StringVarP(&out, "output", "o", "rules.yaml", "the file to write")
	fl.StringVar(&a.LANAddress, "lan-address", "", "the firewall's address on the LAN, as 10.0.0.1/24")
	fl.StringVar(&a.WANAddress, "wan-address", "", "the firewall's address on the WAN, as 203.0.113.10/24")
	fl.StringVar(&a.Gateway, "gateway", "", "the next router on the WAN")
	fl.StringSliceVar(&a.DNS, "dns", []string{"9.9.9.9"}, "name servers that the firewall asks; none: hosts ask servers of their own")
	fl.StringVar(&a.LAN, "lan", "lan0", "the LAN interface's name in the policy")
	fl.StringVar(&a.WAN, "wan", "wan0", "the WAN interface's name in the policy")
	fl.BoolVar(&force, "force", false, "write over an existing file")
	fl.BoolVar(&asJSON, "json", false, "ask nothing, and print the result as JSON")
	return cmd
}

// noDNS is the value of --dns for no name servers.
const noDNS = "none"

// required are the flags without a default.
var required = []first.Question{first.LANAddress, first.WANAddress, first.Gateway}

func missingFlags(cmd *cobra.Command) (missing []string) {
	for _, q := range required {
		if !cmd.Flags().Changed(string(q)) {
			missing = append(missing, "--"+string(q))
		}
	}
	return missing
}

// maxAnswer bounds an answer in bytes, and maxTries how often one is asked for.
const (
	maxAnswer = 1000
	maxTries  = 5
)

// ask asks on the terminal for what no flag says, until each answer is right.
func ask(cmd *cobra.Command, a *first.Answers) error {
	in := bufio.NewReaderSize(cmd.InOrStdin(), maxAnswer)
	dns := strings.Join(a.DNS, ", ")
	for _, q := range []struct {
		question     first.Question
		text, preset string
		to           *string
	}{
		{first.LANAddress, "The firewall's address on the LAN, with the length of the network", "10.0.0.1/24", &a.LANAddress},
		{first.WANAddress, "Its address on the WAN", "", &a.WANAddress},
		{first.Gateway, "The next router on the WAN", "", &a.Gateway},
		{first.DNS, "Name servers that it asks for the LAN, or none", dns, &dns},
	} {
		if cmd.Flags().Changed(string(q.question)) {
			continue
		}
		for try := 1; ; try++ {
			printable.Fprintf(cmd.ErrOrStderr(), "%s", q.text)
			if q.preset != "" {
				printable.Fprintf(cmd.ErrOrStderr(), " [%s]", q.preset)
			}
			printable.Fprintf(cmd.ErrOrStderr(), ": ")
			answer, err := readAnswer(in)
			if err != nil {
				return err
			}
			if answer == "" {
				answer = q.preset
			}
			*q.to = answer
			a.DNS = nil
			if dns != noDNS {
				a.DNS = strings.FieldsFunc(dns, func(r rune) bool { return r == ',' || r == ' ' })
			}
			wrong := a.Wrong(q.question)
			if wrong == nil {
				break
			}
			printable.Fprintf(cmd.ErrOrStderr(), "  %s\n", wrong.Reason)
			if try == maxTries {
				return fmt.Errorf("no usable answer in %d tries; nothing was written", maxTries)
			}
		}
	}
	return nil
}

// readAnswer reads a line.
func readAnswer(in *bufio.Reader) (string, error) {
	b, err := in.ReadSlice('\n')
	switch {
	case errors.Is(err, bufio.ErrBufferFull):
		return "", fmt.Errorf("an answer of more than %d bytes; nothing was written", maxAnswer)
	case err == io.EOF:
		return "", errors.New("the answers ended; nothing was written")
	case err != nil:
		return "", err
	}
	return strings.TrimSpace(string(b)), nil
}

// createFile writes a file that does not exist yet. Where two do so at once, one fails.
func createFile(path string, b []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s exists and is kept (--force writes over it)", path)
	}
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if e := f.Close(); err == nil {
		err = e
	}
	if err != nil {
		os.Remove(path)
	}
	return err
}
