package oci

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"path"
	"testing"
)

func sample() []Image {
	var all []Image
	for _, arch := range []string{"amd64", "arm64"} {
		all = append(all, Image{Arch: arch, Entrypoint: []string{"/usr/bin/thurward"}, Annotations: map[string]string{"b": "2", "a": "1"},
			Files: []File{{"usr/bin/thurward", []byte(arch), 0o755}, {"usr/share/x", []byte("x"), 0o644}}})
	}
	return all
}

// TestLayout: two archives are the same bytes, and everything in one is under the digest
// by which it is named.
func TestLayout(t *testing.T) {
	var a, b bytes.Buffer
	for _, w := range []*bytes.Buffer{&a, &b} {
		if err := Write(w, "1.2.0", sample()); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(a.Bytes(), b.Bytes()) {
		t.Error("two archives of the same differ")
	}
	blobs, index := map[string][]byte{}, []byte(nil)
	for tr := tar.NewReader(&a); ; {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		if !h.ModTime.IsZero() && h.ModTime.Unix() != 0 || h.Uid != 0 {
			t.Errorf("%s has a time or an owner", h.Name)
		}
		if h.Typeflag == tar.TypeDir {
			continue
		}
		switch sum := sha256.Sum256(data); {
		case h.Name == "index.json":
			index = data
		case path.Dir(h.Name) == "blobs/sha256":
			blobs["sha256:"+path.Base(h.Name)] = data
			if path.Base(h.Name) != hex.EncodeToString(sum[:]) {
				t.Errorf("%s is sha256:%x", h.Name, sum)
			}
		}
	}
	reached := map[string]bool{}
	var follow func(raw []byte)
	follow = func(raw []byte) {
		var m manifest
		if err := json.Unmarshal(raw, &m); err != nil {
			t.Fatal(err)
		}
		if m.Config != nil {
			m.Layers = append(m.Layers, *m.Config)
		}
		for _, d := range append(m.Manifests, m.Layers...) {
			if len(blobs[d.Digest]) != d.Size || d.Size == 0 {
				t.Errorf("%s has %d bytes, not %d", d.Digest, len(blobs[d.Digest]), d.Size)
			}
			reached[d.Digest] = true
		}
		for _, d := range m.Manifests {
			follow(blobs[d.Digest])
		}
	}
	follow(index)
	if len(reached) != len(blobs) || len(blobs) != 7 {
		t.Errorf("%d blobs, of which %d are named", len(blobs), len(reached))
	}
}
