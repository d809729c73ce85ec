package compile

import (
	"crypto/sha256"
	"encoding/binary"
	"unsafe"

	"github.com/thurward/thurward/internal/shared/ruleset"
)

// Encode returns a compiled policy as the image carries it, which ruleset.Open
// opens. The same policy always gives the same bytes.
func Encode(p *ruleset.Policy) []byte {
	b := make([]byte, ruleset.HeaderSize)
	le := binary.LittleEndian
	table := func(i int, data []byte, count int) {
		for len(b)%16 != 0 {
			b = append(b, 0)
		}
		le.PutUint32(b[ruleset.OffTables+8*i:], uint32(len(b)))
		le.PutUint32(b[ruleset.OffTables+8*i+4:], uint32(count))
		b = append(b, data...)
	}
	table(ruleset.TabSettings, raw([]ruleset.Settings{p.Settings}), 1)
	table(ruleset.TabInterfaces, raw(p.Interfaces), len(p.Interfaces))
	table(ruleset.TabSNAT, raw(p.SNAT), len(p.SNAT))
	table(ruleset.TabRules, raw(p.Rules), len(p.Rules))
	table(ruleset.TabMatches, raw(p.Matches), len(p.Matches))
	table(ruleset.TabDNAT, raw(p.DNAT), len(p.DNAT))
	table(ruleset.TabNames, raw(p.Names), len(p.Names))
	table(ruleset.TabUpstreams, raw(p.Upstreams), len(p.Upstreams))
	table(ruleset.TabResolvers, raw(p.Resolvers), len(p.Resolvers))
	table(ruleset.TabBlocked, raw(p.Blocked), len(p.Blocked))
	table(ruleset.TabPrivate, raw(p.Private), len(p.Private))
	table(ruleset.TabRoots, raw(p.Classifier.Roots), len(p.Classifier.Roots))
	table(ruleset.TabTrees, raw(p.Classifier.Trees), len(p.Classifier.Trees))
	table(ruleset.TabNodes, raw(p.Classifier.Nodes), len(p.Classifier.Nodes))
	table(ruleset.TabCells, raw(p.Classifier.Cells), len(p.Classifier.Cells))
	table(ruleset.TabEntries, raw(p.Classifier.Entries), len(p.Classifier.Entries))
	table(ruleset.TabStrings, p.Strings, len(p.Strings))
	copy(b, ruleset.Magic)
	le.PutUint32(b[ruleset.OffVersion:], ruleset.Version)
	le.PutUint32(b[ruleset.OffSize:], uint32(len(b)))
	copy(b[ruleset.OffPolicy:], p.Digest[:])
	sum := sha256.Sum256(b[ruleset.HeaderSize:])
	copy(b[ruleset.OffBody:], sum[:])
	return b
}

// raw returns the memory of a slice of pointer-free structs. The host that
// compiles is little-endian, as the machine that runs is; the structs have no
// padding that is not named (a test checks both).
func raw[T any](s []T) []byte {
	if len(s) == 0 {
		return nil
	}
	return unsafe.Slice((*byte)(unsafe.Pointer(&s[0])), uintptr(len(s))*unsafe.Sizeof(s[0]))
}
