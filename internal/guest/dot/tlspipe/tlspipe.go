// Package tlspipe speaks TLS for a dot.Pipe. It knows nothing of DNS, of TCP
// or of time-outs: it turns plain bytes into sealed ones and back, and ends when
// the loop says so.
package tlspipe

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"time"

	"github.com/thurward/thurward/internal/guest/dot"
	"github.com/thurward/thurward/internal/shared/printable"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// Config says how a Pipe's connections are.
type Config struct {
	Name  string                         // that the server's certificate must have
	Roots func() (*x509.CertPool, error) // authorities; asked at each connection
	Time  func() time.Time               // of day, by which certificates are judged
	Yield func()                         // called after each step, that others get a turn

	// Refused is told why a certificate is refused, in printable text of at
	// most dot.MaxReason bytes. It may be nil.
	Refused func(reason string)
}

// step is how many plain bytes are sealed at a time, overhead what TLS adds to
// them at most: a step never waits for room.
const (
	step     = 2 << 10
	overhead = 512
)

// Run makes one connection after the other, as the loop wants them, until the
// pipe is stopped.
func Run(p *dot.Pipe, c Config) {
	buf := make([]byte, 4<<10)
	for p.Next() {
		class, reason := session(p, &c, buf)
		// Whoever answers for the server chooses the names in its certificate.
		reason = printable.String(reason, dot.MaxReason)
		if class == verdict.TLSVerify && c.Refused != nil {
			c.Refused(reason)
		}
		p.Park(class, reason)
	}
}

// session is one connection. It returns how it ended.
func session(p *dot.Pipe, c *Config, buf []byte) (dot.Class, string) {
	roots, err := c.Roots()
	if err != nil {
		return verdict.TLSVerify, err.Error()
	}
	conn := tls.Client(&sealed{p: p}, &tls.Config{ServerName: c.Name, RootCAs: roots, Time: c.Time, MinVersion: tls.VersionTLS12})
	c.Yield()
	if err := conn.Handshake(); err != nil {
		return class(err)
	}
	p.Opened()
	c.Yield()
	for {
		if p.Cancelled() {
			return 0, ""
		}
		if p.ShouldClose() {
			conn.Close() // tells the server (RFC 8446 section 6.1)
			return 0, ""
		}
		moved := false
		if room := p.SealedRoom() - overhead; room > 0 {
			if n := p.ReadPlain(buf[:min(room, step)]); n > 0 {
				if _, err := conn.Write(buf[:n]); err != nil {
					return class(err)
				}
				moved = true
			}
		}
		if room := p.PlainRoom(); room > 0 {
			n, err := conn.Read(buf[:min(room, len(buf))])
			if n > 0 {
				p.WritePlain(buf[:n])
				moved = true
			}
			var ne net.Error
			if err != nil && !(errors.As(err, &ne) && ne.Timeout()) {
				return class(err)
			}
		}
		if moved {
			c.Yield()
		} else {
			p.Wait()
		}
	}
}

// class sorts what ended a connection.
func class(err error) (dot.Class, string) {
	var cert *tls.CertificateVerificationError
	switch {
	case errors.As(err, &cert):
		return verdict.TLSVerify, cert.Err.Error()
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.ErrClosedPipe):
		return verdict.TLSClosed, "the server has closed the connection"
	}
	return verdict.TLSProtocol, err.Error()
}

// sealed is the server as crypto/tls sees it.
type sealed struct{ p *dot.Pipe }

func (s *sealed) Read(b []byte) (int, error)  { return s.p.ReadSealed(b) }
func (s *sealed) Write(b []byte) (int, error) { return s.p.WriteSealed(b) }

// Close: the loop closes the connection.
func (s *sealed) Close() error { return nil }

func (s *sealed) LocalAddr() net.Addr  { return nowhere{} }
func (s *sealed) RemoteAddr() net.Addr { return nowhere{} }

// Deadlines are the loop's business.
func (s *sealed) SetDeadline(time.Time) error      { return nil }
func (s *sealed) SetReadDeadline(time.Time) error  { return nil }
func (s *sealed) SetWriteDeadline(time.Time) error { return nil }

type nowhere struct{}

func (nowhere) Network() string { return "pipe" }
func (nowhere) String() string  { return "the packet loop" }
