package dnsproxy

import (
	"github.com/thurward/thurward/internal/shared/packet"
)

const (
	maxLinks     = 16  // of an alias chain, with the asked name
	maxAliases   = 32  // CNAME records that are looked at
	maxAddresses = 128 // addresses that are bound of one answer
)

// An answer is what the proxy reads from an upstream's response.
type answer struct {
	rcode    int // with the extended bits
	tc       bool
	opt      bool
	body     int    // length up to the OPT record, or of the whole
	extra    uint16 // records of the additional section within body
	opts     []byte // options that pass
	aliases  [maxAliases]alias
	nAliases int
	more     bool // aliases, or targets of services, beyond those
	addrs    [maxAddresses]address
	nAddrs   int
	left     int // addresses beyond those
	links    [maxLinks][maxName]byte
	linkLen  [maxLinks]int
	nLinks   int
	optBuf   [256]byte
	name     [maxName]byte

	ech    bool // a service binding has the parameter
	signed bool // there is a signature of service bindings

	in          *inside
	core        int  // length up to the additional section
	insideFound bool // an address before the additional section is inside: insideAddr
	insideExtra bool // one in it is
	insideAddr  [16]byte
}

// An alias is a CNAME record: its owner and its target, by their offsets.
type alias struct{ owner, target int }

// An address is one that an answer tells: the owner of its record and, for a
// hint of a service binding, the target of the service (0: none). It opens
// something for the owner alone, who has published it; the target may be anybody.
type address struct {
	owner, target int
	addr          packet.Addr
	ttl           uint32
	opens         bool // it is of what was asked for
}

// scan reads response m, whose question ends at off, and reports whether it is
// well formed. Addresses that are inside are noted wherever they are; those that a
// client may use are taken from the answer section alone, and open
// something only in records of the type that was asked.
func (a *answer) scan(m []byte, off int, qtype, qclass uint16) bool {
	a.rcode, a.tc = int(be16(m[2:])&rcodeMask), be16(m[2:])&flagTC != 0
	a.opt, a.opts = false, a.optBuf[:0]
	a.nAliases, a.nAddrs, a.left, a.nLinks, a.more = 0, 0, 0, 0, false
	a.body, a.extra, a.core = off, 0, off
	a.insideFound, a.insideExtra, a.ech, a.signed = false, false, false, false
	an, ns, ar := int(be16(m[6:])), int(be16(m[8:])), int(be16(m[10:]))
	for i := range an + ns + ar {
		var r rr
		if !record(m, off, &r) || !a.wellFormed(m, &r) {
			return false
		}
		if r.typ == typeOPT {
			if a.opt || i < an+ns || m[r.owner] != 0 {
				return false
			}
			a.opt = true
			a.rcode |= int(r.ttl>>24) << 4
			var ok bool
			if a.opts, ok = options(m[r.data:r.end], passesDown, a.opts); !ok {
				return false
			}
		}
		if r.class == classIN {
			if !a.take(m, &r, qtype, i < an && qclass == classIN) {
				return false
			}
			a.lookInside(m, &r, i >= an+ns)
		}
		off = r.end
		if i < an+ns {
			a.core = off
		}
		if !a.opt { // what follows an OPT record is additional and can be done without
			a.body = off
			if i >= an+ns {
				a.extra++
			}
		}
	}
	return true
}

// take notes what record r says of addresses, if it is told: in the answer
// section, and of the class that was asked. It returns false when the record is
// malformed.
func (a *answer) take(m []byte, r *rr, qtype uint16, told bool) bool {
	switch r.typ {
	case typeCNAME:
		switch {
		case !told:
		case a.nAliases < maxAliases:
			a.aliases[a.nAliases] = alias{r.owner, r.data}
			a.nAliases++
		default:
			a.more = true
		}
	case typeA:
		if r.end-r.data != 4 {
			return false
		}
		if told && (qtype == typeA || qtype == typeANY) {
			a.addr(address{owner: r.owner, addr: packet.Addr(be32(m[r.data:])), ttl: r.ttl, opens: true})
		}
	case typeAAAA:
		return r.end-r.data == 16
	case typeSVCB, typeHTTPS:
		return a.service(m, r, qtype, told)
	case typeRRSIG: // well formed, so that it has the type that it covers
		covers := be16(m[r.data:])
		a.signed = a.signed || covers == typeSVCB || covers == typeHTTPS
	}
	return true
}

func (a *answer) addr(d address) {
	if a.nAddrs == maxAddresses {
		if d.opens {
			a.left++
		}
		a.more = a.more || d.target != 0
		return
	}
	a.addrs[a.nAddrs] = d
	a.nAddrs++
}

// Parameters of service bindings (RFC 9460 section 14.3.2).
const (
	keyMandatory = 0
	keyIPv4Hint  = 4
	keyECH       = 5
	keyIPv6Hint  = 6
)

// service reads a service binding (RFC 9460 section 2.2): priority, target,
// parameters in the order of their keys. Its hints are addresses; one without a
// priority is an alias, whose parameters are ignored (section 2.4.2).
func (a *answer) service(m []byte, r *rr, qtype uint16, told bool) bool {
	e, _ := skipName(m, r.data+2)
	opens := be16(m[r.data:]) != 0 && (qtype == uint16(r.typ) || qtype == typeANY)
	target := 0
	if m[r.data+2] != 0 {
		target = r.data + 2
	}
	last := -1
	for p := m[e:r.end]; len(p) > 0; {
		if len(p) < 4 || 4+int(be16(p[2:])) > len(p) || int(be16(p)) <= last {
			return false
		}
		last = int(be16(p))
		v := p[4 : 4+int(be16(p[2:]))]
		p = p[4+len(v):]
		a.ech = a.ech || last == keyECH
		switch {
		case last == keyIPv4Hint && (len(v) == 0 || len(v)%4 != 0), last == keyIPv6Hint && (len(v) == 0 || len(v)%16 != 0):
			return false
		case last != keyIPv4Hint || !told:
			continue
		}
		for ; len(v) > 0; v = v[4:] {
			a.addr(address{owner: r.owner, target: target, addr: packet.Addr(be32(v)), ttl: r.ttl, opens: opens})
		}
	}
	return true
}

// follow finds the chain of aliases that begins at the asked name: links, the
// last of which is the leaf. It returns false when the chain has no end.
func (a *answer) follow(m []byte, qname int) bool {
	var owner [maxName]byte
	a.linkLen[0] = expand(m, qname, &a.links[0])
	a.nLinks = 1
	for {
		cur := a.links[a.nLinks-1][:a.linkLen[a.nLinks-1]]
		next := -1
		for i := range a.aliases[:a.nAliases] {
			if n := expand(m, a.aliases[i].owner, &owner); string(owner[:n]) == string(cur) {
				next = i
				break
			}
		}
		if next < 0 {
			return true
		}
		if a.nLinks == maxLinks {
			return false
		}
		n := expand(m, a.aliases[next].target, &a.links[a.nLinks])
		if n == 0 {
			return false
		}
		a.linkLen[a.nLinks] = n
		a.nLinks++
	}
}

// leaf returns the last name of the chain, link the i-th.
func (a *answer) leaf() []byte      { return a.link(a.nLinks - 1) }
func (a *answer) link(i int) []byte { return a.links[i][:a.linkLen[i]] }
