package dnsproxy

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"github.com/thurward/thurward/internal/guest/fqdn"
	"github.com/thurward/thurward/internal/shared/packet"
)

// A bench is a proxy whose transport is the test.
type bench struct {
	t       testing.TB
	p       *Proxy
	set     *fqdn.Set
	now     int64
	sent    []sent // to upstreams
	tcp     []sent
	dropped []uint32
	got     [][]byte // by clients
	done    []Result
	ports   map[uint16]bool
	rnd     *rand.Rand
	noTCP   bool
	noTLS   bool
	// refusesTLS is upstreams that accept nothing over TLS, as bits; refused is how often.
	refusesTLS, refused uint64
	tls                 []overTLS
	atGot               func()
	code                byte // of the responses that through makes
}

type sent struct {
	to             packet.Addr
	toPort, myPort uint16
	tag            uint32
	msg            []byte
}

// An overTLS is a query sent over the connection to an upstream.
type overTLS struct {
	up  int
	msg []byte
}

func (b *bench) SendUDP(to packet.Addr, toPort, from uint16, msg []byte) {
	b.sent = append(b.sent, sent{to, toPort, from, 0, bytes.Clone(msg)})
}

func (b *bench) SendTLS(up int, msg []byte) bool {
	if b.noTLS || b.refusesTLS>>up&1 != 0 {
		b.refused++
		return false
	}
	b.tls = append(b.tls, overTLS{up, bytes.Clone(msg)})
	return true
}

func (b *bench) SendTCP(_ int, to packet.Addr, port uint16, tag uint32, msg []byte) bool {
	b.tcp = append(b.tcp, sent{to, port, 0, tag, bytes.Clone(msg)})
	return !b.noTCP
}

func (b *bench) CancelTCP(tag uint32) { b.dropped = append(b.dropped, tag) }

func (b *bench) Reply(_ *Client, msg []byte) {
	b.got = append(b.got, bytes.Clone(msg))
	if b.atGot != nil {
		b.atGot()
	}
}

func (b *bench) AllocPort() (uint16, bool) {
	for {
		if p := uint16(b.rnd.Uint32()); p >= 1024 && !b.ports[p] {
			b.ports[p] = true
			return p, true
		}
	}
}

func (b *bench) FreePort(p uint16) {
	if !b.ports[p] {
		b.t.Fatalf("port %d was given twice", p)
	}
	delete(b.ports, p)
}

func (b *bench) Random() uint64 { return b.rnd.Uint64() }

func (b *bench) QueryDone(d *Result) {
	c := *d
	c.Name = bytes.Clone(d.Name)
	b.done = append(b.done, c)
}
