package replay

import (
	"encoding/binary"
	"strings"

	"github.com/thurward/thurward/internal/shared/packet"
)

// The firewall asks its name servers from ports and with ids that nobody can
// guess, so the answers in a capture, which are to the queries of another
// firewall or another boot, would not be taken. A pairing gives each answer the
// port, the id and the spelling of the query about the same name that the
// replayed firewall has sent to the same server.
type pairing struct {
	queries map[question][]asked
	n       int // in queries
	Given   int // answers that were paired
}

// maxAsked bounds the queries that wait for an answer.
const maxAsked = 4096

type question struct {
	server packet.Addr
	name   string // lower case, with its length octets
	typ    uint32 // type and class
}

type asked struct {
	port, id uint16
	name     string // as it was asked
}

// dns returns the DNS message in a frame, if it is a UDP datagram with one
// question from or to a server's port 53, and where the question's name ends.
func dns(f []byte) (p packet.Packet, m []byte, end int) {
	if packet.Type(f) != packet.TypeIPv4 {
		return p, nil, 0
	}
	n, why := packet.ParseIPv4(f, &p)
	if why != 0 || p.Class != packet.Gram || p.SrcPort != 53 && p.DstPort != 53 {
		return p, nil, 0
	}
	m = f[int(p.L4)+packet.UDPLen : n]
	if len(m) < 12 || binary.BigEndian.Uint16(m[4:]) != 1 {
		return p, nil, 0
	}
	end = 12
	for end < len(m) && m[end] != 0 {
		if m[end] > 63 {
			return p, nil, 0
		}
		end += 1 + int(m[end])
	}
	end++
	if end+4 > len(m) || end-12 > 255 {
		return p, nil, 0
	}
	return p, m, end
}

func (a *pairing) key(server packet.Addr, m []byte, end int) question {
	return question{server, strings.ToLower(string(m[12:end])), binary.BigEndian.Uint32(m[end:])}
}

// sent notes a query that has left by the WAN.
func (a *pairing) sent(f []byte) {
	p, m, end := dns(f)
	if m == nil || p.DstPort != 53 || m[2]&0x80 != 0 {
		return
	}
	if a.n >= maxAsked || a.queries == nil {
		a.queries, a.n = map[question][]asked{}, 0
	}
	k := a.key(p.Dst, m, end)
	a.queries[k] = append(a.queries[k], asked{p.SrcPort, binary.BigEndian.Uint16(m), string(m[12:end])})
	a.n++
}

// answer makes an answer that has come by the WAN one to the oldest query that
// fits; f is changed.
func (a *pairing) answer(f []byte) {
	p, m, end := dns(f)
	if m == nil || p.SrcPort != 53 || m[2]&0x80 == 0 {
		return
	}
	k := a.key(p.Src, m, end)
	qs := a.queries[k]
	if len(qs) == 0 {
		return
	}
	q := qs[0]
	if a.queries[k] = qs[1:]; len(qs) == 1 {
		delete(a.queries, k)
	}
	a.n--
	a.Given++
	binary.BigEndian.PutUint16(f[p.L4+2:], q.port)
	binary.BigEndian.PutUint16(m, q.id)
	copy(m[12:], q.name)
	fixChecksums(f)
}
