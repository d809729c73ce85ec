package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/thurward/thurward/internal/host/service"
	"github.com/thurward/thurward/internal/host/verify"
	"github.com/thurward/thurward/internal/host/vmm"
)

// openImage reads the image that is to be booted. If a signature is required, the image
// is booted only if it verifies, and from a copy of the bytes that were verified: the
// file may be replaced meanwhile, and is opened again at each restart. The copy is
// removed by done.
func (l *launch) openImage() (img *vmm.Image, done func(), err error) {
	done = func() {}
	if l.signed == nil {
		img, err = vmm.OpenImage(l.image)
		return img, done, err
	}
	r, err := verify.Verify(l.image, *l.signed)
	if err != nil {
		return nil, done, fmt.Errorf("refusing to boot: %w", err)
	}
	l.say("%s: version %s, commit %s, policy sha256:%s, signed by %s", l.image, r.Image.Version,
		orUnknown(r.Image.Commit), r.Image.Policy, r.Signer)
	if img, err = vmm.ParseImage(l.image, r.Bytes); err != nil {
		return nil, done, err
	}
	if l.image, done, err = copyImage(l.image, r.Bytes); err != nil {
		return nil, func() {}, err
	}
	return img, done, nil
}

// copyImage writes an image to a folder that is this process's alone, so that what is booted
// is what was verified. A service has one in memory, which no full disk keeps it from. done
// removes it.
func copyImage(path string, b []byte) (copied string, done func(), err error) {
	run, _, _ := strings.Cut(os.Getenv("RUNTIME_DIRECTORY"), ":") // systemd.exec(5)
	dir, err := os.MkdirTemp(run, "thurward-image-")
	if err != nil {
		return "", nil, err
	}
	done = func() { os.RemoveAll(dir) }
	copied = filepath.Join(dir, filepath.Base(path))
	if err := os.WriteFile(copied, b, 0o400); err != nil {
		done()
		return "", nil, fmt.Errorf("a copy of what was verified: %w", err)
	}
	return copied, done, nil
}

// verified returns where an image of a folder is booted from: the file itself, or, where a
// signature is demanded, a copy of the bytes that were verified.
func (l *launch) verified(path string, b []byte) (boots string, done func(), err error) {
	if l.signed == nil {
		return path, func() {}, nil
	}
	return copyImage(path, b)
}

// A copied is a guest whose image is removed at its end.
type copied struct {
	service.Guest
	done func()
}

// Wait implements service.Guest.
func (c copied) Wait(ctx context.Context) vmm.Outcome {
	defer c.done()
	return c.Guest.Wait(ctx)
}
