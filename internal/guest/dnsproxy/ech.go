package dnsproxy

import (
	"encoding/binary"

	"github.com/thurward/thurward/internal/guest/fqdn"
	"github.com/thurward/thurward/internal/shared/ruleset"
)

// Encrypted Client Hello: a service binding may tell the key with which a client
// hides the server's name (RFC 9849, the parameter ech of RFC 9848). A rule with
// sni: require refuses what it cannot see, and the client, which took the key from
// the answer, would not try without. So for names of such rules the key goes.

// keyFill is the parameter that takes the place of what goes, so that nothing
// moves to which a compression pointer leads: the last of those for private use,
// which clients do not know and therefore ignore (RFC 9460 section 14.3).
const keyFill = 65534

// newSeen returns the names of rules that must see the server's name.
func newSeen(p *ruleset.Policy) (*fqdn.Patterns, error) {
	var list []ruleset.Name
	taken := make([]bool, len(p.Names)+1)
	for i := range p.Matches {
		if m := &p.Matches[i]; m.Name != 0 && !taken[m.Name] && p.Rules[m.Rule].SNI != 0 {
			taken[m.Name] = true
			list = append(list, p.Names[m.Name-1])
		}
	}
	return fqdn.NewPatterns(p, list)
}

// mustSee reports whether a name of the chain is one of a rule with sni: require.
// _8443._https.example.com is a service of example.com (RFC 8552).
func (p *Proxy) mustSee() bool {
	if p.seen.Empty() {
		return false
	}
	for i := range p.a.nLinks {
		name := p.a.link(i)
		if p.seen.Has(name) {
			return true
		}
		for name[0] > 0 && name[1] == '_' {
			name = name[1+int(name[0]):]
		}
		if p.seen.Has(name) {
			return true
		}
	}
	return false
}

// hideECH removes the parameter ech from all service bindings of response m, whose
// records begin at off and are well formed. Nothing moves but within their
// parameters. It returns false when a record cannot be found. Where keyFill or what
// is above it is taken, the keys are out of order afterwards: the caller scans again.
func (p *Proxy) hideECH(m []byte, off int) bool {
	n := int(be16(m[6:])) + int(be16(m[8:])) + int(be16(m[10:]))
	for range n {
		var r rr
		if !record(m, off, &r) {
			return false
		}
		off = r.end
		if r.class == classIN && (r.typ == typeSVCB || r.typ == typeHTTPS) {
			hideIn(m, &r, p.buf[:0])
		}
	}
	m[3] &^= flagAD // what is changed is not what was validated
	p.c.ECHRemoved++
	return true
}

// hideIn removes ech from record r. tmp has room for its parameters.
func hideIn(m []byte, r *rr, tmp []byte) {
	at, _ := skipName(m, r.data+2)
	found := false
	for p := m[at:r.end]; len(p) > 0; {
		key, n := int(be16(p)), 4+int(be16(p[2:]))
		switch key {
		case keyECH:
			found = true
		case keyMandatory:
			tmp = appendMandatory(tmp, p[4:n])
		default:
			tmp = append(tmp, p[:n]...)
		}
		p = p[n:]
	}
	if !found {
		return
	}
	tmp = binary.BigEndian.AppendUint16(tmp, keyFill)
	tmp = binary.BigEndian.AppendUint16(tmp, uint16(r.end-at-len(tmp)-2)) // at least the 4 bytes of ech's own head are free
	clear(m[at+copy(m[at:], tmp) : r.end])
}

// appendMandatory appends the parameter mandatory with the keys v, without ech; and
// nothing when there is no other.
func appendMandatory(tmp, v []byte) []byte {
	head := len(tmp)
	tmp = append(tmp, 0, keyMandatory, 0, 0)
	for ; len(v) >= 2; v = v[2:] {
		if be16(v) != keyECH {
			tmp = append(tmp, v[:2]...)
		}
	}
	n := len(tmp) - head - 4
	if n == 0 {
		return tmp[:head]
	}
	binary.BigEndian.PutUint16(tmp[head+2:], uint16(n))
	return tmp
}
