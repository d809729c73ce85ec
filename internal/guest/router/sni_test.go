package router

import (
	"crypto/tls"
	"net"
	"testing"

	"github.com/thurward/thurward/internal/guest/sni"
	"github.com/thurward/thurward/internal/shared/event"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

const cdn = "192.0.2.80"

// sniLab: github.com and *.githubusercontent.com on 443, by server name; what
// else is at the same address is not to be reached.
func sniLab(t testing.TB) *dnsLab {
	l := newDNSLab(t, func(p *ruleset.Policy) {
		named(p, 2, "github.com", "*.githubusercontent.com")
		p.Rules[2].SNI = 1
		named(p, 4, "plain.example")
	}, "accept egress tcp any -> any :443", established, "accept egress tcp any -> any :443")
	for _, n := range []string{"github.com", "evil.example", "raw.githubusercontent.com", "plain.example"} {
		l.resolve(host, n, "@ 300 IN A "+cdn)
	}
	return l
}

// clientHello is the first message for a server.
func clientHello(t testing.TB, server string) []byte {
	t.Helper()
	a, b := net.Pipe()
	defer b.Close()
	go func() {
		tls.Client(a, &tls.Config{ServerName: server, InsecureSkipVerify: server == ""}).Handshake() //nolint:errcheck // it is cut off
		a.Close()
	}()
	buf := make([]byte, 16<<10)
	n, err := b.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	return buf[:n]
}

// serverHello is the beginning of a server's answer that asks for nothing more.
var serverHello = append([]byte{22, 3, 3, 0, 90, 2, 0, 0, 86, 3, 3}, make([]byte, 84)...)

// says has a client with an open connection send data, and returns what crosses
// and what comes back.
func (l *dnsLab) says(sport uint16, seq uint32, data []byte) (across, back []*view) {
	p := tcpSeg(host, sport, cdn, 443, packet.ACK|packet.PSH, seq, 5001)
	p.data = data
	return l.put(lan, p)
}

// TestSNIDecides: the first message's server name must be one that the client
// has resolved to this address, and a rule's.
func TestSNIDecides(t *testing.T) {
	for server, want := range map[string]bool{
		"github.com": true, "GitHub.COM": true, "raw.githubusercontent.com": true, "evil.example": false, "unresolved.githubusercontent.com": false, "": false,
		"plain.example": true, // by another rule, which names it
	} {
		t.Run(server, func(t *testing.T) {
			l := sniLab(t)
			port := l.handshake(host, 5000, cdn, 443)
			h := clientHello(t, server)
			cut := len(h) / 2
			if across, back := l.says(5000, 1001, h[:cut]); len(across)+len(back) != 0 {
				t.Fatalf("half a message: %v crossed, %v came back", across, back)
			}
			decisions := l.e.c.Decisions
			l.says(5000, 1001, h[:cut]) // again, for want of an answer
			across, back := l.says(5000, 1001+uint32(cut), h[cut:])
			if want {
				if len(across) != 2 || len(back) != 0 || int(across[0].Payload)+int(across[1].Payload) != len(h) || across[0].Seq != 1001 || across[0].SrcPort != port {
					t.Fatalf("%v crossed, %v came back; drops %s", across, back, l.drops())
				}
				l.one(wan, tcpSeg(cdn, 443, ours, port, packet.ACK, 5001, 1001+uint32(len(h))))
				p := tcpSeg(host, 5000, cdn, 443, packet.ACK, 1001+uint32(len(h)), 5001)
				p.data = []byte("anything")
				l.one(lan, p)
				if l.e.c.ServerNamesAccepted != 1 || l.e.c.ServerNameRepeats != 1 || l.e.c.Decisions != decisions+1 {
					t.Fatalf("%+v", l.e.c)
				}
			} else {
				if len(across) != 1 || len(back) != 1 || across[0].Flags&packet.RST == 0 || back[0].Flags&packet.RST == 0 || across[0].Payload != 0 ||
					across[0].Seq != 1001 || back[0].Seq != 5001 || back[0].Ack != 1001+uint32(len(h)) {
					t.Fatalf("%v crossed, %v came back; drops %s", across, back, l.drops())
				}
				if e := l.eventOf(verdict.SNIRefused); e.Rule != 2 || e.Action != verdict.Drop {
					t.Fatalf("event %+v", e)
				}
				l.dropped(lan, tcpSeg(host, 5000, cdn, 443, packet.ACK, 1001, 5001), verdict.ConntrackInvalid)
			}
			l.invariants()
		})
	}
}

// eventOf returns the last event with a reason.
func (l *dnsLab) eventOf(why verdict.Reason) event.Record {
	l.t.Helper()
	for i := len(l.seen) - 1; i >= 0; i-- {
		if l.seen[i].Reason == why {
			return l.seen[i]
		}
	}
	l.t.Fatalf("no event with reason %v", why)
	panic("unreachable")
}

// TestSNIHolds: until the message is whole nothing of the client's passes,
// whatever the client and the server do.
func TestSNIHolds(t *testing.T) {
	t.Run("not TLS", func(t *testing.T) {
		l := sniLab(t)
		l.handshake(host, 5000, cdn, 443)
		if across, back := l.says(5000, 1001, []byte("GET / HTTP/1.1\r\n")); len(across) != 1 || across[0].Flags != packet.RST || len(back) != 1 {
			t.Fatalf("%v, %v", across, back)
		}
	})
	t.Run("data in the SYN", func(t *testing.T) {
		l := sniLab(t)
		p := tcpSeg(host, 5000, cdn, 443, packet.SYN, 1000, 0)
		p.data = []byte("early")
		l.dropped(lan, p, verdict.SNIRefused)
	})
	t.Run("not from the beginning", func(t *testing.T) {
		l := sniLab(t)
		l.handshake(host, 5000, cdn, 443)
		h := clientHello(t, "github.com")
		// A secret first, out of order, then a good message beyond it.
		if across, back := l.says(5000, 1001+6, h); len(across)+len(back) != 0 {
			t.Fatalf("%v, %v", across, back)
		}
		across, _ := l.says(5000, 1001, []byte("secret"))
		if len(across) != 1 || across[0].Flags != packet.RST {
			t.Fatalf("%v", across)
		}
	})
	t.Run("never whole", func(t *testing.T) {
		l := sniLab(t)
		l.handshake(host, 5000, cdn, 443)
		l.says(5000, 1001, clientHello(t, "github.com")[:100])
		l.pass(11)
		if out := l.taken(wan); len(out) != 1 || out[0].Flags != packet.RST {
			t.Fatalf("after its time: %v", out)
		}
		l.taken(lan)
		l.invariants()
	})
	t.Run("too many", func(t *testing.T) {
		l := sniLab(t)
		h := clientHello(t, "github.com")
		for i := range uint16(3 * sni.MaxIncomplete) {
			l.handshake(host, 5000+i, cdn, 443)
			l.says(5000+i, 1001, h[:50])
			l.pass(0.01)
			l.taken(wan)
			l.taken(lan)
		}
		if n, _ := l.e.sni.Len(); n != sni.MaxIncomplete {
			t.Fatalf("%d are held", n)
		}
		last := uint16(5000 + 3*sni.MaxIncomplete - 1)
		if across, _ := l.says(last, 1051, h[50:]); len(across) != 2 {
			t.Fatalf("the youngest has been given up: %v", across)
		}
		l.pass(40)
		l.taken(wan)
		l.taken(lan)
		if l.e.sni.Any() {
			t.Fatal("some are held for ever")
		}
		l.invariants()
	})
	t.Run("too long", func(t *testing.T) {
		l := sniLab(t)
		l.handshake(host, 5000, cdn, 443)
		seq := uint32(1001)
		b := append([]byte{22, 3, 1, 0x20, 0, 1, 0, 0x1f, 0xfc}, make([]byte, 400)...)
		ended := false
		for range sni.MaxSegments + 1 {
			across, _ := l.says(5000, seq, b)
			for _, v := range across {
				ended = ended || v.Flags == packet.RST
				if v.Payload > 0 {
					t.Fatal("some of it has passed")
				}
			}
			seq += uint32(len(b))
			b = make([]byte, 400)
		}
		if !ended {
			t.Fatal("held without end")
		}
		l.invariants()
	})
}

// TestSNIInFragments: a first message that comes in fragments is read whole; one
// that does not fit a buffer is dropped.
func TestSNIInFragments(t *testing.T) {
	l := sniLab(t)
	l.e.defrag = true
	l.handshake(host, 5000, cdn, 443)
	h := clientHello(t, "github.com")
	p := tcpSeg(host, 5000, cdn, 443, packet.ACK|packet.PSH, 1001, 5001)
	p.data = append(append([]byte(nil), h...), make([]byte, 3000)...)
	if got := l.feed(lan, fragments(p, lanMAC, 1500, 7)...); len(got) != 0 || l.e.c.DropReasons[verdict.FragmentedIPv4] == 0 {
		t.Fatalf("%v crossed; drops: %s", got, l.drops())
	}
	p.data = h
	if got := l.feed(lan, fragments(p, lanMAC, 300, 8)...); len(got) != 1 || int(got[0].Payload) != len(h) {
		t.Fatalf("%v crossed; drops: %s", got, l.drops())
	}
	l.invariants()
}
