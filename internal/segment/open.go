package segment

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"slices"
	"strconv"
	"unsafe"
)

// Limits that Open enforces; the compiler stays below them.
const (
	MaxRules      = 1 << 20
	MaxMatches    = 1 << 22
	MaxInterfaces = 16
	MaxFlows      = 4 << 20
	MinFlows      = 1 << 10
	MaxServers    = 64       // name servers of each kind
	MaxTLS        = 8        // upstreams with TLS: each has a goroutine and buffers
	MaxCA         = 64 << 10 // bytes of certificates for one of them
	MaxBindings   = 1 << 20
	maxCells      = 1 << 28 // of the classifier's tables
)

// Open checks a segment and returns a view of it. b must stay unchanged while
// the view is used, and begin at an address that is a multiple of 8.
//
// Everything that the data plane later relies on is checked here: sizes,
// offsets, indexes, enumerations.
func Open(b []byte) (*Policy, error) {
	le := binary.LittleEndian
	if len(b) < HeaderSize {
		return nil, errors.New("policy segment: " + strconv.Itoa(len(b)) + " bytes are too few for a header of " + strconv.Itoa(HeaderSize))
	}
	if uintptr(unsafe.Pointer(&b[0]))%8 != 0 {
		return nil, errors.New("policy segment: not aligned to 8 bytes")
	}
	if string(b[:8]) != Magic {
		return nil, errors.New("policy segment: wrong magic (not a policy, or a corrupted image)")
	}
	if v := le.Uint32(b[offVersion:]); v != Version {
		return nil, errors.New("policy segment: layout version " + strconv.Itoa(int(v)) + ", this program reads version " + strconv.Itoa(Version) + " (build the image anew)")
	}
	if n := le.Uint32(b[offSize:]); int(n) != len(b) {
		return nil, errors.New("policy segment: its header says " + strconv.Itoa(int(n)) + " bytes, there are " + strconv.Itoa(len(b)) + " (corrupted image)")
	}
	if got := sha256.Sum256(b[HeaderSize:]); string(got[:]) != string(b[offBody:offBody+32]) {
		return nil, errors.New("policy segment: digest mismatch: want sha256:" + hex.EncodeToString(b[offBody:offBody+32]) + ", got sha256:" + hex.EncodeToString(got[:]) + " (corrupted image)")
	}
	p := &Policy{}
	copy(p.Digest[:], b[offPolicy:])
	settings, ok := table[Settings](b, tabSettings, 1)
	if !ok || len(settings) != 1 {
		return nil, errors.New("policy segment: no settings")
	}
	p.Settings = settings[0]
	var in [16]bool
	p.Interfaces, in[0] = table[Interface](b, tabInterfaces, MaxInterfaces)
	p.SNAT, in[1] = table[SNAT](b, tabSNAT, MaxRules)
	p.Rules, in[2] = table[Rule](b, tabRules, MaxRules)
	p.Matches, in[3] = table[Match](b, tabMatches, MaxMatches)
	p.DNAT, in[5] = table[DNAT](b, tabDNAT, MaxRules)
	p.Names, in[6] = table[Name](b, tabNames, MaxMatches)
	p.Strings, in[4] = table[byte](b, tabStrings, len(b))
	p.Upstreams, in[7] = table[Upstream](b, tabUpstreams, MaxServers)
	p.Resolvers, in[8] = table[Resolver](b, tabResolvers, MaxServers)
	p.Blocked, in[9] = table[Name](b, tabBlocked, MaxMatches)
	p.Private, in[15] = table[Name](b, tabPrivate, MaxMatches)
	c := &p.Classifier
	c.Roots, in[10] = table[Root](b, tabRoots, MaxMatches+1)
	c.Trees, in[11] = table[Tree](b, tabTrees, maxCells)
	c.Nodes, in[12] = table[Node](b, tabNodes, maxCells)
	c.Cells, in[13] = table[Cell](b, tabCells, maxCells)
	c.Entries, in[14] = table[Entry](b, tabEntries, maxCells)
	if slices.Contains(in[:], false) {
		return nil, errors.New("policy segment: a table lies outside the segment")
	}
	if err := p.check(); err != "" {
		return nil, errors.New("policy segment: " + err)
	}
	return p, nil
}

