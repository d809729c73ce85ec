package main

import (
	"fmt"
	"os"
	"path/filepath"

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
	dir, err := os.MkdirTemp("", "thurward-image-")
	if err != nil {
		return nil, done, err
	}
	done = func() { os.RemoveAll(dir) }
	l.image = filepath.Join(dir, filepath.Base(l.image))
	if err := os.WriteFile(l.image, r.Bytes, 0o400); err != nil {
		done()
		return nil, func() {}, err
	}
	return img, done, nil
}
