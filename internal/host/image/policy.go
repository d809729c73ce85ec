package image

import (
	"encoding/binary"
	"errors"
	"fmt"
	"unsafe"

	"github.com/thurward/thurward/internal/shared/ruleset"
)

// OpenPolicy opens the ruleset at the start of a part of an image; other data may follow
// it.
func OpenPolicy(data []byte) (*ruleset.Policy, error) {
	if len(data) < ruleset.HeaderSize {
		return nil, errors.New("ruleset: truncated")
	}
	n := binary.LittleEndian.Uint32(data[ruleset.OffSize:])
	if uint64(n) > uint64(len(data)) {
		return nil, fmt.Errorf("ruleset: its header says %d bytes, there are %d (corrupted image)", n, len(data))
	}
	if n == 0 {
		return nil, errors.New("ruleset: empty")
	}
	if uintptr(unsafe.Pointer(&data[0]))%8 == 0 {
		return ruleset.Open(data[:n])
	}
	// A copy of words, for its alignment.
	words := make([]uint64, (n+7)/8)
	aligned := unsafe.Slice((*byte)(unsafe.Pointer(&words[0])), 8*len(words))[:n]
	copy(aligned, data)
	return ruleset.Open(aligned)
}
