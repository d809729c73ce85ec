// Package oci writes OCI image layouts: what registries hold, as one archive that crane,
// skopeo and podman push. The same input gives the same bytes.
//
// Source: OCI image format specification v1.1.
package oci

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"maps"
	"path"
	"slices"
	"strings"
)

// Media types.
const (
	typeIndex    = "application/vnd.oci.image.index.v1+json"
	typeManifest = "application/vnd.oci.image.manifest.v1+json"
	typeConfig   = "application/vnd.oci.image.config.v1+json"
	typeLayer    = "application/vnd.oci.image.layer.v1.tar+gzip"
)

// A File is in an image's only layer.
type File struct {
	Path string // without a slash in front
	Data []byte
	Mode int64
}

// An Image is one image of an index.
type Image struct {
	Arch        string // amd64 or arm64
	Files       []File
	Entrypoint  []string
	Annotations map[string]string
}

type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int               `json:"size"`
	Platform    *platform         `json:"platform,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

type platform struct {
	Architecture string `json:"architecture"`
	OS           string `json:"os"`
}

type manifest struct {
	Schema      int               `json:"schemaVersion"`
	MediaType   string            `json:"mediaType"`
	Config      *descriptor       `json:"config,omitempty"`
	Layers      []descriptor      `json:"layers,omitempty"`
	Manifests   []descriptor      `json:"manifests,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

// blobs are contents by the name of their digest.
type blobs map[string][]byte

func (b blobs) add(mediaType string, data []byte) descriptor {
	sum := sha256.Sum256(data)
	name := hex.EncodeToString(sum[:])
	b[name] = data
	return descriptor{MediaType: mediaType, Digest: "sha256:" + name, Size: len(data)}
}

func (b blobs) addJSON(mediaType string, v any) (descriptor, error) {
	data, err := json.Marshal(v)
	return b.add(mediaType, data), err
}

// Write writes an archive with one index of images, named by a tag.
func Write(w io.Writer, tag string, images []Image) error {
	all := blobs{}
	index := manifest{Schema: 2, MediaType: typeIndex}
	for _, im := range images {
		d, err := all.image(im)
		if err != nil {
			return err
		}
		index.Manifests = append(index.Manifests, d)
	}
	d, err := all.addJSON(typeIndex, index)
	if err != nil {
		return err
	}
	d.Annotations = map[string]string{"org.opencontainers.image.ref.name": tag}
	top, err := json.Marshal(manifest{Schema: 2, MediaType: typeIndex, Manifests: []descriptor{d}})
	if err != nil {
		return err
	}
	files := []File{{"oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`), 0o644}, {"index.json", top, 0o644}}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		files = append(files, File{"blobs/sha256/" + name, all[name], 0o644})
	}
	return archive(w, files)
}

// image adds an image's layer, configuration and manifest.
func (b blobs) image(im Image) (d descriptor, err error) {
	var layer, packed bytes.Buffer
	if err = archive(&layer, im.Files); err != nil {
		return d, err
	}
	z := gzip.NewWriter(&packed)
	if _, err = z.Write(layer.Bytes()); err == nil {
		err = z.Close()
	}
	if err != nil {
		return d, err
	}
	sum := sha256.Sum256(layer.Bytes())
	type m = map[string]any
	config, err := b.addJSON(typeConfig, m{
		"architecture": im.Arch, "os": "linux", "config": m{"Entrypoint": im.Entrypoint},
		"rootfs": m{"type": "layers", "diff_ids": []string{"sha256:" + hex.EncodeToString(sum[:])}},
	})
	if err != nil {
		return d, err
	}
	d, err = b.addJSON(typeManifest, manifest{Schema: 2, MediaType: typeManifest, Config: &config,
		Layers: []descriptor{b.add(typeLayer, packed.Bytes())}, Annotations: im.Annotations})
	d.Platform = &platform{im.Arch, "linux"}
	return d, err
}

// archive writes files, and the folders that they are in, owned by root and of no time.
func archive(w io.Writer, files []File) error {
	t := tar.NewWriter(w)
	made := map[string]bool{}
	for _, f := range files {
		for i, c := range f.Path {
			if c == '/' && !made[f.Path[:i]] {
				made[f.Path[:i]] = true
				if err := t.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: f.Path[:i] + "/", Mode: 0o755, Format: tar.FormatUSTAR}); err != nil {
					return err
				}
			}
		}
		name := strings.TrimPrefix(path.Clean("/"+f.Path), "/")
		if err := t.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: f.Mode, Size: int64(len(f.Data)), Format: tar.FormatUSTAR}); err != nil {
			return err
		}
		if _, err := t.Write(f.Data); err != nil {
			return err
		}
	}
	return t.Close()
}
