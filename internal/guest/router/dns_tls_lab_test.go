package router

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"io"
	"math/big"
	"net"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"

	"github.com/thurward/thurward/internal/guest/dot/tlspipe"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
)

const (
	dotName = "dns.example"
	dotPort = 853
	other   = "198.51.100.54"
)

// certTime is when the certificates of the tests are looked at.
var certTime = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)

// An authority signs certificates of servers.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, NotBefore: certTime.AddDate(-1, 0, 0), NotAfter: certTime.AddDate(1, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	c, _ = x509.ParseCertificate(der)
	return &authority{c, key}
}

// sign makes a certificate for a name that ends so many days from certTime.
func (a *authority) sign(t testing.TB, name string, days int) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}, NotBefore: certTime.AddDate(0, -6, 0), NotAfter: certTime.AddDate(0, 0, days),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	der, err := x509.CreateCertificate(rand.Reader, c, a.cert, &key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// A tlsLab is a lab whose upstream has TLS. The goroutines of the firewall and of the
// server run in a bubble of testing/synctest: the test waits for them to come to rest, and
// time is the lab's.
type tlsLab struct {
	*dnsLab
	ca    *authority
	conns []*stream // of the server, in order
	serve func(c net.Conn)
	// deaf: segments for the server get lost.
	deaf    bool
	refused []string // what tlspipe says of certificates, for the console
	// slow: at most so many bytes of the server arrive in one go; 0: all.
	slow int
}

// inBubble runs a test with a lab whose server is serve.
func inBubble(t *testing.T, edit func(p *ruleset.Policy), test func(l *tlsLab)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		l := newTLSLab(t, edit)
		defer func() {
			for _, k := range l.e.host.Links() {
				k.Pipe.Stop()
			}
			for _, c := range l.conns {
				c.Close()
				c.end()
			}
		}()
		test(l)
	})
}

func newTLSLab(t testing.TB, edit func(p *ruleset.Policy)) *tlsLab {
	l := &tlsLab{ca: newAuthority(t)}
	l.dnsLab = githubLab(t, func(p *ruleset.Policy) {
		p.Upstreams = []ruleset.Upstream{{Address: ip(upstreamAddr).To16(), Port: dotPort, TLS: 1, ServerName: nameOf(p, dotName).Text}}
		if edit != nil {
			edit(p)
		}
	})
	roots := x509.NewCertPool()
	roots.AddCert(l.ca.cert)
	for _, k := range l.e.host.Links() {
		go tlspipe.Run(k.Pipe, tlspipe.Config{Name: l.policy.Text(l.policy.Upstreams[k.Up].ServerName), Roots: func() (*x509.CertPool, error) { return roots, nil },
			Time: func() time.Time { return certTime }, Yield: func() {},
			Refused: func(why string) { l.refused = append(l.refused, why) }})
	}
	l.serve = l.tls(l.ca.sign(t, dotName, 30), one(github))
	return l
}

// one answers every query with an address.
func one(addr string) func(q *dns.Msg) []*dns.Msg {
	return func(q *dns.Msg) []*dns.Msg { return []*dns.Msg{reply(q, "@ 60 IN A "+addr)} }
}

// tls is a server with a certificate, whose answers a test determines.
func (l *tlsLab) tls(cert tls.Certificate, answer func(q *dns.Msg) []*dns.Msg) func(net.Conn) {
	return func(raw net.Conn) {
		c := tls.Server(raw, &tls.Config{Certificates: []tls.Certificate{cert}})
		defer c.Close()
		for {
			q, err := readMessage(c)
			if err != nil {
				return
			}
			for _, r := range answer(q) {
				if _, err := c.Write(framed(r)); err != nil {
					return
				}
			}
		}
	}
}

func readMessage(c io.Reader) (*dns.Msg, error) {
	var n [2]byte
	if _, err := io.ReadFull(c, n[:]); err != nil {
		return nil, err
	}
	b := make([]byte, binary.BigEndian.Uint16(n[:]))
	if _, err := io.ReadFull(c, b); err != nil {
		return nil, err
	}
	m := new(dns.Msg)
	return m, m.Unpack(b)
}

func framed(m *dns.Msg) []byte {
	b, err := m.Pack()
	if err != nil {
		panic(err)
	}
	return append([]byte{byte(len(b) >> 8), byte(len(b))}, b...)
}

// A stream is the server's end of a TCP connection over wires that lose nothing.
type stream struct {
	mu         sync.Mutex
	cond       *sync.Cond
	in, out    []byte
	eof        bool // the firewall has ended it
	closed     bool // the server has
	addr       packet.Addr
	port       uint16
	seq, ack   uint32
	una        uint32
	win        int
	fin, reset bool
}

