// Command thurward-sigstore verifies that the owner of a certificate has signed a file or
// a statement about it, with Sigstore's own client. thurward verify runs it; it is a
// program of its own because of what it links (ADR 0035): with the build tag sigstore, and
// the modules of tools/go.mod.
//
// It reads a bundle from standard input and needs no network. It exits with 0 if the
// bundle verifies, 1 if not, with the reason on standard error, and 2 for a wrong command
// line or a trusted root that cannot be read.
package main

import (
	"encoding/hex"
	"flag"
	"fmt"
	"io"
	"os"
)

// maxBundle is the largest size of a bundle in bytes.
const maxBundle = 64 << 20

func main() {
	rootFile := flag.String("trusted-root", "", "file of Sigstore's trusted root")
	digest := flag.String("digest", "", "SHA-256 of the file, in hexadecimal")
	identity := flag.String("certificate-identity", "", "identity in the certificate, exactly")
	issuer := flag.String("certificate-oidc-issuer", "", "who vouched for it, exactly")
	flag.Parse()
	sum, err := hex.DecodeString(*digest)
	if err != nil || len(sum) != 32 || *identity == "" || *issuer == "" || flag.NArg() > 0 {
		fmt.Fprintln(os.Stderr, "want --trusted-root, --digest, --certificate-identity and --certificate-oidc-issuer")
		os.Exit(2)
	}
	raw, err := io.ReadAll(io.LimitReader(os.Stdin, maxBundle))
	if err == nil {
		var failed error
		if err, failed = checkFile(raw, *rootFile, sum, *identity, *issuer); failed != nil {
			fmt.Fprintln(os.Stderr, failed)
			os.Exit(2)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
