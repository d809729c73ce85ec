package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/thurward/thurward/internal/host/policy/matrix"
	"github.com/thurward/thurward/internal/host/terminal"
)

// flagsOfPackets are the flags of explain that are about one packet.
var flagsOfPackets = []string{"from", "proto", "src", "dst", "fqdn", "resolved-ago", "ttl", "expired", "by-other", "state"}

// showMatrix prints who may reach what.
func showMatrix(cmd *cobra.Command, file, format string, all bool) error {
	for _, name := range flagsOfPackets {
		if cmd.Flags().Changed(name) {
			return usageError{fmt.Errorf("explain: --%s is about one packet, and --matrix about all", name)}
		}
	}
	switch format {
	case "text", "json", "markdown", "svg":
	default:
		return usageError{fmt.Errorf("explain: unknown format %q (want text, json, markdown or svg)", format)}
	}
	p, rs, _, err := openPolicy(cmd, file, false)
	if err != nil {
		return err
	}
	m, err := matrix.Compute(p, rs)
	if err != nil {
		return err
	}
	m.File = filepath.Base(p.File)
	out := cmd.OutOrStdout()
	switch format {
	case "json":
		return printJSON(out, m)
	case "markdown":
		m.WriteMarkdown(out, all)
	case "svg":
		return m.WriteSVG(out, all)
	default:
		m.Write(out, widthOf(cmd), all)
	}
	return nil
}

// widthOf returns the width of the terminal to which a command writes; 120 where there is
// none.
func widthOf(cmd *cobra.Command) int {
	var f *os.File
	if f, _ = terminal.File(cmd.OutOrStdout()); f != nil {
		if w, _, err := term.GetSize(int(f.Fd())); err == nil && w > 0 {
			return w
		}
	}
	return 120
}
