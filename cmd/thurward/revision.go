package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/thurward/thurward/internal/host/policy"
	"github.com/thurward/thurward/internal/host/policy/check"
)

// openRevised reads and checks a policy that is named by a file, or as git names the
// content of a commit: REV:FILE, or REV for file as it was then. A...B, or A... with HEAD, is the
// merge base of two commits, as with git diff.
func openRevised(cmd *cobra.Command, name, file string) (*policy.Policy, error) {
	if _, err := os.Lstat(name); err == nil || !errors.Is(err, fs.ErrNotExist) || name == "-" {
		p, _, _, err := openPolicy(cmd, name, false)
		return p, err
	}
	rev, path, has := strings.Cut(name, ":")
	if !has {
		path = file
	}
	path, src, err := atRevision(rev, path, !has)
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

// atRevision returns a file as it is in a commit, and its path there. A path is relative to the
// current folder, in a repository without a working tree to the repository. With follow a file
// that was renamed since, in commits, is found by the name that it had.
func atRevision(rev, name string, follow bool) (at string, src []byte, err error) {
	if rev == "" || name == "" || name == "-" {
		return "", nil, errors.New("want REV or REV:FILE, as HEAD:rules.yaml")
	}
	if filepath.IsAbs(name) {
		if name, err = fromHere(name); err != nil {
			return "", nil, err
		}
	}
	hash, err := commit(rev)
	if err != nil {
		return "", nil, err
	}
	name = filepath.ToSlash(filepath.Clean(name))
	src, err = fileOf(hash, name)
	if err == nil {
		return name, src, nil
	}
	old := nameBefore(hash, name)
	switch {
	case old != "" && follow:
		src, err = fileOf(hash, old)
		return old, src, err
	case old != "":
		err = fmt.Errorf("%w (it was %s there: %s:%s)", err, old, rev, old)
	}
	return "", nil, err
}

// fromHere returns a path relative to the current folder.
func fromHere(path string) (string, error) {
	here, err := os.Getwd()
	if err != nil {
		return "", err
	}
	// A file that is gone has a folder, which may be reached by a symbolic link.
	if dir, err := filepath.EvalSymlinks(filepath.Dir(path)); err == nil {
		path = filepath.Join(dir, filepath.Base(path))
	}
	if real, err := filepath.EvalSymlinks(here); err == nil {
		here = real
	}
	return filepath.Rel(here, path)
}

// commit returns the hash of a commit, or of the merge base of two. What git prints is not taken for
// options: revisions are verified first, and only their hashes go on.
func commit(rev string) (string, error) {
	a, b, two := strings.Cut(rev, "...")
	hashes := []string{a}
	if two {
		hashes = []string{cmp.Or(a, "HEAD"), cmp.Or(b, "HEAD")}
	}
	for i, r := range hashes {
		hash, err := git(41+24, "rev-parse", "--verify", "--quiet", "--end-of-options", r+"^{commit}")
		if err != nil {
			if _, outside := git(64, "rev-parse", "--git-dir"); outside != nil {
				return "", fmt.Errorf("there is no commit %q (this folder is in no git repository)", r)
			}
			return "", fmt.Errorf("there is no commit %q%s", r, ifShallow())
		}
		hashes[i] = strings.TrimSpace(string(hash))
	}
	if !two {
		return hashes[0], nil
	}
	base, err := git(41+24, "merge-base", hashes[0], hashes[1])
	if err != nil {
		return "", fmt.Errorf("%s have no merge base%s", rev, ifShallow())
	}
	return strings.TrimSpace(string(base)), nil
}

// ifShallow returns the remedy where a clone lacks commits, as those of continuous integration do.
func ifShallow() string {
	if out, err := git(64, "rev-parse", "--is-shallow-repository"); err == nil && strings.TrimSpace(string(out)) == "true" {
		return " (the clone is shallow: git fetch --unshallow; with actions/checkout, fetch-depth: 0)"
	}
	return ""
}

// fileOf returns a file of a commit.
func fileOf(hash, path string) ([]byte, error) {
	object := hash + ":./" + path
	if out, err := git(64, "rev-parse", "--is-inside-work-tree"); err != nil || strings.TrimSpace(string(out)) != "true" {
		object = hash + ":" + path
	}
	kind, err := git(64, "cat-file", "-t", object)
	switch {
	case err != nil:
		return nil, fmt.Errorf("there is no %s in %.12s (paths are relative to the current folder)", path, hash)
	case strings.TrimSpace(string(kind)) != "blob":
		return nil, fmt.Errorf("%s is no file in %.12s", path, hash)
	}
	return git(policy.MaxBytes, "cat-file", "blob", object)
}

// nameBefore returns the path in a commit of what is at name in HEAD, if git finds that it was
// renamed. Trees are compared, for which git runs no program that the repository names.
func nameBefore(hash, name string) string {
	prefix, err := git(1<<16, "rev-parse", "--show-prefix") // of the current folder, in the repository
	if err != nil {
		return ""
	}
	here := "/" + strings.TrimRight(string(prefix), "\n")
	out, err := git(1<<20, "diff-tree", "-r", "-z", "--find-renames", "--diff-filter=R", "--name-status", hash, "HEAD", "--")
	if err != nil {
		return ""
	}
	f := strings.Split(string(out), "\x00") // R100, old, new
	for i := 0; i+2 < len(f); i += 3 {
		if "/"+f[i+2] != path.Join(here, name) {
			continue
		}
		if old, err := filepath.Rel(here, "/"+f[i+1]); err == nil {
			return filepath.ToSlash(old)
		}
	}
	return ""
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
