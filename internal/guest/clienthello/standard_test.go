package clienthello

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"math/big"
	"net"
	"sync"
	"testing"
	"time"
)

// A stream is a net.Conn on which a client has sent bytes and then closed.
type stream struct {
	net.Conn // nil: nothing else is used
	r        *bytes.Reader
}

func (s stream) Read(b []byte) (int, error)     { return s.r.Read(b) }
func (stream) Write(b []byte) (int, error)      { return len(b), nil }
func (stream) Close() error                     { return nil }
func (stream) SetWriteDeadline(time.Time) error { return nil }

// standard returns the server name that a crypto/tls server parses, if it accepts
// the ClientHello.
func standard(b []byte) (name string, ok bool) {
	tls.Server(stream{r: bytes.NewReader(b)}, &tls.Config{MinVersion: tls.VersionTLS10, GetConfigForClient: func(i *tls.ClientHelloInfo) (*tls.Config, error) { //nolint:gosec // to see as much as it can read
		name, ok = i.ServerName, true
		return nil, io.EOF
	}}).Handshake() //nolint:errcheck // it ends there
	return name, ok
}

// TestStandard: standard, the second opinion, parses a real ClientHello.
func TestStandard(t *testing.T) {
	if name, ok := standard(legit(names("a.example"), ext(43, "\x02\x03\x04")).stream()); !ok || name != "a.example" {
		t.Fatalf("%q, %v", name, ok)
	}
	if name, ok := standard(legit(names("a.example", "b.example")).stream()); ok {
		t.Fatalf("of two names it reads %q", name)
	}
}

var certificate = func() func(t testing.TB) tls.Certificate {
	once := sync.OnceValues(func() (tls.Certificate, error) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return tls.Certificate{}, err
		}
		of := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"a.example"}}
		der, err := x509.CreateCertificate(rand.Reader, of, of, key.Public(), key)
		return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
	})
	return func(t testing.TB) tls.Certificate {
		t.Helper()
		c, err := once()
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
}()
