package ruleset

import (
	"crypto/sha256"
	"encoding/binary"
	"unsafe"
)

// Layout of the header. All numbers are little-endian.
//
//	 0  magic
//	 8  version       u32
//	12  size          u32   of the whole segment
//	16  policy digest [32]  SHA-256 of rules.yaml
//	48  body digest   [32]  SHA-256 of everything behind the header
//	80  tables        numTables x {offset u32, count u32}
const (
	offVersion = 8
	offSize    = 12
	offPolicy  = 16
	offBody    = 48
	offTables  = 80
)

// The tables, in the order of the header.
const (
	tabSettings = iota
	tabInterfaces
	tabSNAT
	tabRules
	tabMatches
	tabStrings
	tabDNAT
	tabNames
	tabUpstreams
	tabResolvers
	tabBlocked
	tabRoots
	tabTrees
	tabNodes
	tabCells
	tabEntries
	tabPrivate
	numTables
)

// Encode writes a policy as a segment. The same policy always gives the same
// bytes.
func Encode(p *Policy) []byte {
	b := make([]byte, HeaderSize)
	le := binary.LittleEndian
	table := func(i int, data []byte, count int) {
		for len(b)%16 != 0 {
			b = append(b, 0)
		}
		le.PutUint32(b[offTables+8*i:], uint32(len(b)))
		le.PutUint32(b[offTables+8*i+4:], uint32(count))
		b = append(b, data...)
	}
	table(tabSettings, raw([]Settings{p.Settings}), 1)
	table(tabInterfaces, raw(p.Interfaces), len(p.Interfaces))
	table(tabSNAT, raw(p.SNAT), len(p.SNAT))
	table(tabRules, raw(p.Rules), len(p.Rules))
	table(tabMatches, raw(p.Matches), len(p.Matches))
	table(tabDNAT, raw(p.DNAT), len(p.DNAT))
	table(tabNames, raw(p.Names), len(p.Names))
	table(tabUpstreams, raw(p.Upstreams), len(p.Upstreams))
	table(tabResolvers, raw(p.Resolvers), len(p.Resolvers))
	table(tabBlocked, raw(p.Blocked), len(p.Blocked))
	table(tabPrivate, raw(p.Private), len(p.Private))
	table(tabRoots, raw(p.Classifier.Roots), len(p.Classifier.Roots))
	table(tabTrees, raw(p.Classifier.Trees), len(p.Classifier.Trees))
	table(tabNodes, raw(p.Classifier.Nodes), len(p.Classifier.Nodes))
	table(tabCells, raw(p.Classifier.Cells), len(p.Classifier.Cells))
	table(tabEntries, raw(p.Classifier.Entries), len(p.Classifier.Entries))
	table(tabStrings, p.Strings, len(p.Strings))
	copy(b, Magic)
	le.PutUint32(b[offVersion:], Version)
	le.PutUint32(b[offSize:], uint32(len(b)))
	copy(b[offPolicy:], p.Digest[:])
	sum := sha256.Sum256(b[HeaderSize:])
	copy(b[offBody:], sum[:])
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
