package replay

import (
	"encoding/binary"
	"strings"

	"github.com/thurward/thurward/internal/shared/packet"
)

// A pairing makes answers of name servers in a capture match the replayed firewall's
// own queries. The firewall sends queries with random ports and ids, so that it would
// not take answers to the queries of another firewall or another boot. Each answer
// gets port, id and spelling of the query for the same name to the same server.
type pairing struct {
	queries map[question][]asked
	n       int // queries that wait
	Paired  int // answers so far
}

// maxAsked is how many queries wait for an answer; then all are forgotten.
const maxAsked = 4096

type question struct {
	server packet.Addr
	name   string // lower case, with its length octets
	typ    uint32 // type and class
}

type asked struct {
	port, id uint16
	name     string // as the query spells it
}

// dns returns the DNS message in a frame, if it is a UDP datagram with one
// question from or to a server's port 53, and where the question's name ends.
func dns(f []byte) (p packet.Packet, m []byte, end int) {
	if packet.Type(f) != packet.TypeIPv4 {
		return p, nil, 0
	}
	n, why := packet.ParseIPv4(f, &p)
	if why != 0 || p.Class != packet.ClassUDP || p.SrcPort != 53 && p.DstPort != 53 {
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

// sent records a query that was sent to the WAN.
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

// answer changes an answer that was received from the WAN so that it matches the
// oldest query with the same question.
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
	a.Paired++
	binary.BigEndian.PutUint16(f[p.L4+2:], q.port)
	binary.BigEndian.PutUint16(m, q.id)
	copy(m[12:], q.name)
	fixChecksums(f)
}
