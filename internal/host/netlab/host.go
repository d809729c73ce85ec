package netlab

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/link/channel"
	"gvisor.dev/gvisor/pkg/tcpip/link/ethernet"
	"gvisor.dev/gvisor/pkg/tcpip/network/arp"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
)

// connBuffer is how much a connection holds in each direction, in bytes.
const connBuffer = 128 << 10

// mtu is the hosts' MTU in bytes.
const mtu = 1500

// A Host is a machine with a TCP/IP stack of its own. Its methods are safe
// for concurrent use.
type Host struct {
	Name string
	Addr netip.Addr // of its first interface

	stack  *stack.Stack
	routes []tcpip.Route
	nics   int
	cancel context.CancelFunc
	ctx    context.Context
}

// NewHost makes a host without interfaces. Close it after use.
func NewHost(name string) (*Host, error) {
	s := stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol, arp.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol, udp.NewProtocol, icmp.NewProtocol4},
	})
	sack := tcpip.TCPSACKEnabled(true)
	if e := s.SetTransportProtocolOption(tcp.ProtocolNumber, &sack); e != nil {
		return nil, fmt.Errorf("host %s: enabling selective acknowledgements: %s", name, e)
	}
	// Without RACK and its probes: where the last data before a FIN is lost, the stack repeats
	// the FIN alone and waits for ever.
	recovery := tcpip.TCPRecovery(0)
	if e := s.SetTransportProtocolOption(tcp.ProtocolNumber, &recovery); e != nil {
		return nil, fmt.Errorf("host %s: disabling RACK: %s", name, e)
	}
	linger := tcpip.TCPTimeWaitTimeoutOption(time.Second) // so that many short connections do not pile up
	if e := s.SetTransportProtocolOption(tcp.ProtocolNumber, &linger); e != nil {
		return nil, fmt.Errorf("host %s: setting the TIME-WAIT timeout: %s", name, e)
	}
	// A guest opens connections at will: what they hold is bounded by their
	// number (maxServed) and by this. The simulated wires have no delay.
	send := tcpip.TCPSendBufferSizeRangeOption{Min: 4096, Default: connBuffer, Max: connBuffer}
	receive := tcpip.TCPReceiveBufferSizeRangeOption{Min: 4096, Default: connBuffer, Max: connBuffer}
	if e := s.SetTransportProtocolOption(tcp.ProtocolNumber, &send); e != nil {
		return nil, fmt.Errorf("host %s: bounding send buffers: %s", name, e)
	}
	if e := s.SetTransportProtocolOption(tcp.ProtocolNumber, &receive); e != nil {
		return nil, fmt.Errorf("host %s: bounding receive buffers: %s", name, e)
	}
	h := &Host{Name: name, stack: s}
	h.ctx, h.cancel = context.WithCancel(context.Background())
	return h, nil
}

// Connect gives the host an interface on a switch with an address, and routes
// to that address's network.
func (h *Host) Connect(sw *Switch, address netip.Prefix) error {
	id := tcpip.NICID(h.nics + 1)
	a := address.Addr().As4()
	// A locally administered address that holds the IPv4 address.
	hw := tcpip.LinkAddress([]byte{0x02, 0x57, a[0], a[1], a[2], a[3]})
	ch := channel.New(queueLen, mtu+minFrame, hw)
	if e := h.stack.CreateNIC(id, ethernet.New(ch)); e != nil {
		return fmt.Errorf("host %s: adding interface %d: %s", h.Name, id, e)
	}
	pa := tcpip.ProtocolAddress{Protocol: ipv4.ProtocolNumber,
		AddressWithPrefix: tcpip.AddressWithPrefix{Address: tcpip.AddrFrom4(a), PrefixLen: address.Bits()}}
	if e := h.stack.AddProtocolAddress(id, pa, stack.AddressProperties{}); e != nil {
		return fmt.Errorf("host %s: adding address %v: %s", h.Name, address, e)
	}
	var port *Port
	port = sw.Attach(h.Name, func(frame []byte) {
		if !sound(frame) || !inject(ch, frame) {
			port.drop(frame)
		}
	})
	go func() {
		for {
			pkt := ch.ReadContext(h.ctx)
			if pkt == nil {
				return
			}
			v := pkt.ToView()
			port.Send(append([]byte(nil), v.AsSlice()...))
			v.Release()
			pkt.DecRef()
		}
	}()
	if h.nics++; h.nics == 1 {
		h.Addr = address.Addr()
	}
	h.routes = append(h.routes, tcpip.Route{Destination: pa.AddressWithPrefix.Subnet(), NIC: id})
	h.stack.SetRouteTable(h.routes)
	return nil
}

// inject passes a frame to a host's stack, and reports whether it was handled
// without a panic: a fault of a simulated host must not end the launcher, and the
// firewall with it.
func inject(ch *channel.Endpoint, frame []byte) (ok bool) {
	defer func() { ok = recover() == nil }()
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(frame)})
	ch.InjectInbound(0, pkt)
	pkt.DecRef()
	return true
}

// Route adds a route to dst by way of via, a neighbour of one of the host's
// interfaces. Earlier routes take precedence.
func (h *Host) Route(dst netip.Prefix, via netip.Addr) error {
	gw := tcpip.AddrFrom4(via.As4())
	for _, r := range h.routes {
		if r.Gateway.Len() == 0 && r.Destination.Contains(gw) {
			to := tcpip.AddressWithPrefix{Address: tcpip.AddrFrom4(dst.Masked().Addr().As4()), PrefixLen: dst.Bits()}
			h.routes = append(h.routes, tcpip.Route{Destination: to.Subnet(), Gateway: gw, NIC: r.NIC})
			h.stack.SetRouteTable(h.routes)
			return nil
		}
	}
	return fmt.Errorf("host %s: %v is not a neighbour", h.Name, via)
}

// Forward makes the host a router between its interfaces.
//
// Under the race detector netstack's forwarding is reported: it reads the TTL
// of a packet whose memory its copy for forwarding has just given back
// (ipv4.go, forwardPacketWithRoute). The worst effect is a wrong TTL.
func (h *Host) Forward() error {
	if e := h.stack.SetForwardingDefaultAndAllNICs(ipv4.ProtocolNumber, true); e != nil {
		return fmt.Errorf("host %s: enabling forwarding: %s", h.Name, e)
	}
	return nil
}

// Close ends the host and its connections.
func (h *Host) Close() {
	h.cancel()
	h.stack.Close()
}

// everywhere is the destination of a default route.
var everywhere = netip.PrefixFrom(netip.IPv4Unspecified(), 0)

// full returns an address and port as gVisor wants them.
func full(a netip.AddrPort) tcpip.FullAddress {
	f := tcpip.FullAddress{Port: a.Port()}
	if a.Addr().IsValid() && !a.Addr().IsUnspecified() {
		f.Addr = tcpip.AddrFrom4(a.Addr().Unmap().As4())
	}
	return f
}
