package router

import (
	"testing"

	"github.com/thurward/thurward/internal/guest/sni"
	"github.com/thurward/thurward/internal/shared/packet"
)

// begin has a client open a connection and send m; it returns the external port and what
// crossed.
func (l *dnsLab) begin(client string, sport uint16, m []byte) (ext uint16, across []*view) {
	l.t.Helper()
	ext = l.handshake(client, sport, cdn, 443)
	p := tcpSeg(client, sport, cdn, 443, packet.ACK, 1001, 5001)
	p.data = m
	across, _ = l.put(lan, p)
	return ext, across
}

// TestSNIShares: a client that opens connections without end, and says the
// beginning of a message, or a whole one that the server never answers, takes the
// places from himself. A second one has all that it needs, up to half of them.
func TestSNIShares(t *testing.T) {
	const other = "10.0.0.3"
	for _, c := range []struct {
		what  string
		need  int
		whole bool
	}{{"not whole", sni.MaxIncomplete / 2, false}, {"not answered", sni.MaxUnanswered / 2, true}} {
		t.Run(c.what, func(t *testing.T) {
			l := sniLab(t)
			l.resolve(other, "github.com", "@ 3000 IN A "+cdn)
			m := clientHello(t, "github.com")
			said := m[:50]
			if c.whole {
				said = m
			}
			flood := func(from, to int) {
				for i := from; i < to; i++ {
					l.begin(host, uint16(1024+i), said)
					l.taken(lan)
				}
			}
			flood(0, 300)
			exts := make([]uint16, c.need)
			for i := range exts {
				exts[i], _ = l.begin(other, uint16(2000+i), said)
				flood(300+3*i, 303+3*i)
			}
			flood(300+3*c.need, 900+3*c.need)
			l.taken(wan)
			// Everything that the other has begun comes to its end.
			for i, ext := range exts {
				p := tcpSeg(other, uint16(2000+i), cdn, 443, packet.ACK, 1001+uint32(len(said)), 5001)
				if p.data = m[len(said):]; !c.whole {
					if across, _ := l.put(lan, p); len(across) != 2 {
						t.Fatalf("connection %d of %d: %v", i, c.need, across)
					}
				}
				a := tcpSeg(cdn, 443, ours, ext, packet.ACK, 5001, 1001+uint32(len(m)))
				a.data = serverHello
				l.one(wan, a)
				p.seq, p.data = 1001+uint32(len(m)), []byte("finished")
				l.one(lan, p)
			}
			if reading, waiting := l.e.sni.Len(); reading > sni.MaxIncomplete || waiting > sni.MaxUnanswered {
				t.Fatalf("%d and %d messages", reading, waiting)
			}
			l.invariants()
			l.pass(60)
			if l.e.sni.Any() || l.e.sni.Segments() != 0 {
				t.Fatal("some are held for ever")
			}
			l.taken(lan)
			l.taken(wan)
			l.invariants()
		})
	}
}

// TestSNISlow: a client that sends the message byte by byte has the time for it that all
// have, and no more.
func TestSNISlow(t *testing.T) {
	l := sniLab(t)
	m := clientHello(t, "github.com")
	l.begin(host, 5000, m[:1])
	for i := range 12 {
		l.pass(1)
		p := tcpSeg(host, 5000, cdn, 443, packet.ACK, 1001+uint32(i%3), 5001)
		p.data = m[i%3 : i%3+1]
		l.put(lan, p)
	}
	if l.e.sni.Any() || l.e.flows.Len() != 0 {
		t.Fatal("it waits for ever")
	}
	l.invariants()
}
