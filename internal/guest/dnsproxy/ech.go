package dnsproxy

import (
	"encoding/binary"

	"github.com/thurward/thurward/internal/guest/fqdn"
	"github.com/thurward/thurward/internal/shared/ruleset"
)

// Encrypted Client Hello: a service binding may have the key with which a client
// encrypts the server name (RFC 9849, the parameter ech of RFC 9848). A rule with
// sni: require refuses connections whose server name it cannot see, and a client
// that has the key does not retry without it. For names of such rules the key is
// therefore removed.

// keyFill is the parameter that replaces what is removed, so that the targets of
// compression pointers do not move: the last one for private use, which clients do
// not know and therefore ignore (RFC 9460 section 14.3).
const keyFill = 65534

// newSNINames returns the names of rules with sni: require.
func newSNINames(p *ruleset.Policy) (*fqdn.Patterns, error) {
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

// sniRequired reports whether a name of the chain is one of a rule with sni: require.
// _8443._https.example.com is a service of example.com (RFC 8552).
func (p *Proxy) sniRequired() bool {
	for i := range p.resp.nChain {
		name := p.resp.name(i)
		if p.sniNames.Has(name) {
			return true
		}
		for name[0] > 0 && name[1] == '_' {
			name = name[1+int(name[0]):]
		}
		if p.sniNames.Has(name) {
			return true
		}
	}
	return false
}

// removeECH removes the parameter ech from all service bindings of response m, whose
// records begin at off and are well formed. Bytes move only within the parameters of
// a record. If a record has keyFill or a higher key, its keys are out of order
// afterwards: the caller must scan again.
func (p *Proxy) removeECH(m []byte, off int) {
	n := int(be16(m[6:])) + int(be16(m[8:])) + int(be16(m[10:]))
	for range n {
		var r rr
		record(m, off, &r) // well formed
		off = r.end
		if r.class == classIN && (r.typ == typeSVCB || r.typ == typeHTTPS) {
			removeECHFrom(m, &r, p.buf[:0])
		}
	}
	m[3] &^= flagAD // the modified message was not validated
	p.c.ECHRemoved++
}

// removeECHFrom removes ech from record r. tmp must have room for its parameters.
func removeECHFrom(m []byte, r *rr, tmp []byte) {
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
	// At least the 4 bytes of ech's key and length are free.
	tmp = binary.BigEndian.AppendUint16(tmp, uint16(r.end-at-len(tmp)-2))
	clear(m[at+copy(m[at:], tmp) : r.end])
}

// appendMandatory appends the parameter mandatory with the keys v without ech, or
// nothing if there are no others.
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
