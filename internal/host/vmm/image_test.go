package vmm

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/thurward/thurward/internal/host/policy/compile"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/ruleset/rulesettest"
)

// prog is a program header and what it loads.
type prog struct {
	typ  uint32
	data []byte
}

// makeELF returns an ELF64 x86 executable of the given parts.
func makeELF(parts ...prog) []byte {
	le := binary.LittleEndian
	b := append([]byte("\x7fELF\x02\x01\x01"), make([]byte, 9)...)
	b = le.AppendUint16(b, 2)
	b = le.AppendUint16(b, 62)
	b = le.AppendUint32(b, 1)
	b = le.AppendUint64(b, 0x100000)
	b = le.AppendUint64(b, 64)
	b = append(b, make([]byte, 12)...)
	for _, v := range []uint16{64, 56, uint16(len(parts)), 64, 0, 0} {
		b = le.AppendUint16(b, v)
	}
	off := uint64(64 + 56*len(parts))
	for _, p := range parts {
		b = le.AppendUint32(b, p.typ)
		b = le.AppendUint32(b, 4)
		for _, v := range []uint64{off, 0x100000, 0x100000, uint64(len(p.data)), uint64(len(p.data)), 4} {
			b = le.AppendUint64(b, v)
		}
		off += uint64(len(p.data))
	}
	for _, p := range parts {
		b = append(b, p.data...)
	}
	return b
}

// note returns an ELF note.
func note(typ uint32, name string, desc int) []byte {
	le := binary.LittleEndian
	b := le.AppendUint32(nil, uint32(len(name)))
	b = le.AppendUint32(b, uint32(desc))
	b = le.AppendUint32(b, typ)
	b = append(b, name...)
	b = append(b, make([]byte, -len(b)&3)...)
	return append(b, make([]byte, (desc+3)&^3)...)
}

func samplePolicy() []byte {
	return compile.Encode(&ruleset.Policy{Digest: [32]byte{7}, Interfaces: rulesettest.Interfaces(), Settings: ruleset.Settings{DefaultAction: ruleset.Deny, MaxFlows: 1024}})
}

func TestOpenImage(t *testing.T) {
	pvh := prog{4, note(18, "Xen\x00", 8)}
	load := prog{1, append(samplePolicy(), "more"...)}
	good := makeELF(load, pvh)
	flipped := append([]byte(nil), good...)
	flipped[len(flipped)-len(pvh.data)-5] ^= 1 // the policy's last byte
	for name, c := range map[string]struct {
		file   []byte
		err    string
		policy string // of PolicyErr
	}{
		"good":                {good, "", ""},
		"no policy":           {makeELF(pvh), "", "no ruleset found"},
		"corrupted policy":    {flipped, "", "digest"},
		"empty":               {nil, "not an ELF file (0 bytes)", ""},
		"text":                {[]byte("#!/bin/sh\n"), "not an ELF file", ""},
		"header only":         {good[:40], "truncated or damaged", ""},
		"truncated in a part": {good[:len(good)-3], "truncated: a part of it ends at byte", ""},
		"32-bit machine":      {append(append([]byte(nil), good[:18]...), append([]byte{3, 0}, good[20:]...)...), "EM_386", ""},
		"no note":             {makeELF(load), "no PVH entry note", ""},
		"another note":        {makeELF(load, prog{4, note(3, "GNU\x00", 20)}), "no PVH entry note", ""},
		"second note":         {makeELF(load, prog{4, append(note(3, "GNU\x00", 20), pvh.data...)}), "", ""},
		"note runs off":       {makeELF(load, prog{4, note(18, "Xen\x00", 8)[:18]}), "no PVH entry note", ""},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "fw.img")
			if err := os.WriteFile(path, c.file, 0o600); err != nil {
				t.Fatal(err)
			}
			img, err := OpenImage(path)
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) || !strings.Contains(err.Error(), "thurward build -o "+path) {
					t.Errorf("%v, want %q and how to build it anew", err, c.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if c.policy != "" {
				if img.Policy != nil || img.PolicyErr == nil || !strings.Contains(img.PolicyErr.Error(), c.policy) {
					t.Errorf("policy %v, %v; want %q", img.Policy, img.PolicyErr, c.policy)
				}
			} else if img.PolicyErr != nil || img.Policy.Digest != [32]byte{7} {
				t.Errorf("policy %v, %v", img.Policy, img.PolicyErr)
			}
		})
	}
	if _, err := OpenImage(filepath.Join(t.TempDir(), "none.img")); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("%v", err)
	}
}

func FuzzOpenImage(f *testing.F) {
	f.Add(makeELF(prog{1, samplePolicy()}, prog{4, note(18, "Xen\x00", 8)}))
	f.Add(makeELF(prog{4, note(18, "Xen\x00", 4)}))
	f.Fuzz(func(t *testing.T, b []byte) {
		path := filepath.Join(t.TempDir(), "f")
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if img, err := OpenImage(path); err == nil && (img.Policy == nil) == (img.PolicyErr == nil) {
			t.Errorf("policy %v, %v", img.Policy, img.PolicyErr)
		}
	})
}
