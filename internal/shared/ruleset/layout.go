package ruleset

// Layout of the header. All numbers are little-endian. The tables follow the
// header, each at an offset that is a multiple of 16.
//
//	 0  magic
//	 8  version       u32
//	12  size          u32   of the whole ruleset
//	16  policy digest [32]  SHA-256 of rules.yaml
//	48  body digest   [32]  SHA-256 of everything behind the header
//	80  tables        NumTables x {offset u32, count u32}
//
// Offsets of the header's fields. The tables' offsets and counts are OffTables+8*i
// and OffTables+8*i+4.
const (
	OffVersion = 8
	OffSize    = 12
	OffPolicy  = 16
	OffBody    = 48
	OffTables  = 80
)

// Indexes of the tables in the header.
const (
	TabSettings = iota
	TabInterfaces
	TabSNAT
	TabRules
	TabMatches
	TabStrings
	TabDNAT
	TabNames
	TabUpstreams
	TabResolvers
	TabBlocked
	TabRoots
	TabTrees
	TabNodes
	TabCells
	TabEntries
	TabPrivate
	NumTables
)
