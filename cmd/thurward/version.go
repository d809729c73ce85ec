package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/thurward/thurward/internal/shared/printable"
)

// versionLine is what version and --version print.
func versionLine() string {
	return fmt.Sprintf("thurward %s (%s, %s/%s)", version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}

// A versionInfo is what version prints as JSON.
type versionInfo struct {
	Version  string `json:"version"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
	Modules  []struct {
		Path    string `json:"path"`
		Version string `json:"version"`
	} `json:"modules"`
}

func newVersionCmd() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Print the version of this program",
		Long: `version prints the version of this program, of Go and of the platform it was built
for; with --json also the libraries that are linked into it. What an image was built
of is in the image itself.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			v := versionInfo{Version: version, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
			if !asJSON {
				printable.Fprintf(cmd.OutOrStdout(), "%s\n", versionLine())
				return nil
			}
			if b, ok := debug.ReadBuildInfo(); ok {
				for _, d := range b.Deps {
					v.Modules = append(v.Modules, struct {
						Path    string `json:"path"`
						Version string `json:"version"`
					}{d.Path, d.Version})
				}
			}
			return printJSON(cmd.OutOrStdout(), v)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON, with the libraries")
	return cmd
}
