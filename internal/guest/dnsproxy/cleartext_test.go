package dnsproxy

import (
	"slices"
	"testing"

	"github.com/miekg/dns"

	"github.com/thurward/thurward/internal/shared/packet"
)

// A watched transport fails the test if a query is sent to an upstream without TLS
// while one with TLS is up.
type watched struct {
	*bench
	inClear, overTLS int
}

func (w *watched) check(to packet.Addr) {
	w.t.Helper()
	w.inClear++
	for i := range w.p.up {
		u := &w.p.up[i]
		if u.tls && u.addr == to {
			w.t.Fatalf("upstream %d, which has TLS, is asked in the clear", i)
		}
		if u.tls && !u.down() {
			w.t.Fatalf("asked in the clear while upstream %d is up", i)
		}
	}
}

func (w *watched) SendUDP(to packet.Addr, port, from uint16, msg []byte) {
	w.check(to)
	w.bench.SendUDP(to, port, from, msg)
}

func (w *watched) SendTCP(up int, to packet.Addr, port uint16, tag uint32, msg []byte) bool {
	w.check(to)
	return w.bench.SendTCP(up, to, port, tag, msg)
}

func (w *watched) SendTLS(up int, msg []byte) bool {
	w.overTLS++
	return w.bench.SendTLS(up, msg)
}

// TestNothingInTheClear: whatever happens to upstreams, with and without TLS, no
// query is sent in the clear while one with TLS is up: neither first tries nor
// retries, nor over TCP, nor probes.
func TestNothingInTheClear(t *testing.T) {
	inClear, overTLS := 0, 0
	for seed := range 200 {
		b := overTLSBench(t, 1+seed%2, 1+seed/2%3)
		w := &watched{bench: b}
		b.p.cfg.Transport = w
		for range seed {
			b.rnd.Uint64()
		}
		for range 300 {
			b.sent, b.tcp, b.tls = last(b.sent, 8), last(b.tcp, 8), last(b.tls, 8)
			switch r := b.rnd.IntN(16); {
			case r < 4:
				b.ask(query("www.example", dns.TypeA))
			case r < 6:
				b.p.TLSLost(b.rnd.IntN(1+seed%2), r == 4, b.now)
			case r == 6:
				b.noTLS = !b.noTLS
			case r < 8 && len(b.tls) > 0:
				s := b.tls[b.rnd.IntN(len(b.tls))]
				b.p.TLSResponse(s.up, answerTo(s.msg), b.now)
			case r < 12 && len(b.sent) > 0:
				s := b.sent[b.rnd.IntN(len(b.sent))]
				m := answerTo(s.msg)
				switch b.rnd.IntN(6) {
				case 0:
					m[2] |= flagTC >> 8
				case 1:
					m[3] |= rcodeFormErr
				case 2:
					m[headerLen+1] ^= 0x20 // another case
				case 3:
					m[0]++ // a forgery
				case 4:
					b.p.Unreachable(s.myPort, b.now)
					continue
				}
				m[11] = 0
				m = m[:headerLen+len("\x03www\x07example\x00")+4]
				b.p.UDPResponse(s.to, s.toPort, s.myPort, m, b.now)
			case r == 12 && len(b.tcp) > 0:
				s := b.tcp[b.rnd.IntN(len(b.tcp))]
				b.p.TCPFailed(s.tag, b.now)
			case r == 13 && len(b.tcp) > 0:
				s := b.tcp[b.rnd.IntN(len(b.tcp))]
				b.p.TCPResponse(s.tag, answerTo(s.msg), b.now)
			default:
				b.now += int64(b.rnd.IntN(int(2 * second)))
				b.p.Tick(b.now)
			}
		}
		b.finishAll()
		inClear, overTLS = inClear+w.inClear, overTLS+w.overTLS
	}
	if inClear < 1000 || overTLS < 1000 {
		t.Fatalf("too little has happened: %d in the clear, %d over TLS", inClear, overTLS)
	}
}

// last returns the last n elements.
func last[T any](s []T, n int) []T { return slices.Clone(s[max(0, len(s)-n):]) }
