package ruleset

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"strconv"
	"unsafe"

	"github.com/thurward/thurward/internal/shared/sha256"
	"github.com/thurward/thurward/internal/shared/verdict"
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
	maxStrings    = 1<<32 - 1
)

// Open checks a ruleset and returns a view of it. b must stay unchanged while
// the view is used, and begin at an address that is a multiple of 8.
//
// Everything that the data plane later relies on is checked here: sizes,
// offsets, indexes, enumerations.
func Open(b []byte) (*Policy, error) {
	le := binary.LittleEndian
	if len(b) < HeaderSize {
		return nil, errors.New("ruleset: " + strconv.Itoa(len(b)) + " bytes are too few for a header of " + strconv.Itoa(HeaderSize))
	}
	if uintptr(unsafe.Pointer(&b[0]))%8 != 0 {
		return nil, errors.New("ruleset: not aligned to 8 bytes")
	}
	if string(b[:8]) != Magic {
		return nil, errors.New("ruleset: wrong magic (not a policy, or a corrupted image)")
	}
	if v := le.Uint32(b[OffVersion:]); v != Version {
		return nil, errors.New("ruleset: layout version " + strconv.Itoa(int(v)) + ", this program reads version " + strconv.Itoa(Version) + " (build the image anew)")
	}
	if n := le.Uint32(b[OffSize:]); int(n) != len(b) {
		return nil, errors.New("ruleset: its header says " + strconv.Itoa(int(n)) + " bytes, there are " + strconv.Itoa(len(b)) + " (corrupted image)")
	}
	if got := sha256.Sum256(b[HeaderSize:]); string(got[:]) != string(b[OffBody:OffBody+32]) {
		return nil, errors.New("ruleset: digest mismatch: want sha256:" + hex.EncodeToString(b[OffBody:OffBody+32]) + ", got sha256:" + hex.EncodeToString(got[:]) + " (corrupted image)")
	}
	p := &Policy{}
	copy(p.Digest[:], b[OffPolicy:])
	settings, ok := table[Settings](b, TabSettings)
	if !ok || len(settings) != 1 {
		return nil, errors.New("ruleset: no settings")
	}
	p.Settings = settings[0]
	if !p.tables(b) {
		return nil, errors.New("ruleset: a table lies outside of it")
	}
	if err := p.check(); err != "" {
		return nil, errors.New("ruleset: " + err)
	}
	return p, nil
}

// limits says how many entries each table may have.
var limits = [NumTables]uint32{
	TabSettings:   1,
	TabInterfaces: MaxInterfaces,
	TabSNAT:       MaxRules,
	TabRules:      MaxRules,
	TabMatches:    MaxMatches,
	TabStrings:    maxStrings,
	TabDNAT:       MaxRules,
	TabNames:      MaxMatches,
	TabUpstreams:  MaxServers,
	TabResolvers:  MaxServers,
	TabBlocked:    MaxMatches,
	TabRoots:      MaxMatches + 1,
	TabTrees:      maxCells,
	TabNodes:      maxCells,
	TabCells:      maxCells,
	TabEntries:    maxCells,
	TabPrivate:    MaxMatches,
}

// tables finds the tables behind the settings. It reports false when one of
// them lies outside of the ruleset.
func (p *Policy) tables(b []byte) bool {
	c := &p.Classifier
	return find(b, TabInterfaces, &p.Interfaces) && find(b, TabSNAT, &p.SNAT) && find(b, TabDNAT, &p.DNAT) &&
		find(b, TabNames, &p.Names) && find(b, TabBlocked, &p.Blocked) && find(b, TabPrivate, &p.Private) &&
		find(b, TabUpstreams, &p.Upstreams) && find(b, TabResolvers, &p.Resolvers) &&
		find(b, TabRules, &p.Rules) && find(b, TabMatches, &p.Matches) && find(b, TabStrings, &p.Strings) &&
		find(b, TabRoots, &c.Roots) && find(b, TabTrees, &c.Trees) && find(b, TabNodes, &c.Nodes) &&
		find(b, TabCells, &c.Cells) && find(b, TabEntries, &c.Entries)
}

func find[T any](b []byte, i int, s *[]T) (ok bool) {
	*s, ok = table[T](b, i)
	return ok
}

// table returns table i of the ruleset.
func table[T any](b []byte, i int) ([]T, bool) {
	off := uint64(binary.LittleEndian.Uint32(b[OffTables+8*i:]))
	n := uint64(binary.LittleEndian.Uint32(b[OffTables+8*i+4:]))
	var t T
	size := uint64(unsafe.Sizeof(t))
	if n > uint64(limits[i]) || off < HeaderSize || off%16 != 0 || off > uint64(len(b)) || n*size > uint64(len(b))-off {
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
		if r.Mode > Shadow || r.Action < Accept || r.Action > Reject || r.SNI > 1 || r.Quiet > 1 || !p.text(r.ID) || !p.text(r.Name) {
			return "rule " + strconv.Itoa(i) + " is invalid"
		}
	}
	for i := range p.Matches {
		m := &p.Matches[i]
		if m.Rule >= uint32(len(p.Rules)) || m.Action != p.Rules[m.Rule].Action || m.Direction > verdict.Ingress || m.PortLo > m.PortHi || m.State > StateNew|StateEstablished || m.Name > uint32(len(p.Names)) {
			return "match " + strconv.Itoa(i) + " is invalid"
		}
	}
	if err := p.checkAddresses(); err != "" {
		return err
	}
	return p.Classifier.check(p)
}
