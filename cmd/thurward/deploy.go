package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/thurward/thurward/internal/host/deploy"
	"github.com/thurward/thurward/internal/host/limited"
	"github.com/thurward/thurward/internal/host/provenance"
	"github.com/thurward/thurward/internal/host/service"
	"github.com/thurward/thurward/internal/host/sigstore"
	"github.com/thurward/thurward/internal/host/verify"
	"github.com/thurward/thurward/internal/host/vmm"
	"github.com/thurward/thurward/internal/shared/printable"
)

// firewallFolder checks the name of a firewall, and returns it with its folder.
func firewallFolder(name, state string) (string, string, error) {
	if name == "" {
		if state != "" {
			return "", "", errors.New("--state needs --name")
		}
		return "", "", nil
	}
	if err := deploy.CheckName(name); err != nil {
		return "", "", fmt.Errorf("--name: %w", err)
	}
	if state == "" {
		state = filepath.Join(deploy.Home, name)
	}
	return name, state, nil
}

// A target is the firewall that a command is about, and how it is changed.
type target struct {
	name, state, check string
	policy             string // file: the image's rules.yaml; "": not known
	watch              time.Duration
	cold, dry          bool
	signed             verify.Options // who must have signed
}

func (t *target) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&t.name, "name", "", "the firewall's name (required)")
	cmd.Flags().StringVar(&t.state, "state", "", "its folder (default "+deploy.Home+"/NAME)")
}

func (t *target) changeFlags(cmd *cobra.Command) {
	t.flags(cmd)
	cmd.Flags().DurationVar(&t.watch, "watch", defaultWatch, "how long the new machine is watched before it is kept")
	cmd.Flags().StringVar(&t.check, "check", "", "a command of yours, run by sh, that has to succeed at the end of the watch")
	cmd.Flags().BoolVar(&t.cold, "cold", false, "end the old machine before the new one starts, for want of memory")
}

const defaultWatch = 20 * time.Second

// resolve checks the flags.
func (t *target) resolve(cmd *cobra.Command) (err error) {
	if t.name == "" {
		return usageError{fmt.Errorf("%s: --name is missing: which firewall?", cmd.Name())}
	}
	if t.watch < 0 || t.watch > service.MaxWatch {
		return usageError{fmt.Errorf("%s: --watch %v is out of range (want 0 to %v)", cmd.Name(), t.watch, service.MaxWatch)}
	}
	if err := t.signed.Check("--require-signature"); err != nil {
		return usageError{fmt.Errorf("%s: %w", cmd.Name(), err)}
	}
	if t.name, t.state, err = firewallFolder(t.name, t.state); err != nil {
		return usageError{fmt.Errorf("%s: %w", cmd.Name(), err)}
	}
	return nil
}

func newDeployCmd() *cobra.Command {
	var t target
	cmd := &cobra.Command{
		Use:   "deploy IMAGE",
		Short: "Replace the image of a firewall that runs",
		Long: `deploy makes an image the current one of a firewall. It checks the image and copies
it into the firewall's folder. It takes the rules.yaml that the image was built from out
of its provenance, which is verified if a signature is demanded, or as -f names it: runs
its tests, decides its statements, and shows which traffic the image decides differently
from the current one, if that one's is known, too.

If the firewall's service runs (thurward run --state), the new machine is started
beside the old one. When its rules are live and it is the image's policy that runs,
it takes the old one's place, and is watched: it must go on, show signs of life, and
hear its gateway if the old one did. If it does not, or --check fails, the old machine,
which has waited, takes its place again, with its flows. deploy then exits with 1.

With --check the change also ends when deploy does, so that a change that cuts you
off is taken back. Without a service only the folder is changed.

The image before remains; rollback takes it.`,
		Example: `  sudo thurward deploy new.img -f rules.yaml --name edge
  sudo thurward deploy new.img --name edge --watch 1m --check 'curl -fsS -m 5 https://example.com'
  sudo thurward deploy new.img --name edge --require-signature cosign.pub
  thurward deploy new.img -f rules.yaml --name edge --dry-run`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usageError{errors.New("deploy: want one image")}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := t.resolve(cmd); err != nil {
				return err
			}
			return t.deploy(cmd, args[0])
		},
	}
	t.changeFlags(cmd)
	addPolicyFlag(cmd, &t.policy, "the rules.yaml that the image was built from, where it has no provenance")
	signedFlags(cmd, &t.signed, "deploy", "deployed")
	cmd.Flags().BoolVar(&t.dry, "dry-run", false, "check the image and show what it changes, and change nothing")
	return cmd
}

