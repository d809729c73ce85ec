// Package schemas has the schema of policies, by which editors check them.
package schemas

import (
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
)

// Rules is rules.schema.json.
//
//go:embed rules.schema.json
var Rules []byte

// Digest returns the SHA-256 of Rules in hexadecimal.
func Digest() string {
	sum := sha256.Sum256(Rules)
	return hex.EncodeToString(sum[:])
}
