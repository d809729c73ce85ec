package router

import (
	"math/rand/v2"
	"testing"
	"unsafe"

	"github.com/thurward/thurward/internal/guest/conntrack"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
)

// begin has a client open a connection and say m; it returns
// the external port and what crossed.
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
	}{{"not whole", maxHellos / 2, false}, {"not answered", maxUnsettled / 2, true}} {
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
			if n := l.e.names.hellos.n; n[incomplete] > maxHellos || n[unsettled] > maxUnsettled {
				t.Fatalf("%v places are taken", n)
			}
			l.invariants()
			l.pass(60)
			if l.e.names.hellos.any() || l.e.names.hellos.held != 0 {
				t.Fatal("some are held for ever")
			}
			l.taken(lan)
			l.taken(wan)
			l.invariants()
		})
	}
}

// TestSNISlow: who sends the message byte by byte has the time for it that all
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
	if l.e.names.hellos.any() || l.e.flows.Len() != 0 {
		t.Fatal("it waits for ever")
	}
	l.invariants()
}

// TestHelloPlaces compares the places, and who has how many, with a plain count
// over a long run of random operations at full load.
func TestHelloPlaces(t *testing.T) {
	l := sniLab(t)
	r := rand.New(rand.NewPCG(1, 2))
	m := clientHello(t, "github.com")
	clients := []string{host, "10.0.0.3", "10.0.0.4", "10.0.0.5"}
	for _, c := range clients[1:] {
		l.resolve(c, "github.com", "@ 3000 IN A "+cdn)
	}
	hs := &l.e.names.hellos
	most := [2]int{}
	for i := range 3000 {
		c := clients[min(r.IntN(6), 3)]
		if n := r.IntN(20); n == 0 {
			l.pass(1)
		} else if n < 4 && l.e.flows.Len() > 0 {
			if d := l.e.flows.Dir(conntrack.Ref(r.IntN(l.e.flows.Len()) * 2)); d.State != 0 {
				l.e.flows.Remove(conntrack.Ref(0), conntrack.Closed)
			}
		} else {
			l.begin(c, uint16(1024+i), m[:[]int{50, len(m)}[r.IntN(2)]])
		}
		l.taken(lan)
		l.taken(wan)
		l.invariants()
		count := map[place]int{}
		n := [2]int{}
		for j := range hs.place {
			if p := hs.place[j]; p.flow != conntrack.None {
				n[p.kind]++
				count[place{source: p.source, kind: p.kind}]++
				if h := &hs.at[j]; h.flow != p.flow || h.passed != (p.kind == unsettled) || l.e.helloOf(p.flow) != h {
					t.Fatalf("place %d: %+v", j, p)
				}
			}
		}
		for j := range hs.place {
			if p := hs.place[j]; p.flow != conntrack.None && int(p.share) != count[place{source: p.source, kind: p.kind}] {
				t.Fatalf("place %d of %d: share %d, counted %d", j, n, p.share, count[place{source: p.source, kind: p.kind}])
			}
		}
		if n != hs.n || len(hs.free)+n[0]+n[1] != len(hs.at) {
			t.Fatalf("%v places counted, %v noted, %d free", n, hs.n, len(hs.free))
		}
		most[0], most[1] = max(most[0], n[0]), max(most[1], n[1])
	}
	if most != [2]int{maxHellos, maxUnsettled} {
		t.Errorf("at most %v places were taken", most)
	}
}

// TestHelloBytes: what the memory of the machine is measured by.
func TestHelloBytes(t *testing.T) {
	l := sniLab(t)
	hs := &l.e.names.hellos
	want := len(hs.at)*int(unsafe.Sizeof(hs.at[0])) + len(hs.place)*int(unsafe.Sizeof(hs.place[0])) + len(hs.free)
	if got := HelloBytes(l.policy); got != want || got > 2<<20 {
		t.Errorf("%d bytes, counted are %d", want, got)
	}
	if HelloBytes(&ruleset.Policy{Rules: make([]ruleset.Rule, 3)}) != 0 {
		t.Error("a policy without such rules needs places")
	}
}
