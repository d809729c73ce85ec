//go:build !sigstore

package main

import "errors"

// checkFile verifies nothing: without Sigstore's client, whose modules are in
// tools/go.mod, nothing can be said of a certificate.
func checkFile([]byte, string, []byte, string, string) (refused, failed error) {
	return nil, errors.New("this thurward-sigstore was built without Sigstore's client (make bin/thurward-sigstore builds it)")
}