func newRollbackCmd() *cobra.Command {
	var t target
	cmd := &cobra.Command{
		Use:   "rollback",
		Short: "Give a firewall its previous image again",
		Long: `rollback makes the previous image of a firewall the current one, as deploy does
with a new one: its machine is started, takes the place, and is watched. A second
rollback takes the first one back.`,
		Example: `  sudo thurward rollback --name edge`,
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := t.resolve(cmd); err != nil {
				return err
			}
			return t.rollback(cmd)
		},
	}
	t.changeFlags(cmd)
	return cmd
}

// deploy makes an image the current one.
func (t *target) deploy(cmd *cobra.Command, path string) error {
	out := cmd.OutOrStdout()
	f, err := openImageFile(path)
	if err != nil {
		return err
	}
	defer f.Close()
	// The file is read once: what is checked is what is kept, whatever becomes of it.
	b, err := io.ReadAll(io.LimitReader(f, deploy.MaxImage+1))
	if err != nil {
		return err
	}
	if len(b) > deploy.MaxImage {
		return fmt.Errorf("image %s: longer than %d MB", path, deploy.MaxImage>>20)
	}
	var signed *verify.Report
	if t.signed.Demands() {
		if signed, err = verify.Verify(path, t.signed); err != nil {
			return fmt.Errorf("refusing to deploy: %w", err)
		}
		if !bytes.Equal(signed.Bytes, b) {
			return fmt.Errorf("refusing to deploy: %s has changed meanwhile", path)
		}
		printable.Fprintf(out, "%s: signed by %s, version %s, commit %s\n", path, signed.Signer, signed.Image.Version, orUnknown(signed.Image.Commit))
	}
	img, err := vmm.ParseImage(path, b)
	if err != nil {
		return err
	}
	if img.PolicyErr != nil {
		return fmt.Errorf("image %s: its policy cannot be read: %w", path, img.PolicyErr)
	}
	store, err := deploy.Open(t.state, !t.dry)
	if err != nil && !(t.dry && errors.Is(err, os.ErrNotExist)) {
		return err
	}
	var rec deploy.Record
	if store != nil {
		defer store.Close()
		if rec, err = store.Record(); err != nil && !errors.Is(err, deploy.ErrNone) {
			return err
		}
	}
	rules, err := t.compare(cmd, store, rec, path, img, signed)
	if err != nil {
		return err
	}
	if t.dry {
		return nil
	}
	release, err := store.Lock()
	if err != nil {
		return err
	}
	defer release()
	e, err := store.Put(bytes.NewReader(b), func([]byte) (string, error) { return digestOf(img.Policy), nil })
	if err != nil {
		return fmt.Errorf("taking the image in: %w", err)
	}
	if rules != nil {
		if err := store.KeepPolicy(&e, rules); err != nil {
			return fmt.Errorf("keeping the policy: %w", err)
		}
	}
	if err := t.keepSignatures(out, store, &e, path); err != nil {
		return err
	}
	printable.Fprintf(out, "%s: sha256:%s\n", path, e.Image)
	return t.change(cmd, store, e)
}

// signatures are the files beside an image that say who made it, and how, with functions that
// refuse what is none: root reads for a service that may read less, and a link leads anywhere.
var signatures = []struct {
	suffix string
	check  func(b []byte) error
}{
	{verify.SignatureSuffix, isBundle},
	{verify.AttestationSuffix, isBundle},
	{verify.StatementSuffix, func(b []byte) error { _, err := provenance.Parse(b); return err }},
	{verify.SBOMSuffix, func(b []byte) error { _, err := provenance.Packages(b); return err }},
}

