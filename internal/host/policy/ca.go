package policy

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/thurward/thurward/internal/host/limited"
	"github.com/thurward/thurward/internal/shared/ruleset"
)

// maxPEM is the longest file of certificates that is read: base64, and text
// between the certificates.
const maxPEM = 4 * ruleset.MaxCA

// certificates reads a file of certificates in PEM, whose name is relative to
// the policy's, and returns them in DER, one after the other.
func (l *loader) certificates(n *node, path string) (der string, ok bool) {
	const hint = "want the name of a file with certificates of authorities in PEM, relative to the policy"
	if n.kind != scalar || n.text == "" {
		l.err(n, path, "type", "is not the name of a file", hint)
		return "", false
	}
	file := n.text
	if !filepath.IsAbs(file) {
		file = filepath.Join(filepath.Dir(l.File), file)
	}
	fail := func(why string) (string, bool) {
		l.err(n, path, "certificate", fmt.Sprintf("%q %s", file, why), hint)
		return "", false
	}
	st, err := os.Stat(file)
	switch {
	case err != nil:
		return fail("cannot be read: " + cause(err))
	case !st.Mode().IsRegular():
		return fail("is no file") // a pipe would never end
	}
	rest, err := limited.ReadFile(file, maxPEM)
	switch {
	case errors.Is(err, limited.ErrTooLong):
		return fail(fmt.Sprintf("is longer than %d KiB", maxPEM>>10))
	case err != nil:
		return fail("cannot be read: " + cause(err))
	}
	src := rest
	var certs []byte
	for {
		var b *pem.Block
		if b, rest = pem.Decode(rest); b == nil {
			break
		}
		line := bytes.Count(src[:len(src)-len(rest)], []byte("\n"))
		if b.Type != "CERTIFICATE" {
			return fail(fmt.Sprintf("the block that ends in line %d is a %s, and no certificate", line, b.Type))
		}
		if _, err := x509.ParseCertificate(b.Bytes); err != nil {
			return fail(fmt.Sprintf("the certificate that ends in line %d cannot be read: %v", line, err))
		}
		certs = append(certs, b.Bytes...)
	}
	if len(certs) == 0 {
		return fail("holds no certificate")
	}
	if len(certs) > ruleset.MaxCA {
		return fail(fmt.Sprintf("holds more than %d KiB of certificates", ruleset.MaxCA>>10))
	}
	return string(certs), true
}

// cause leaves the name of the file, which the message has already, out of an error.
func cause(err error) string {
	if p, ok := err.(*os.PathError); ok {
		return p.Err.Error()
	}
	return err.Error()
}
