package main

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/thurward/thurward/internal/host/image"
	"github.com/thurward/thurward/internal/host/limited"
	"github.com/thurward/thurward/internal/host/policy/compile"
	"github.com/thurward/thurward/internal/host/policy/explain"
	"github.com/thurward/thurward/internal/host/policy/prove"
	"github.com/thurward/thurward/internal/shared/printable"
)

func newBuildCmd() *cobra.Command {
	var file, out, program, kernel, cmdline string
	var which bool
	cmd := &cobra.Command{
		Use:   "build",
		Short: "Link the image",
		Long: `build compiles a policy and links it with the firewall's program and kernel
into one bootable image. The same input gives the same image, byte for byte. There
is no image if the policy's own tests fail, or a statement under never or always does
not hold.

There are two programs: ` + image.Plain + `, and ` + image.DoT + `, which has TLS. The
second is used for a policy that has an upstream with tls.`,
		Example: `  thurward build
  thurward build -f examples/home.yaml -o home.img`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			p, seg, src, err := openPolicy(cmd, file, true)
			if err != nil {
				return fmt.Errorf("%w; no image was made", err)
			}
			variant := image.ProgramFor(seg)
			if which {
				printable.Fprintf(cmd.OutOrStdout(), "%s\n", variant)
				return nil
			}
			if program == "" {
				program = beside(variant)
			}
			if failed := explain.Failures(p, explain.RunTests(p, seg)); len(failed) > 0 {
				if err := showText(cmd.ErrOrStderr(), file, src, failed); err != nil {
					return err
				}
				return fmt.Errorf("%d of the policy's %s failed; no image was made",
					len(failed), counted(len(p.Tests), "test"))
			}
			if failed := prove.Failures(p, prove.Run(p, seg)); len(failed) > 0 {
				if err := showText(cmd.ErrOrStderr(), file, src, failed); err != nil {
					return err
				}
				return fmt.Errorf("%d of the policy's %s do not hold; no image was made",
					len(failed), counted(len(p.Statements), "statement"))
			}
			in := image.Input{Policy: compile.Encode(seg), Cmdline: cmdline}
			if in.Program, err = readPart(program, "program"); err != nil {
				return err
			}
			if in.Kernel, err = readPart(kernel, "kernel"); err != nil {
				return err
			}
			img, err := image.Link(in)
			if err != nil {
				return err
			}
			if err := writeFile(out, img); err != nil {
				return err
			}
			printable.Fprintf(cmd.OutOrStdout(), "%s: %d bytes\n  image   sha256:%x\n  policy  sha256:%x (%s, %d rules, %d tests)\n",
				out, len(img), sha256.Sum256(img), p.Digest, file, len(p.Rules), len(p.Tests))
			c := &seg.Classifier
			printable.Fprintf(cmd.OutOrStdout(), "  rules   %d combinations, %d KiB of decision trees; a leaf has at most %d\n", len(seg.Matches), (c.Bytes()+1023)/1024, c.Longest())
			return nil
		},
	}
	policyFlag(cmd, &file, "the policy")
	cmd.Flags().StringVarP(&out, "output", "o", "build/thurward.img", "the image to write")
	cmd.Flags().StringVar(&program, "program", "", "the firewall's program (default "+image.Plain+" or "+image.DoT+" in build/, as the policy needs)")
	cmd.Flags().BoolVar(&which, "which-program", false, "only print which program the policy needs, "+image.Plain+" or "+image.DoT)
	cmd.Flags().StringVar(&kernel, "kernel", beside("kernel.elf"), "the kernel")
	cmd.Flags().StringVar(&cmdline, "append", "", "boot arguments to build in, as thurward.lan=MAC")
	return cmd
}

// beside returns the path of a part of the image: in build/ beside the folder of this
// program, where make has built it, or in lib/thurward there, where the package has
// installed it, or else below the current folder.
func beside(name string) string {
	if exe, err := os.Executable(); err == nil {
		for _, dir := range []string{"build", "lib/thurward"} {
			p := filepath.Join(filepath.Dir(exe), "..", dir, name)
			if _, err := os.Stat(p); err == nil {
				return p
			}
		}
	}
	return filepath.Join("build", name)
}

// maxPart is the largest size of a part of an image, in bytes. The firewall's program
// with TLS has 5 MB.
const maxPart = 64 << 20

func readPart(path, what string) ([]byte, error) {
	b, err := limited.ReadFile(path, maxPart)
	if err != nil {
		return nil, fmt.Errorf("the %s: %w (make build makes it; --%s names another)", what, err, what)
	}
	return b, nil
}

// writeFile writes a file atomically.
func writeFile(path string, b []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(b)
	if err == nil {
		err = f.Chmod(0o644)
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
