package main

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/thurward/thurward/internal/host/image"
	"github.com/thurward/thurward/internal/host/limited"
	"github.com/thurward/thurward/internal/host/parts"
	"github.com/thurward/thurward/internal/host/policy/compile"
	"github.com/thurward/thurward/internal/host/policy/explain"
	"github.com/thurward/thurward/internal/host/policy/prove"
	"github.com/thurward/thurward/internal/shared/printable"
)

func newBuildCmd() *cobra.Command {
	var file, out, program, kernel, cmdline string
	var which bool
	var st statementFlags
	cmd := &cobra.Command{
		Use:   "build",
		Short: "Link the image",
		Long: `build compiles a policy and links it with the firewall's program and kernel
into one bootable image. The same input gives the same image, byte for byte. There
is no image if the policy's own tests fail, or a statement under never or always does
not hold.

There are two programs: ` + image.Plain + `, and ` + image.DoT + `, which has TLS. The
second is used for a policy that has an upstream with tls. They and the kernel are
built into a released command line; otherwise make build makes them.

With --provenance how the image was made is written beside it, to be signed, with the
results of the policy's tests and statements and the list of what is linked into it; with
--previous also what it does differently from an earlier image (docs/release.md).`,
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
			results := explain.RunTests(p, seg)
			if failed := explain.Failures(p, results); len(failed) > 0 {
				if err := showText(cmd.ErrOrStderr(), p.File, src, failed); err != nil {
					return err
				}
				return fmt.Errorf("%d of the policy's %s failed; no image was made",
					len(failed), counted(len(p.Tests), "test"))
			}
			proofs := prove.Run(p, seg)
			if failed := prove.Failures(p, proofs); len(failed) > 0 {
				if err := showText(cmd.ErrOrStderr(), p.File, src, failed); err != nil {
					return err
				}
				return fmt.Errorf("%d of the policy's %s do not hold; no image was made",
					len(failed), counted(len(p.Statements), "statement"))
			}
			in := image.Input{Policy: compile.Encode(seg), Cmdline: cmdline}
			if in.Program, err = readPart(program, variant, "program"); err != nil {
				return err
			}
			if in.Kernel, err = readPart(kernel, parts.Kernel, "kernel"); err != nil {
				return err
			}
			img, err := image.Link(in)
			if err != nil {
				return err
			}
			if err := st.write(cmd, &statementInput{
				out: out, image: img, parts: in, policyFile: p.File, source: src, policy: p, tests: results, proofs: proofs,
			}); err != nil {
				return err
			}
			if err := writeFile(out, img); err != nil {
				return err
			}
			printable.Fprintf(cmd.OutOrStdout(), "%s: %d bytes\n  image   sha256:%x\n  policy  sha256:%x (%s, %d rules, %d tests)\n",
				out, len(img), sha256.Sum256(img), p.Digest, p.File, len(p.Rules), len(p.Tests))
			c := &seg.Classifier
			printable.Fprintf(cmd.OutOrStdout(), "  rules   %d combinations, %d KiB of decision trees; a leaf has at most %d\n", len(seg.Matches), (c.Bytes()+1023)/1024, c.Longest())
			return nil
		},
	}
	policyFlag(cmd, &file, "the policy")
	cmd.Flags().StringVarP(&out, "output", "o", "build/thurward.img", "the image to write")
	cmd.Flags().StringVar(&program, "program", "", "the firewall's program in place of "+image.Plain+" or "+image.DoT+", as the policy needs")
	cmd.Flags().BoolVar(&which, "which-program", false, "only print which program the policy needs, "+image.Plain+" or "+image.DoT)
	cmd.Flags().StringVar(&kernel, "kernel", "", "the kernel in place of "+parts.Kernel)
	cmd.Flags().StringVar(&cmdline, "append", "", "boot arguments to build in, as thurward.lan=MAC")
	st.add(cmd)
	return cmd
}

// maxPart is the largest size of a part of an image, in bytes. The firewall's program
// with TLS has 5 MB.
const maxPart = 64 << 20

// readPart reads a part of an image: from a file if one is named, or what belongs to this
// program.
func readPart(path, name, what string) (b []byte, err error) {
	if path == "" {
		b, err = parts.Read(name)
	} else {
		b, err = limited.ReadFile(path, maxPart)
	}
	if err != nil {
		return nil, fmt.Errorf("the %s: %w (--%s names another)", what, err, what)
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
