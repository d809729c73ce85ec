package router

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"math/big"
	"net"
	"runtime"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/link/channel"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"github.com/thurward/thurward/internal/shared/packet"
)

// between moves packets of two hosts through the firewall until done.
func (l *dnsLab) between(client, server *channel.Endpoint, done <-chan error) error {
	move := func(from int, out *channel.Endpoint, src [6]byte) {
		for b := out.Read(); b != nil; b = out.Read() {
			f := append(make([]byte, packet.EthLen), b.ToView().AsSlice()...)
			b.DecRef()
			packet.PutEth(f, &l.e.port[from].mac, &src, packet.TypeIPv4)
			l.lab.port[from].in = append(l.lab.port[from].in, f)
		}
	}
	give := func(to *channel.Endpoint, vs []*view) {
		for _, v := range vs {
			b := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(v.frame[packet.EthLen:])})
			to.InjectInbound(ipv4.ProtocolNumber, b)
			b.DecRef()
		}
	}
	for start := time.Now(); time.Since(start) < 20*time.Second; runtime.Gosched() {
		select {
		case err := <-done:
			return err
		default:
		}
		move(lan, client, macOf(ip(host)))
		move(wan, server, macOf(ip("203.0.113.1")))
		l.now += 1e4
		l.run()
		give(server, l.taken(wan))
		give(client, l.taken(lan))
	}
	return fmt.Errorf("it takes too long; drops %s", l.drops())
}

// selfSigned is a certificate of some servers, and whom to trust for it.
func selfSigned(t *testing.T, names ...string) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	of := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: names}
	der, err := x509.CreateCertificate(rand.Reader, of, of, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(cert)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, roots
}

// TestSNIRealHandshakes: TLS connections of the standard library, over the TCP of
// gVisor, come to be and carry data: with TLS 1.2 and 1.3, when the server asks for
// another hello, and when a session is taken up again.
func TestSNIRealHandshakes(t *testing.T) {
	cert, roots := selfSigned(t, "github.com", "evil.example")
	p256 := []tls.CurveID{tls.CurveP256}
	for _, c := range []struct {
		what           string
		client, server *tls.Config
		want           bool
	}{
		{"TLS 1.3", &tls.Config{ServerName: "github.com"}, &tls.Config{}, true},
		{"TLS 1.2", &tls.Config{ServerName: "github.com", MaxVersion: tls.VersionTLS12}, &tls.Config{}, true},
		{"another hello", &tls.Config{ServerName: "github.com", CurvePreferences: []tls.CurveID{tls.X25519, tls.CurveP256}}, &tls.Config{CurvePreferences: p256}, true},
		{"another name", &tls.Config{ServerName: "evil.example"}, &tls.Config{}, false},
	} {
		t.Run(c.what, func(t *testing.T) {
			l := sniLab(t)
			cs, client, err := newHost(host)
			if err != nil {
				t.Fatal(err)
			}
			defer cs.Close()
			ss, server, err := newHost(cdn)
			if err != nil {
				t.Fatal(err)
			}
			defer ss.Close()
			ln, err := gonet.ListenTCP(ss, tcpip.FullAddress{Port: 443}, ipv4.ProtocolNumber)
			if err != nil {
				t.Fatal(err)
			}
			defer ln.Close()
			c.server.Certificates = []tls.Certificate{cert}
			c.client.RootCAs, c.client.ClientSessionCache = roots, tls.NewLRUClientSessionCache(1)
			go func() {
				for {
					k, err := ln.Accept()
					if err != nil {
						return
					}
					s := tls.Server(k, c.server)
					go func() {
						io.Copy(s, s) //nolint:errcheck // until the client closes
						s.Close()
					}()
				}
			}()
			done := make(chan error, 1)
			go func() {
				for again := range 2 {
					if err := echoes(cs, c.client, again == 1); err != nil {
						done <- fmt.Errorf("connection %d: %w", again, err)
						return
					}
				}
				done <- nil
			}()
			if err := l.between(client, server, done); (err == nil) != c.want {
				t.Fatalf("%v; drops %s", err, l.drops())
			}
			if n := l.e.c.ServerNamesAccepted; n != map[bool]uint64{true: 2}[c.want] {
				t.Fatalf("%d first messages were accepted", n)
			}
			l.invariants()
		})
	}
}

// echoes opens a TLS connection, sends data, and wants them back.
func echoes(s *stack.Stack, c *tls.Config, resumed bool) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	k, err := gonet.DialContextTCP(ctx, s, tcpip.FullAddress{Addr: tcpip.AddrFrom4(ip4(ip(cdn))), Port: 443}, ipv4.ProtocolNumber)
	if err != nil {
		return err
	}
	defer k.Close()
	var conn net.Conn = k
	conn.SetDeadline(time.Now().Add(10 * time.Second)) //nolint:errcheck // it has one
	tc := tls.Client(conn, c)
	data := make([]byte, 40<<10)
	rand.Read(data)   //nolint:errcheck // never fails
	go tc.Write(data) //nolint:errcheck // seen when it is read
	got := make([]byte, len(data))
	if _, err := io.ReadFull(tc, got); err != nil {
		return err
	}
	if !bytes.Equal(got, data) || tc.ConnectionState().DidResume != resumed {
		return fmt.Errorf("resumed %v, data the same %v", tc.ConnectionState().DidResume, bytes.Equal(got, data))
	}
	return nil
}
