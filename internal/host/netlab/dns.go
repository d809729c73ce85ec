package netlab

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"

	"golang.org/x/net/dns/dnsmessage"
)

// dnsPort is the port of DNS (RFC 1035 section 4.2).
const dnsPort = 53

// recordTTL is the time to live of the server's records, in seconds.
const recordTTL = 60

// ErrNoName is the error for a name that does not exist (NXDOMAIN).
var ErrNoName = errors.New("no such name")

// A DNS is an authoritative DNS server over UDP.
type DNS struct {
	*Host
	journal
	names map[string]netip.Addr // by lower-case name with its final dot
}

// serve answers queries until c is closed.
func (d *DNS) serve(c net.PacketConn) {
	buf := make([]byte, 1500)
	for {
		n, from, err := c.ReadFrom(buf)
		if err != nil {
			return
		}
		if answer := d.answer(buf[:n], from); answer != nil {
			c.WriteTo(answer, from) //nolint:errcheck // the client asks again
		}
	}
}

// answer returns the response to a query, nil when it is not one.
func (d *DNS) answer(query []byte, from net.Addr) []byte {
	var p dnsmessage.Parser
	h, err := p.Start(query)
	if err != nil || h.Response {
		return nil
	}
	q, err := p.Question()
	if err != nil {
		return nil
	}
	d.add(from, q.Name.String())
	addr, ok := d.names[strings.ToLower(q.Name.String())]
	rh := dnsmessage.Header{ID: h.ID, Response: true, Authoritative: true, RecursionDesired: h.RecursionDesired}
	if !ok {
		rh.RCode = dnsmessage.RCodeNameError
	}
	m := dnsmessage.Message{Header: rh, Questions: []dnsmessage.Question{q}}
	if ok && q.Type == dnsmessage.TypeA {
		m.Answers = []dnsmessage.Resource{{
			Header: dnsmessage.ResourceHeader{Name: q.Name, Class: dnsmessage.ClassINET, TTL: recordTTL},
			Body:   &dnsmessage.AResource{A: addr.As4()},
		}}
	}
	b, err := m.Pack()
	if err != nil {
		return nil
	}
	return b
}

// Resolve asks a server for the address of a name. It sends one query and does
// not retry: if query or answer is lost it fails when ctx ends. For NXDOMAIN the
// error wraps ErrNoName.
func (h *Host) Resolve(ctx context.Context, server netip.Addr, name string) (netip.Addr, error) {
	fail := func(err error) (netip.Addr, error) {
		return netip.Addr{}, fmt.Errorf("%s: resolving %s at %v: %w", h.Name, name, server, err)
	}
	n, err := dnsmessage.NewName(strings.TrimSuffix(name, ".") + ".")
	if err != nil {
		return fail(err)
	}
	id := uint16(rand.Uint32())
	q := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: id, RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: n, Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}},
	}
	b, err := q.Pack()
	if err != nil {
		return fail(err)
	}
	c, err := h.DialUDP(netip.AddrPortFrom(server, dnsPort))
	if err != nil {
		return netip.Addr{}, err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	if _, err := c.Write(b); err != nil {
		return fail(err)
	}
	buf := make([]byte, 1500)
	for {
		n, err := c.Read(buf)
		if err != nil {
			if ctx.Err() != nil {
				err = ctx.Err()
			}
			return fail(err)
		}
		var m dnsmessage.Message
		if m.Unpack(buf[:n]) != nil || m.ID != id || !m.Response {
			continue
		}
		if m.RCode == dnsmessage.RCodeNameError {
			return fail(ErrNoName)
		}
		for _, a := range m.Answers {
			if r, ok := a.Body.(*dnsmessage.AResource); ok {
				return netip.AddrFrom4(r.A), nil
			}
		}
		return fail(fmt.Errorf("no address in the answer (%v)", m.RCode))
	}
}
