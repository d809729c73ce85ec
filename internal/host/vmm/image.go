package vmm

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/thurward/thurward/internal/host/image"
	"github.com/thurward/thurward/internal/host/limited"
	"github.com/thurward/thurward/internal/shared/ruleset"
)

// noteEntry is the type of Xen's ELF note that holds the 32-bit entry point
// (XEN_ELFNOTE_PHYS32_ENTRY): PVH boot.
const noteEntry = 18

// maxImage is the largest size of an image in bytes: a policy can have 80 MB of
// tables.
const maxImage = 128 << 20

// An Image is a bootable file that passed the launcher's checks.
type Image struct {
	Path   string
	Size   int64
	Policy *ruleset.Policy // nil if none could be found or opened; PolicyErr is why
	// PolicyErr does not make OpenImage fail: the image's kernel and program may be
	// of another version. The image itself refuses a policy that it cannot use.
	PolicyErr error
}

// OpenImage checks that a file can be booted: it exists, is a complete 64-bit x86
// ELF file, and has the note with its entry point for QEMU and Firecracker. Errors
// name the remedy.
func OpenImage(path string) (*Image, error) {
	if st, err := os.Stat(path); err == nil && !st.Mode().IsRegular() {
		return nil, fmt.Errorf("image %s: not a regular file (want an image of thurward build -o)", path)
	}
	b, err := limited.ReadFile(path, maxImage)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("image %s: there is no such file (make one: thurward build -o %s)", path, path)
	case err != nil:
		return nil, fmt.Errorf("image: %w", err)
	}
	return ParseImage(path, b)
}

// ParseImage is OpenImage for the contents of a file; path is for errors.
func ParseImage(path string, b []byte) (*Image, error) {
	rebuild := func(format string, a ...any) (*Image, error) {
		return nil, fmt.Errorf("image %s: %s (build it anew: thurward build -o %s)", path, fmt.Sprintf(format, a...), path)
	}
	if !bytes.HasPrefix(b, []byte(elf.ELFMAG)) {
		return rebuild("not an ELF file (%d bytes)", len(b))
	}
	f, err := elf.NewFile(bytes.NewReader(b))
	if err != nil {
		return rebuild("truncated or damaged: %v", err)
	}
	if f.Class != elf.ELFCLASS64 || f.Machine != elf.EM_X86_64 {
		return rebuild("is %v %v, not ELFCLASS64 EM_X86_64", f.Class, f.Machine)
	}
	img := &Image{Path: path, Size: int64(len(b)), PolicyErr: errors.New("no ruleset found")}
	bootable := false
	for _, p := range f.Progs {
		end := p.Off + p.Filesz
		if end < p.Off || end > uint64(len(b)) {
			return rebuild("truncated: a part of it ends at byte %d, the file at %d", end, len(b))
		}
		data := b[p.Off:end]
		switch p.Type {
		case elf.PT_NOTE:
			bootable = bootable || hasEntryNote(data)
		case elf.PT_LOAD:
			if bytes.HasPrefix(data, []byte(ruleset.Magic)) && img.Policy == nil {
				img.Policy, img.PolicyErr = image.OpenPolicy(data)
			}
		}
	}
	if !bootable {
		return rebuild("has no PVH entry note, without which QEMU does not boot it")
	}
	return img, nil
}

// hasEntryNote looks for the PVH note in a note segment.
func hasEntryNote(b []byte) bool {
	le := binary.LittleEndian
	for len(b) >= 12 {
		name, desc := uint64(le.Uint32(b)), uint64(le.Uint32(b[4:]))
		typ := le.Uint32(b[8:])
		nameEnd := 12 + (name+3)&^3
		end := nameEnd + (desc+3)&^3
		if end > uint64(len(b)) {
			return false
		}
		if typ == noteEntry && string(b[12:12+name]) == "Xen\x00" && desc >= 4 {
			return true
		}
		b = b[end:]
	}
	return false
}