func isBundle(b []byte) error { _, err := sigstore.Parse(b); return err }

// maxSignature is the largest size of one of them in bytes.
const maxSignature = 16 << 20

// keepSignatures keeps those beside the image in the folder, and verifies it there if that is
// demanded: the service that starts it may demand it, too.
func (t *target) keepSignatures(out io.Writer, store *deploy.Store, e *deploy.Entry, path string) error {
	for _, s := range signatures {
		b, err := limited.ReadRegular(path+s.suffix, maxSignature)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err == nil {
			err = s.check(b)
		}
		if err != nil {
			printable.Fprintf(out, "%s is not kept with the image: %v\n", path+s.suffix, err)
			continue
		}
		if err := store.Keep(e, s.suffix, b); err != nil {
			return fmt.Errorf("keeping %s: %w", path+s.suffix, err)
		}
	}
	if !t.signed.Demands() {
		return nil
	}
	if _, err := verify.Verify(store.ImagePath(e), t.signed); err != nil {
		return fmt.Errorf("refusing to deploy: %w", err)
	}
	return nil
}

// openImageFile opens a regular file.
func openImageFile(path string) (*os.File, error) {
	if st, err := os.Stat(path); err == nil && !st.Mode().IsRegular() {
		return nil, fmt.Errorf("image %s: not a regular file (want an image of thurward build -o)", path)
	}
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("image %s: there is no such file (make one: thurward build -o %s)", path, path)
	}
	return f, err
}

// rollback makes the previous image the current one.
func (t *target) rollback(cmd *cobra.Command) error {
	store, err := deploy.Open(t.state, false)
	if errors.Is(err, os.ErrNotExist) {
		err = deploy.ErrNone
	}
	if err != nil {
		return fmt.Errorf("%s: %w", t.name, err)
	}
	defer store.Close()
	release, err := store.Lock()
	if err != nil {
		return err
	}
	defer release()
	return t.change(cmd, store, deploy.Entry{})
}

// change has the service make an image the current one, or does it where none runs. The
// zero Entry is the previous image.
func (t *target) change(cmd *cobra.Command, store *deploy.Store, e deploy.Entry) error {
	out := cmd.OutOrStdout()
	ctx, cancel := untilStopped(cmd.Context(), 0)
	defer cancel()
	c := service.Change{Image: e.Image, Watch: t.watch, Cold: t.cold, Say: func(s string) { printable.Fprintf(out, "%s\n", s) }}
	if t.check != "" {
		c.Confirm = func(ctx context.Context) error {
			check := exec.CommandContext(ctx, "/bin/sh", "-c", t.check)
			check.Stdout, check.Stderr = out, cmd.ErrOrStderr()
			if err := check.Run(); err != nil {
				return fmt.Errorf("%s: %w", t.check, err)
			}
			return nil
		}
	}
	err := service.Request(ctx, t.state, c)
	if !errors.Is(err, service.ErrNoService) {
		return err
	}
	release, err := store.Run()
	if errors.Is(err, deploy.ErrRuns) {
		return errors.New("the firewall's service is starting or ending; try again")
	}
	if err != nil {
		return err
	}
	defer release()
	rec, err := store.Record()
	if err != nil && !errors.Is(err, deploy.ErrNone) {
		return err
	}
	if e.Image == "" {
		if rec.Previous == nil {
			return errors.New("there is no previous image")
		}
		e = *rec.Previous
		if _, err := store.Image(&e); err != nil {
			return err
		}
	}
	if err := store.Set(rec.Next(e, time.Now())); err != nil {
		return err
	}
	if _, err := store.Recover(); err != nil {
		return err
	}
	printable.Fprintf(out, "the image sha256:%.12s… is current; no service runs the firewall (thurward run --state %s)\n", e.Image, t.state)
	return nil
}