// table returns table i of the segment, of at most limit entries.
func table[T any](b []byte, i, limit int) ([]T, bool) {
	off := uint64(binary.LittleEndian.Uint32(b[offTables+8*i:]))
	n := uint64(binary.LittleEndian.Uint32(b[offTables+8*i+4:]))
	var t T
	size := uint64(unsafe.Sizeof(t))
	if n > uint64(limit) || off < HeaderSize || off%16 != 0 || off > uint64(len(b)) || n*size > uint64(len(b))-off {
		return nil, false
	}
	if n == 0 {
		return nil, true
	}
	return unsafe.Slice((*T)(unsafe.Pointer(&b[off])), n), true
}

func (p *Policy) text(t Text) bool { return uint64(t.Off)+uint64(t.Len) <= uint64(len(p.Strings)) }

// check returns what is wrong with the tables' contents, or "".
func (p *Policy) check() string {
	s := &p.Settings
	if s.DefaultAction < Accept || s.DefaultAction > Reject {
		return "no default action"
	}
	if s.Fragments > FragmentsReassemble || s.Flags >= flagsEnd || s.DNSNames > MaxBindings {
		return "settings out of range"
	}
	if s.MaxFlows < MinFlows || s.MaxFlows > MaxFlows {
		return "capacity of the flow table out of range"
	}
	for i := range p.Interfaces {
		f := &p.Interfaces[i]
		if f.Role != LAN && f.Role != WAN || f.PrefixLen > 128 || f.HasMAC > 1 || !p.text(f.Name) {
			return "interface " + strconv.Itoa(i) + " is invalid"
		}
	}
	for i := range p.SNAT {
		n := &p.SNAT[i]
		if n.Interface >= uint32(len(p.Interfaces)) || n.PortLo == 0 || n.PortLo > n.PortHi {
			return "snat entry " + strconv.Itoa(i) + " is invalid"
		}
	}
	for i := range p.DNAT {
		d := &p.DNAT[i]
		if d.PortLo == 0 || d.PortLo > d.PortHi || d.ToPort == 0 || int(d.ToPort)+int(d.PortHi-d.PortLo) > 65535 || d.Hairpin > 1 || d.Proto != 6 && d.Proto != 17 {
			return "dnat entry " + strconv.Itoa(i) + " is invalid"
		}
	}
	for _, names := range [][]Name{p.Names, p.Blocked, p.Private} {
		for i := range names {
			n := &names[i]
			if !p.text(n.Text) || n.Text.Len == 0 || n.Text.Len > 253 || n.Wildcard > 1 {
				return "name " + strconv.Itoa(i) + " is invalid"
			}
		}
	}
	withTLS := 0
	for i := range p.Upstreams {
		u := &p.Upstreams[i]
		withTLS += int(u.TLS)
		if u.Port == 0 || u.TLS > 1 || !p.text(u.ServerName) || (u.ServerName.Len > 0) != (u.TLS == 1) || !p.text(u.CA) || u.CA.Len > MaxCA || withTLS > MaxTLS {
			return "upstream " + strconv.Itoa(i) + " is invalid"
		}
	}
	for i := range p.Rules {
		r := &p.Rules[i]
		if r.Mode > Shadow || r.Action < Accept || r.Action > Reject || r.SNI > 1 || !p.text(r.ID) || !p.text(r.Name) {
			return "rule " + strconv.Itoa(i) + " is invalid"
		}
	}
	for i := range p.Matches {
		m := &p.Matches[i]
		if m.Rule >= uint32(len(p.Rules)) || m.Action != p.Rules[m.Rule].Action || m.Direction > Ingress || m.PortLo > m.PortHi || m.State > StateNew|StateEstablished || m.Name > uint32(len(p.Names)) {
			return "match " + strconv.Itoa(i) + " is invalid"
		}
	}
	if err := p.checkAddresses(); err != "" {
		return err
	}
	return p.Classifier.check(p)
}
