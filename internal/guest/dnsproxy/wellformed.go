package dnsproxy

// Types whose RDATA contains names (RFC 1035 section 3.3, RFC 3597 section 4, and
// later ones).
const (
	typeNS       = 2
	typeMD       = 3
	typeMF       = 4
	typeSOA      = 6
	typeMB       = 7
	typeMG       = 8
	typeMR       = 9
	typePTR      = 12
	typeMINFO    = 14
	typeMX       = 15
	typeRP       = 17
	typeAFSDB    = 18
	typeRT       = 21
	typeNSAPPTR  = 23
	typeSIG      = 24
	typePX       = 26
	typeAAAA     = 28
	typeNXT      = 30
	typeSRV      = 33
	typeNAPTR    = 35
	typeKX       = 36
	typeA6       = 38
	typeDNAME    = 39
	typeIPSECKEY = 45
	typeRRSIG    = 46
	typeNSEC     = 47
	typeHIP      = 55
	typeTALINK   = 58
	typeDSYNC    = 66
	typeLP       = 107
	typeTKEY     = 249
	typeTSIG     = 250
	typeAMTRELAY = 260

	classCH = 3
)

// rest, instead of a number, means all up to the end of the RDATA.
const rest = -1

// namesOf returns the layout of RDATA d of a type: a number of bytes, a number of
// names, and a number of bytes behind them. ok is false if d is too short to tell.
// Names that must not be compressed are included: not all readers know that.
func namesOf(typ, class int, d []byte) (before, names, after int, ok bool) {
	switch typ {
	case typeNS, typeMD, typeMF, typeCNAME, typeMB, typeMG, typeMR, typePTR, typeNSAPPTR, typeDNAME:
		return 0, 1, 0, true
	case typeSOA:
		return 0, 2, 20, true
	case typeMINFO, typeRP, typeTALINK:
		return 0, 2, 0, true
	case typeMX, typeAFSDB, typeRT, typeKX, typeLP:
		return 2, 1, 0, true
	case typePX:
		return 2, 2, 0, true
	case typeSRV:
		return 6, 1, 0, true
	case typeSIG, typeRRSIG:
		return 18, 1, rest, true
	case typeNXT, typeNSEC, typeTKEY, typeTSIG:
		return 0, 1, rest, true
	case typeSVCB, typeHTTPS:
		return 2, 1, rest, true
	case typeDSYNC:
		return 5, 1, 0, true
	case typeNAPTR: // RFC 3403 section 4.1: three strings before the name
		n := 4
		for range 3 {
			if n >= len(d) {
				return
			}
			n += 1 + int(d[n])
		}
		return n, 1, 0, true
	case typeA6: // RFC 2874 section 3.1: without a prefix there is no name
		if len(d) == 0 || d[0] > 128 {
			return
		}
		return 1 + (128-int(d[0])+7)/8, min(int(d[0]), 1), 0, true
	case typeIPSECKEY: // RFC 4025 section 2.1: a gateway of type 3 is a name
		if len(d) < 3 {
			return
		}
		if d[1] == 3 {
			return 3, 1, rest, true
		}
	case typeAMTRELAY: // RFC 8777 section 4.3.1, likewise
		if len(d) < 2 {
			return
		}
		if d[1]&0x7f == 3 {
			return 2, 1, 0, true
		}
	case typeHIP: // RFC 8005 section 5: names up to the end
		if len(d) < 4 {
			return
		}
		return 4 + int(d[0]) + int(be16(d[2:])), rest, 0, true
	case typeA:
		if class == classCH { // RFC 1034 section 3.6
			return 0, 1, 2, true
		}
	}
	return 0, 0, rest, true
}

// wellFormed reports whether all names of record r are valid, and the length of its
// RDATA fits them. Other records are not relayed: resolvers have looped and crashed
// on such.
func (a *response) wellFormed(m []byte, r *rr) bool {
	if expand(m, r.owner, &a.nameBuf) == 0 {
		return false
	}
	before, names, after, ok := namesOf(r.typ, r.class, m[r.data:r.end])
	at := r.data + before
	if !ok {
		return false
	}
	for ; names > 0 || names == rest && at < r.end; names = max(names-1, rest) {
		e, ok := skipName(m[:r.end], at)
		if !ok || expand(m, at, &a.nameBuf) == 0 {
			return false
		}
		at = e
	}
	return after == rest || at+after == r.end
}
