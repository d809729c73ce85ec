package dnsproxy

import (
	"github.com/thurward/thurward/internal/shared/packet"
)

const (
	maxChain     = 16  // names of an alias chain, with the queried name
	maxAliases   = 32  // CNAME records of a response
	maxAddresses = 128 // addresses of a response
)

// A response is what the proxy needs of an upstream's response.
type response struct {
	rcode       int // with the bits of the OPT record
	tc          bool
	opt         bool
	body        int    // length up to the OPT record, or of the message
	extra       uint16 // records of the additional section within body
	opts        []byte // EDNS options for the client
	aliases     [maxAliases]alias
	nAliases    int
	moreTargets bool // there are more aliases, or targets of service bindings, than fit
	addrs       [maxAddresses]address
	nAddrs      int
	moreAddrs   int // number of addresses that did not fit
	chain       [maxChain][maxName]byte
	chainLen    [maxChain]int
	nChain      int
	optBuf      [256]byte
	nameBuf     [maxName]byte

	ech    bool // a service binding has the parameter ech
	signed bool // there is an RRSIG record of service bindings

	private      *privateNets
	beforeExtra  int  // length up to the additional section
	privateFound bool // a private address before the additional section: privateAddr
	privateExtra bool // a private address in the additional section
	privateAddr  [16]byte
}

// An alias is a CNAME record: the offsets of its owner and its target.
type alias struct{ owner, target int }

// An address is an address of a response: the offset of its record's owner and, for
// a hint of a service binding, that of the binding's target (0: none). It is bound
// to the owner only: the owner has published it, but may not own the target.
type address struct {
	owner, target int
	addr          packet.Addr
	ttl           uint32
	binds         bool // its record has the queried type
}

// scan parses response m, whose question ends at off, and reports whether it is well
// formed. Private addresses are noted in all sections. Addresses to bind are taken
// from the answer section only, from records of the queried type.
func (a *response) scan(m []byte, off int, qtype, qclass uint16) bool {
	a.rcode, a.tc = int(be16(m[2:])&rcodeMask), be16(m[2:])&flagTC != 0
	a.opt, a.opts = false, a.optBuf[:0]
	a.nAliases, a.nAddrs, a.moreAddrs, a.nChain, a.moreTargets = 0, 0, 0, 0, false
	a.body, a.extra, a.beforeExtra = off, 0, off
	a.privateFound, a.privateExtra, a.ech, a.signed = false, false, false, false
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
			if a.opts, ok = options(m[r.data:r.end], returnOption, a.opts); !ok {
				return false
			}
		}
		if r.class == classIN {
			if !a.scanRecord(m, &r, qtype, i < an && qclass == classIN) {
				return false
			}
			a.scanPrivate(m, &r, i >= an+ns)
		}
		off = r.end
		if i < an+ns {
			a.beforeExtra = off
		}
		if !a.opt { // records behind an OPT record are additional, and left out
			a.body = off
			if i >= an+ns {
				a.extra++
			}
		}
	}
	return true
}

// scanRecord notes the addresses and aliases of record r if it is in the answer
// section and of the queried class (inAnswer). It returns false if the record is
// malformed.
func (a *response) scanRecord(m []byte, r *rr, qtype uint16, inAnswer bool) bool {
	switch r.typ {
	case typeCNAME:
		switch {
		case !inAnswer:
		case a.nAliases < maxAliases:
			a.aliases[a.nAliases] = alias{r.owner, r.data}
			a.nAliases++
		default:
			a.moreTargets = true
		}
	case typeA:
		if r.end-r.data != 4 {
			return false
		}
		if inAnswer && (qtype == typeA || qtype == typeANY) {
			a.addAddr(address{owner: r.owner, addr: packet.Addr(be32(m[r.data:])), ttl: r.ttl, binds: true})
		}
	case typeAAAA:
		return r.end-r.data == 16
	case typeSVCB, typeHTTPS:
		return a.scanSVCB(m, r, qtype, inAnswer)
	case typeRRSIG: // well formed, so that the type covered is there
		covers := be16(m[r.data:])
		a.signed = a.signed || covers == typeSVCB || covers == typeHTTPS
	}
	return true
}

func (a *response) addAddr(d address) {
	if a.nAddrs == maxAddresses {
		if d.binds {
			a.moreAddrs++
		}
		a.moreTargets = a.moreTargets || d.target != 0
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

// scanSVCB parses a service binding (RFC 9460 section 2.2): priority, target, and
// parameters in ascending order of their keys. Its hints are addresses. One with
// priority 0 is an alias, whose parameters are ignored (section 2.4.2).
func (a *response) scanSVCB(m []byte, r *rr, qtype uint16, inAnswer bool) bool {
	e, _ := skipName(m, r.data+2)
	binds := be16(m[r.data:]) != 0 && (qtype == uint16(r.typ) || qtype == typeANY)
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
		case last != keyIPv4Hint || !inAnswer:
			continue
		}
		for ; len(v) > 0; v = v[4:] {
			a.addAddr(address{owner: r.owner, target: target, addr: packet.Addr(be32(v)), ttl: r.ttl, binds: binds})
		}
	}
	return true
}

// followChain sets chain to the names of the alias chain that begins with the name
// at offset qname. It returns false if the chain is too long or a loop.
func (a *response) followChain(m []byte, qname int) bool {
	var owner [maxName]byte
	a.chainLen[0] = expand(m, qname, &a.chain[0])
	a.nChain = 1
	for {
		cur := a.chain[a.nChain-1][:a.chainLen[a.nChain-1]]
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
		if a.nChain == maxChain {
			return false
		}
		n := expand(m, a.aliases[next].target, &a.chain[a.nChain])
		if n == 0 {
			return false
		}
		a.chainLen[a.nChain] = n
		a.nChain++
	}
}

// last returns the last name of the chain, name the i-th.
func (a *response) last() []byte      { return a.name(a.nChain - 1) }
func (a *response) name(i int) []byte { return a.chain[i][:a.chainLen[i]] }
