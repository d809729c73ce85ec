package netlab

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"

	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
)

// DialTCP connects to dst. A connection that the network drops silently fails
// when ctx ends.
func (h *Host) DialTCP(ctx context.Context, dst netip.AddrPort) (net.Conn, error) {
	c, err := gonet.DialContextTCP(ctx, h.stack, full(dst), ipv4.ProtocolNumber)
	if err != nil {
		return nil, fmt.Errorf("%s: connecting to tcp %v: %w", h.Name, dst, err)
	}
	return c, nil
}

// DialTCPFrom is DialTCP from a chosen local port, 0 for any.
func (h *Host) DialTCPFrom(ctx context.Context, port uint16, dst netip.AddrPort) (net.Conn, error) {
	c, err := gonet.DialTCPWithBind(ctx, h.stack, full(netip.AddrPortFrom(h.Addr, port)), full(dst), ipv4.ProtocolNumber)
	if err != nil {
		return nil, fmt.Errorf("%s: connecting from port %d to tcp %v: %w", h.Name, port, dst, err)
	}
	return c, nil
}

// ListenTCP accepts connections to a port on all of the host's addresses.
func (h *Host) ListenTCP(port uint16) (net.Listener, error) {
	l, err := gonet.ListenTCP(h.stack, full(netip.AddrPortFrom(netip.Addr{}, port)), ipv4.ProtocolNumber)
	if err != nil {
		return nil, fmt.Errorf("%s: listening on tcp port %d: %w", h.Name, port, err)
	}
	return l, nil
}

// DialUDP returns a socket that exchanges datagrams with dst.
func (h *Host) DialUDP(dst netip.AddrPort) (net.Conn, error) {
	r := full(dst)
	c, err := gonet.DialUDP(h.stack, nil, &r, ipv4.ProtocolNumber)
	if err != nil {
		return nil, fmt.Errorf("%s: udp socket to %v: %w", h.Name, dst, err)
	}
	return c, nil
}

// ListenUDP returns a socket that takes datagrams for a port.
func (h *Host) ListenUDP(port uint16) (net.PacketConn, error) {
	l := full(netip.AddrPortFrom(netip.Addr{}, port))
	c, err := gonet.DialUDP(h.stack, &l, nil, ipv4.ProtocolNumber)
	if err != nil {
		return nil, fmt.Errorf("%s: listening on udp port %d: %w", h.Name, port, err)
	}
	return c, nil
}

// HTTP returns a client on the host that makes a new connection for each
// request. URLs must have addresses, not names.
func (h *Host) HTTP() *http.Client {
	return &http.Client{Transport: &http.Transport{
		DisableKeepAlives:  true,
		DisableCompression: true,
		DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
			dst, err := netip.ParseAddrPort(addr)
			if err != nil {
				return nil, err
			}
			return h.DialTCP(ctx, dst)
		},
	}}
}

// addrPort returns the address and port of a connection's end.
func addrPort(a net.Addr) netip.AddrPort {
	ap, _ := netip.ParseAddrPort(a.String())
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}
