package main

import (
	"bytes"
	"io"

	"github.com/spf13/cobra"

	"github.com/thurward/thurward/internal/host/deploy"
	"github.com/thurward/thurward/internal/host/vmm"
	"github.com/thurward/thurward/internal/shared/printable"
)

func newBytes(b []byte) io.Reader { return bytes.NewReader(b) }

// compare shows what an image changes.
func (t *target) compare(cmd *cobra.Command, store *deploy.Store, rec deploy.Record, img *vmm.Image, b []byte) error {
	out := cmd.OutOrStdout()
	switch digest := digestOf(img.Policy); {
	case rec.Current.Image == "":
		printable.Fprintf(out, "%s has no image yet; policy %s\n", t.name, digest)
	case rec.Current.Policy == digest:
		printable.Fprintf(out, "the same policy as the current image's, %s\n", digest)
	default:
		printable.Fprintf(out, "policy %s, in place of %s\n", digest, rec.Current.Policy)
	}
	return nil
}
