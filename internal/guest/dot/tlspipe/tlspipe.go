// Package tlspipe runs the TLS client of a dot.Pipe. It knows nothing of DNS, TCP or
// timeouts: it encrypts and decrypts bytes, and ends when the packet loop orders it.
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

// A Config configures the connections of a Pipe.
type Config struct {
	Name  string                         // the server's certificate must be valid for it
	Roots func() (*x509.CertPool, error) // certificate authorities; called for each connection
	Time  func() time.Time               // of day, to verify certificates
	Yield func()                         // called after each step, to let other goroutines run

	// Refused is called when a certificate is not valid, with the reason: printable
	// text of at most dot.MaxReason bytes. It may be nil.
	Refused func(reason string)
}

// step is how many plain bytes are encrypted at a time, overhead an upper bound of
// what TLS adds to them, so that a step never blocks.
const (
	step     = 2 << 10
	overhead = 512
)

// Run makes connections, one after the other, when the packet loop orders them, until
// the pipe is stopped.
func Run(p *dot.Pipe, c Config) {
	buf := make([]byte, 4<<10)
	for p.Next() {
		class, reason := session(p, &c, buf)
		// The names in a certificate are chosen by the peer, and may be in the reason.
		reason = printable.String(reason, dot.MaxReason)
		if class == verdict.TLSVerify && c.Refused != nil {
			c.Refused(reason)
		}
		p.Park(class, reason)
	}
}

// session makes one connection and returns how it ended.
func session(p *dot.Pipe, c *Config, buf []byte) (dot.Class, string) {
	roots, err := c.Roots()
	if err != nil {
		return verdict.TLSVerify, err.Error()
	}
	config := &tls.Config{ServerName: c.Name, RootCAs: roots, Time: c.Time, MinVersion: tls.VersionTLS12}
	conn := tls.Client(&sealed{p: p}, config)
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
			conn.Close() // sends close_notify (RFC 8446 section 6.1)
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

// class classifies the error that ended a connection.
func class(err error) (dot.Class, string) {
	var cert *tls.CertificateVerificationError
	switch {
	case errors.As(err, &cert):
		return verdict.TLSVerify, cert.Err.Error()
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.ErrClosedPipe):
		return verdict.TLSClosed, "the server closed the connection"
	}
	return verdict.TLSProtocol, err.Error()
}

// A sealed is the net.Conn that crypto/tls uses.
type sealed struct{ p *dot.Pipe }

func (s *sealed) Read(b []byte) (int, error)  { return s.p.ReadSealed(b) }
func (s *sealed) Write(b []byte) (int, error) { return s.p.WriteSealed(b) }

// Close does nothing: the packet loop closes the connection.
func (s *sealed) Close() error { return nil }

func (s *sealed) LocalAddr() net.Addr  { return nowhere{} }
func (s *sealed) RemoteAddr() net.Addr { return nowhere{} }

// There are no deadlines: the packet loop has the timers.
func (s *sealed) SetDeadline(time.Time) error      { return nil }
func (s *sealed) SetReadDeadline(time.Time) error  { return nil }
func (s *sealed) SetWriteDeadline(time.Time) error { return nil }

type nowhere struct{}

func (nowhere) Network() string { return "pipe" }
func (nowhere) String() string  { return "the packet loop" }