// settle lets everything happen that happens without time, and returns what
// was no TCP of the upstream.
func (l *tlsLab) settle() (grams [2][]*view) {
	l.t.Helper()
	for range 2000 {
		synctest.Wait()
		moved := false
		for _, c := range l.conns {
			for _, p := range c.leaving(l.slow) {
				moved = true
				l.port2(wan).in = append(l.port2(wan).in, p.frame(wanMAC))
			}
		}
		l.run()
		for side := range 2 {
			for _, v := range l.taken(side) {
				moved = true
				if side == wan && v.Proto == packet.TCP && v.DstPort == dotPort {
					l.arrive(v)
				} else {
					grams[side] = append(grams[side], v)
				}
			}
		}
		synctest.Wait()
		if !moved && !l.e.host.Working() {
			return grams
		}
	}
	l.t.Fatal("it does not come to rest")
	return
}

// arrive gives the server a segment.
func (l *tlsLab) arrive(v *view) {
	if l.deaf {
		return
	}
	if v.Flags&(packet.SYN|packet.ACK) == packet.SYN {
		c := &stream{addr: v.Dst, port: v.SrcPort, seq: 5000, una: 5001, ack: v.Seq + 1, win: int(v.Window)}
		c.cond = sync.NewCond(&c.mu)
		if l.serve == nil {
			p := tcpSeg(addr(v.Dst).String(), dotPort, ours, v.SrcPort, packet.RST|packet.ACK, 0, v.Seq+1)
			l.port2(wan).in = append(l.port2(wan).in, p.frame(wanMAC))
			return
		}
		l.conns = append(l.conns, c)
		p := c.segment(packet.SYN|packet.ACK, nil)
		c.seq++
		l.port2(wan).in = append(l.port2(wan).in, p.frame(wanMAC))
		go l.serve(c)
		return
	}
	for _, c := range slices.Backward(l.conns) {
		if c.port == v.SrcPort && c.addr == v.Dst {
			if answer := c.took(v); answer != nil {
				l.port2(wan).in = append(l.port2(wan).in, answer.frame(wanMAC))
			}
			return
		}
	}
}

func (c *stream) segment(flags uint8, data []byte) pkt {
	p := tcpSeg(addr(c.addr).String(), dotPort, ours, c.port, flags, c.seq, c.ack)
	p.win, p.data = 60000, data
	return p
}

// took takes a segment of the firewall and returns the acknowledgement.
func (c *stream) took(v *view) *pkt {
	c.mu.Lock()
	defer c.mu.Unlock()
	data := v.frame[len(v.frame)-int(v.Payload):]
	if v.Flags&packet.RST != 0 {
		c.eof, c.reset = true, true
		c.cond.Broadcast()
		return nil
	}
	c.una, c.win = v.Ack, int(v.Window)
	if v.Seq != c.ack || len(data) == 0 && v.Flags&packet.FIN == 0 {
		return nil
	}
	c.in = append(c.in, data...)
	c.ack += uint32(len(data))
	if v.Flags&packet.FIN != 0 {
		c.ack++
		c.eof = true
	}
	c.cond.Broadcast()
	p := c.segment(packet.ACK, nil)
	return &p
}

// leaving returns the segments that the server sends now.
func (c *stream) leaving(most int) (ps []pkt) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.reset {
		return nil
	}
	sent := 0
	for len(c.out) > 0 && (most == 0 || sent < most) {
		n := min(len(c.out), 1400, c.win-int(c.seq-c.una))
		if most != 0 {
			n = min(n, most)
		}
		if n <= 0 {
			return ps
		}
		ps = append(ps, c.segment(packet.ACK, slices.Clone(c.out[:n])))
		c.out = c.out[n:]
		c.seq += uint32(n)
		sent += n
	}
	if c.closed && !c.fin && len(c.out) == 0 {
		c.fin = true
		ps = append(ps, c.segment(packet.ACK|packet.FIN, nil))
		c.seq++
	}
	return ps
}

func (c *stream) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.eof = true
	c.cond.Broadcast()
}

// Read implements net.Conn, as do the others.
func (c *stream) Read(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.in) == 0 && !c.eof && !c.closed {
		c.cond.Wait()
	}
	if len(c.in) == 0 {
		return 0, io.EOF
	}
	n := copy(b, c.in)
	c.in = c.in[n:]
	return n, nil
}

func (c *stream) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || c.reset {
		return 0, io.ErrClosedPipe
	}
	c.out = append(c.out, b...)
	return len(b), nil
}

func (c *stream) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	c.cond.Broadcast()
	return nil
}

func (c *stream) LocalAddr() net.Addr              { return nil }
func (c *stream) RemoteAddr() net.Addr             { return nil }
func (c *stream) SetDeadline(time.Time) error      { return nil }
func (c *stream) SetReadDeadline(time.Time) error  { return nil }
func (c *stream) SetWriteDeadline(time.Time) error { return nil }
