package ruleset

import "github.com/thurward/thurward/internal/shared/verdict"

// The classifier's tables: decision trees over the matches. The host's compiler
// (package compile) builds them, and package filter reads them in the firewall;
// docs/classifier.md says how. They hold nothing that Matches does not say.

// MaxLevel bounds the depth of a decision tree, MaxTrees the trees of a root.
const (
	MaxLevel = 15
	MaxTrees = 8
)

// The fields that a Node can look at.
const (
	FieldSrc = iota
	FieldDst
	FieldPort // destination port
	FieldKind // protocol, direction and state together, see KindField
	NumFields
)

// A Key is what nodes look at of a packet, by field.
type Key [NumFields]uint32

// NumKinds is the number of values of FieldKind: 4 classes of protocols, 2
// directions, 2 states.
const NumKinds = 16

// KindField returns the value of FieldKind: the protocol's class in bits 0 and 1
// (TCP, UDP, ICMP, any other), bit 2 for ingress, bit 3 for StateEstablished.
func KindField(proto uint8, d verdict.Direction, state uint8) uint32 {
	k := uint32(3)
	switch proto {
	case 6:
		k = 0
	case 17:
		k = 1
	case 1:
		k = 2
	}
	if d == verdict.Ingress {
		k |= 4
	}
	if state == StateEstablished {
		k |= 8
	}
	return k
}

// LeafBit marks a Cell or Tree that leads to a leaf: the other bits are the
// index of its first Entry. An index beyond the table is an empty leaf.
const LeafBit = 1 << 31

// EmptyLeaf leads to a leaf without entries.
const EmptyLeaf = ^uint32(0)

// Last marks the last Entry of a leaf.
const Last = 1 << 31

// A Root says where the matches of one name pattern are looked up: Roots[0]
// those without a condition on the name, Roots[1+i] those on Names[i].
// Enforced rules and shadow rules have trees of their own, in order of the
// first match that each contains.
type Root struct {
	Tree, Trees             uint32 // index of the first, number
	ShadowTree, ShadowTrees uint32
}

// A Tree is a decision tree over some of a root's matches.
type Tree struct {
	First uint32 // smallest index of a match in it
	Ref   uint32 // index of a Node, or a leaf with LeafBit
}

// A Node cuts the range of one field into equal parts. The part of a value v
// is (v-Base)>>Shift, in 32 bits; all parts from Parts on are one.
type Node struct {
	Base  uint32
	Parts uint32
	Cell  uint32 // index of the first of Parts+1 cells
	Field uint8
	Shift uint8
	Level uint8 // larger than that of every node that its cells lead to
	_     uint8
}

// A Cell leads to a Node, or with LeafBit to a leaf.
type Cell uint32

// An Entry is a Match in the form in which it is compared. Addresses are
// numbers of the data plane's family. Kind is Proto, Direction<<8, State<<10;
// the packet's, masked, must equal it.
type Entry struct {
	Src, Dst         uint32
	SrcMask, DstMask uint32
	Kind, KindMask   uint16
	Port, PortSpan   uint16 // port-Port, in 16 bits, must not exceed PortSpan
	Match            uint32 // index into Matches; Last
	Rule             uint32 // index into Rules, and the Action<<ActionShift
}

// ActionShift is the place of the action in Entry.Rule.
const ActionShift = 24

// EntryKind returns a packet's protocol, direction and state as Entry.Kind has
// them.
func EntryKind(proto uint8, d verdict.Direction, state uint8) uint16 {
	return uint16(proto) | uint16(d)<<8 | uint16(state)<<10
}

// Matches reports whether a packet matches an entry. kind is the packet's
// EntryKind; FieldKind of the key is not looked at.
func (e *Entry) Matches(k *Key, kind uint16) bool {
	return (k[FieldSrc]&e.SrcMask^e.Src)|(k[FieldDst]&e.DstMask^e.Dst)|uint32(kind&e.KindMask^e.Kind) == 0 && uint16(k[FieldPort])-e.Port <= e.PortSpan
}

// A Classifier is the tables together.
type Classifier struct {
	Roots   []Root
	Trees   []Tree
	Nodes   []Node
	Cells   []Cell
	Entries []Entry
}

// Bytes returns how much memory the tables take.
func (c *Classifier) Bytes() int {
	return 16*len(c.Roots) + 8*len(c.Trees) + 16*len(c.Nodes) + 4*len(c.Cells) + 32*len(c.Entries)
}

// Longest returns the number of entries of the longest leaf.
func (c *Classifier) Longest() (n int) {
	run := 0
	for i := range c.Entries {
		run++
		if c.Entries[i].Match&Last != 0 {
			n, run = max(n, run), 0
		}
	}
	return n
}

// check returns what is wrong with the tables, or "". Nothing in them can lead
// outside a table or in a circle.
func (c *Classifier) check(p *Policy) string {
	if len(c.Roots) == 0 && len(p.Matches) == 0 && len(c.Trees)+len(c.Nodes)+len(c.Cells)+len(c.Entries) == 0 {
		return ""
	}
	if len(c.Roots) != len(p.Names)+1 {
		return "the classifier has no root for each name"
	}
	inTrees := func(first, n uint32) bool { return n <= MaxTrees && uint64(first)+uint64(n) <= uint64(len(c.Trees)) }
	for i := range c.Roots {
		if r := &c.Roots[i]; !inTrees(r.Tree, r.Trees) || !inTrees(r.ShadowTree, r.ShadowTrees) {
			return "a root of the classifier is invalid"
		}
	}
	for i := range c.Trees {
		if t := &c.Trees[i]; t.Ref&LeafBit == 0 && t.Ref >= uint32(len(c.Nodes)) {
			return "a tree of the classifier is invalid"
		}
	}
	// The nodes' cells follow each other, so that looking at all of them is
	// one pass.
	next := uint64(0)
	for i := range c.Nodes {
		n := &c.Nodes[i]
		if n.Field >= NumFields || n.Shift > 31 || n.Level > MaxLevel || uint64(n.Cell) != next || uint64(n.Cell)+uint64(n.Parts)+1 > uint64(len(c.Cells)) {
			return "a node of the classifier is invalid"
		}
		next = uint64(n.Cell) + uint64(n.Parts) + 1
		for _, v := range c.Cells[n.Cell:next] {
			if v&LeafBit == 0 && (v >= Cell(len(c.Nodes)) || c.Nodes[v].Level >= n.Level) {
				return "a cell of the classifier is invalid"
			}
		}
	}
	for i := range c.Entries {
		e := &c.Entries[i]
		m := e.Match &^ Last
		if m >= uint32(len(p.Matches)) || p.Matches[m].Rule != e.Rule&(1<<ActionShift-1) || uint32(p.Matches[m].Action) != e.Rule>>ActionShift {
			return "an entry of the classifier is invalid"
		}
	}
	return ""
}
