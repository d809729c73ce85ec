// Command layout writes an OCI image layout for make release:
//
//	layout -o ARCHIVE -tag TAG [-entrypoint PATH] ARCH:PATH=FILE...
//
// puts each FILE into the image for ARCH under PATH.
package main

import (
	"flag"
	"fmt"
	"os"
	"strings"

	"github.com/thurward/thurward/internal/host/oci"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	out := flag.String("o", "", "the archive")
	tag := flag.String("tag", "", "the tag")
	entrypoint := flag.String("entrypoint", "", "the program that a container runs")
	title := flag.String("title", "thurward", "what it is")
	flag.Parse()
	var images []oci.Image
	for _, arg := range flag.Args() {
		arch, rest, ok1 := strings.Cut(arg, ":")
		path, file, ok2 := strings.Cut(rest, "=")
		if !ok1 || !ok2 {
			return fmt.Errorf("%q: want ARCH:PATH=FILE", arg)
		}
		data, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		mode := int64(0o644)
		if strings.HasPrefix(path, "usr/bin/") {
			mode = 0o755
		}
		if n := len(images); n == 0 || images[n-1].Arch != arch {
			im := oci.Image{Arch: arch, Annotations: map[string]string{
				"org.opencontainers.image.title": *title, "org.opencontainers.image.version": *tag,
				"org.opencontainers.image.source": "https://github.com/thurward/thurward", "org.opencontainers.image.licenses": "Apache-2.0",
			}}
			if *entrypoint != "" {
				im.Entrypoint = []string{*entrypoint}
			}
			images = append(images, im)
		}
		im := &images[len(images)-1]
		im.Files = append(im.Files, oci.File{Path: path, Data: data, Mode: mode})
	}
	f, err := os.Create(*out)
	if err != nil {
		return err
	}
	err = oci.Write(f, *tag, images)
	if e := f.Close(); err == nil {
		err = e
	}
	return err
}
