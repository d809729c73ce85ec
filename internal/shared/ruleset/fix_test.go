package ruleset

import (
	"crypto/sha256"
	"encoding/binary"
)

// fix gives a fuzzed segment the header fields that make Open look further.
func fix(b []byte) {
	copy(b, Magic)
	binary.LittleEndian.PutUint32(b[offVersion:], Version)
	binary.LittleEndian.PutUint32(b[offSize:], uint32(len(b)))
	sum := sha256.Sum256(b[HeaderSize:])
	copy(b[offBody:], sum[:])
}
