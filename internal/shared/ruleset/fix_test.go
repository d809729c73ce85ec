package ruleset_test

import (
	"crypto/sha256"
	"encoding/binary"

	. "github.com/thurward/thurward/internal/shared/ruleset"
)

// fix gives a fuzzed ruleset the header fields that make Open look further.
func fix(b []byte) {
	copy(b, Magic)
	binary.LittleEndian.PutUint32(b[OffVersion:], Version)
	binary.LittleEndian.PutUint32(b[OffSize:], uint32(len(b)))
	sum := sha256.Sum256(b[HeaderSize:])
	copy(b[OffBody:], sum[:])
}
