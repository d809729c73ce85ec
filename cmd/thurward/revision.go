package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/thurward/thurward/internal/host/policy"
	"github.com/thurward/thurward/internal/host/policy/check"
)

// openRevised reads and checks a policy that is named by a file, or as git names the
// content of a commit: REV:FILE, or REV for file as it was then.
func openRevised(cmd *cobra.Command, name, file string) (*policy.Policy, error) {
	if _, err := os.Lstat(name); err == nil || !errors.Is(err, fs.ErrNotExist) {
		p, _, _, err := openPolicy(cmd, name, false)
		return p, err
	}
	rev, path, has := strings.Cut(name, ":")
	if !has {
		path = file
	}
	src, err := atRevision(rev, path)
	if err != nil {
		return nil, fmt.Errorf("%s is neither a file nor, in git, a policy of a commit: %w", name, err)
	}
	p, ds := check.Load(path, src)
	shown := rev + ":" + path
	if p == nil {
		for i := range ds {
			ds[i].File = shown
		}
		if err := showText(cmd.ErrOrStderr(), shown, src, ds); err != nil {
			return nil, err
		}
		return nil, fmt.Errorf("%s is not valid", shown)
	}
	p.File = shown
	return p, nil
}

// atRevision returns a file as it is in a commit. A path is relative to the current
// folder.
func atRevision(rev, path string) ([]byte, error) {
	if rev == "" || path == "" {
		return nil, errors.New("want REV or REV:FILE, as HEAD:rules.yaml")
	}
	if filepath.IsAbs(path) {
		return nil, fmt.Errorf("%s is not relative to the current folder", path)
	}
	// What git prints is not taken for options: a revision is verified first, and only
	// its hash goes on.
	hash, err := git(41+24, "rev-parse", "--verify", "--quiet", "--end-of-options", rev+"^{commit}")
	if err != nil {
		return nil, fmt.Errorf("there is no commit %q", rev)
	}
	object := strings.TrimSpace(string(hash)) + ":./" + filepath.ToSlash(filepath.Clean(path))
	return git(policy.MaxBytes, "cat-file", "blob", object)
}

// git runs git and returns at most limit bytes of what it prints.
func git(limit int, args ...string) ([]byte, error) {
	c := exec.Command("git", args...)
	out, errs := &capped{limit: limit}, &capped{limit: 4096}
	c.Stdout, c.Stderr = out, errs
	err := c.Run()
	switch {
	case out.over:
		return nil, fmt.Errorf("more than %d bytes", limit)
	case errors.Is(err, exec.ErrNotFound):
		return nil, errors.New("git is not installed")
	case err != nil:
		if s := strings.TrimSpace(errs.b.String()); s != "" {
			return nil, errors.New(s)
		}
		return nil, err
	}
	return out.b.Bytes(), nil
}

// capped keeps the first bytes of what is written.
type capped struct {
	b     bytes.Buffer
	limit int
	over  bool
}

func (c *capped) Write(p []byte) (int, error) {
	n := min(len(p), c.limit-c.b.Len())
	c.over = c.over || n < len(p)
	c.b.Write(p[:n])
	return len(p), nil
}
