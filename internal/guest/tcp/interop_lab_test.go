package tcp

import (
	"bytes"
	"encoding/binary"
	"io"
	mrand "math/rand"
	"math/rand/v2"
	"sort"
	"sync"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/buffer"
	glog "gvisor.dev/gvisor/pkg/log"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/faketime"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/link/channel"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	gtcp "gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/thurward/thurward/internal/shared/packet"
)

// A lab is a Stack and a host with gVisor's TCP/IP stack on one wire, which loses,
// duplicates and delays packets. Time is virtual for both.
type lab struct {
	t     *testing.T
	rnd   *rand.Rand
	now   int64
	wire  []inFlight // by time of arrival
	fault wireFaults
	seq   int

	ours    *Stack
	message func(id uint32, msg []byte)
	closed  func(id, tag uint32, t *Tuple, served bool)
	rst     bool // segments to our address that have no connection are answered by a RST

	host  *stack.Stack
	clock *faketime.ManualClock
	link  *channel.Endpoint
	busy  bool // gVisor's goroutines may have work
}

// wireFaults says what happens to packets, in both directions.
type wireFaults struct {
	lose, dup int   // in a hundred
	delay     int64 // at least, in nanoseconds
	jitter    int64 // up to so much more, so that packets overtake each other
}

// bad reports whether packets are lost or overtake each other.
func (f *wireFaults) bad() bool { return f.lose > 0 || f.jitter > 0 }

type inFlight struct {
	at     int64
	seq    int // in order of sending, for those that arrive at the same time
	toHost bool
	data   []byte // an IPv4 packet
}

// labStep is the granularity of a lab's time.
const labStep = second / 200

// hostAddrs are the addresses of gVisor's host.
var hostAddrs = []packet.Addr{clientAddr, clientAddr + 1, clientAddr + 2, clientAddr + 3}

func init() { glog.SetTarget(&glog.Writer{Next: io.Discard}) } // gVisor warns of connections that are reset

func newLab(t *testing.T, seed uint64, f wireFaults, mtu, hostBuffer int) *lab {
	l := &lab{t: t, rnd: rand.New(rand.NewPCG(seed, 17)), now: second, fault: f, clock: faketime.NewManualClock()}
	l.ours = New(l, 1500, 1500, 4)
	l.host = stack.New(stack.Options{NetworkProtocols: []stack.NetworkProtocolFactory{ipv4.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{gtcp.NewProtocol}, Clock: l.clock,
		RandSource: &lockedSource{src: mrand.NewSource(int64(seed))}, SecureRNG: rand.NewChaCha8([32]byte{byte(seed)})})
	l.link = channel.New(4096, uint32(mtu), "")
	sack, wait, moderate := tcpip.TCPSACKEnabled(seed%2 == 0), tcpip.TCPTimeWaitTimeoutOption(time.Second), tcpip.TCPModerateReceiveBufferOption(false)
	receive := tcpip.TCPReceiveBufferSizeRangeOption{Min: 1, Default: hostBuffer, Max: hostBuffer}
	do := func(e tcpip.Error) {
		if e != nil {
			t.Fatal(e)
		}
	}
	do(l.host.SetTransportProtocolOption(gtcp.ProtocolNumber, &sack))
	do(l.host.SetTransportProtocolOption(gtcp.ProtocolNumber, &wait))
	do(l.host.SetTransportProtocolOption(gtcp.ProtocolNumber, &moderate))
	do(l.host.SetTransportProtocolOption(gtcp.ProtocolNumber, &receive))
	do(l.host.CreateNIC(1, l.link))
	for _, a := range hostAddrs {
		do(l.host.AddProtocolAddress(1, tcpip.ProtocolAddress{Protocol: ipv4.ProtocolNumber, AddressWithPrefix: address(a).WithPrefix()}, stack.AddressProperties{}))
	}
	l.host.SetRouteTable([]tcpip.Route{{Destination: header.IPv4EmptySubnet, NIC: 1}})
	t.Cleanup(func() { l.host.Destroy() })
	return l
}

// A lockedSource is a source of numbers for several goroutines.
type lockedSource struct {
	mu  sync.Mutex
	src mrand.Source
}

func (s *lockedSource) Int63() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.src.Int63()
}

func (s *lockedSource) Seed(int64) {}

func address(a packet.Addr) tcpip.Address {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], uint32(a))
	return tcpip.AddrFrom4(b)
}

// Emit implements User: it writes a segment as the router does.
func (l *lab) Emit(s *Segment) {
	var opts []byte
	if s.MSS != 0 {
		opts = []byte{header.TCPOptionMSS, 4, byte(s.MSS >> 8), byte(s.MSS)}
	}
	f := header.TCPFields{SrcPort: s.LocalPort, DstPort: s.RemotePort, SeqNum: s.Seq, AckNum: s.Ack, Flags: header.TCPFlags(s.Flags), WindowSize: s.Window}
	l.send(true, ipPacket(s.Local, s.Remote, f, opts, s.Data))
}

// Message, Stream, Closed and Random implement User.
func (l *lab) Message(id uint32, msg []byte) { l.message(id, msg) }
func (l *lab) StreamReady(uint32, uint32)    {}
func (l *lab) Random() uint64                { return l.rnd.Uint64() }
func (l *lab) Closed(id, tag uint32, t *Tuple, served bool) {
	if l.closed != nil {
		l.closed(id, tag, t, served)
	}
}

// ipPacket encodes a TCP segment.
func ipPacket(src, dst packet.Addr, f header.TCPFields, opts, data []byte) []byte {
	n := header.IPv4MinimumSize + header.TCPMinimumSize + len(opts)
	b := append(make([]byte, n), data...)
	ip := header.IPv4(b)
	ip.Encode(&header.IPv4Fields{TotalLength: uint16(len(b)), TTL: 64, Protocol: uint8(header.TCPProtocolNumber), SrcAddr: address(src), DstAddr: address(dst)})
	ip.SetChecksum(^ip.CalculateChecksum())
	f.DataOffset = uint8(header.TCPMinimumSize + len(opts))
	th := header.TCP(b[header.IPv4MinimumSize:])
	th.Encode(&f)
	copy(th[header.TCPMinimumSize:], opts)
	sum := header.PseudoHeaderChecksum(header.TCPProtocolNumber, address(src), address(dst), uint16(len(th)))
	th.SetChecksum(0)
	th.SetChecksum(^checksum.Checksum(th, sum))
	return b
}

// send puts a packet on the wire.
func (l *lab) send(toHost bool, data []byte) {
	n := 1
	if l.rnd.IntN(100) < l.fault.lose {
		n = 0
	} else if l.rnd.IntN(100) < l.fault.dup {
		n = 2
	}
	for range n {
		at := l.now + l.fault.delay
		if l.fault.jitter > 0 {
			at += l.rnd.Int64N(l.fault.jitter)
		}
		l.seq++
		l.wire = append(l.wire, inFlight{at, l.seq, toHost, data})
	}
}

// arrive gives a packet to our stack.
func (l *lab) arrive(b []byte) {
	ip := header.IPv4(b)
	th := header.TCP(ip.Payload())
	src, dst := binary.BigEndian.Uint32(b[12:]), binary.BigEndian.Uint32(b[16:])
	t := Tuple{Local: packet.Addr(dst), Remote: packet.Addr(src), LocalPort: th.DestinationPort(), RemotePort: th.SourcePort()}
	p := packet.Packet{Src: t.Remote, Dst: t.Local, SrcPort: t.RemotePort, DstPort: t.LocalPort, Flags: uint8(th.Flags()), Window: th.WindowSize(), Seq: th.SequenceNumber(), Ack: th.AckNumber()}
	switch _, ok := l.ours.Owns(&t); {
	case ok:
		l.ours.Input(&t, &p, th.Options(), th.Payload(), l.now)
	case p.Flags&(packet.SYN|packet.ACK|packet.RST) == packet.SYN && t.LocalPort == 53:
		l.ours.Accept(&t, &p, th.Options(), 0, l.now)
	case p.Flags&packet.RST == 0 && l.rst:
		f := header.TCPFields{SrcPort: t.LocalPort, DstPort: t.RemotePort, SeqNum: p.Ack, Flags: header.TCPFlagRst}
		l.send(true, ipPacket(t.Local, t.Remote, f, nil, nil))
	}
	check(l.t, l.ours)
}

// step lets labStep pass for both stacks. Our one is only called as the router
// calls it: with what arrives, and when it says that it is due.
func (l *lab) step() {
	l.now += labStep
	l.clock.Advance(time.Duration(labStep))
	l.collect()
	sort.Slice(l.wire, func(i, j int) bool {
		a, b := &l.wire[i], &l.wire[j]
		return a.at < b.at || a.at == b.at && a.seq < b.seq
	})
	n := sort.Search(len(l.wire), func(i int) bool { return l.wire[i].at > l.now })
	now := l.wire[:n:n]
	l.wire = l.wire[n:]
	for i := range now {
		if !now[i].toHost {
			l.arrive(now[i].data)
			continue
		}
		pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(bytes.Clone(now[i].data))})
		l.link.InjectInbound(ipv4.ProtocolNumber, pkt)
		pkt.DecRef()
		l.busy = true
	}
	for k := 0; ; k++ {
		at, ok := l.ours.Due()
		if !ok || at > l.now {
			break
		}
		if k == 2 { // a connection may have two things to do
			l.t.Fatalf("at %d due at %d, after Tick", l.now, at)
		}
		l.ours.Tick(l.now)
		check(l.t, l.ours)
	}
	l.collect()
}

// collect waits until gVisor's stack has done what there is to do, and puts on the
// wire what it sends.
func (l *lab) collect() {
	if l.busy {
		l.host.Pause() // returns when no segment waits to be processed
		l.host.Resume()
		l.clock.RunImmediatelyScheduledJobs()
		l.busy = false
	}
	for pkt := l.link.Read(); pkt != nil; pkt = l.link.Read() {
		v := pkt.ToView()
		l.send(false, bytes.Clone(v.AsSlice()))
		v.Release()
		pkt.DecRef()
	}
}

// A socket is a TCP connection of gVisor's host. None of its calls waits.
type socket struct {
	l   *lab
	ep  tcpip.Endpoint
	got []byte
	eof bool
	err tcpip.Error // that ended it
}

// dial begins a connection to our stack.
func (l *lab) dial(from packet.Addr, to packet.Addr, port uint16) *socket {
	wq := &waiter.Queue{}
	ep, e := l.host.NewEndpoint(gtcp.ProtocolNumber, ipv4.ProtocolNumber, wq)
	if e == nil {
		e = ep.Bind(tcpip.FullAddress{Addr: address(from)})
	}
	if e == nil {
		e = ep.Connect(tcpip.FullAddress{Addr: address(to), Port: port})
	}
	if _, started := e.(*tcpip.ErrConnectStarted); !started {
		l.t.Fatal(e)
	}
	return &socket{l: l, ep: ep}
}

// listen makes gVisor's host accept connections; accept returns the next, or nil.
func (l *lab) listen(port uint16) (accept func() *socket) {
	ep, e := l.host.NewEndpoint(gtcp.ProtocolNumber, ipv4.ProtocolNumber, &waiter.Queue{})
	if e == nil {
		e = ep.Bind(tcpip.FullAddress{Port: port})
	}
	if e == nil {
		e = ep.Listen(1000)
	}
	if e != nil {
		l.t.Fatal(e)
	}
	l.t.Cleanup(ep.Close)
	return func() *socket {
		c, _, e := ep.Accept(nil)
		if e != nil {
			return nil
		}
		return &socket{l: l, ep: c}
	}
}

// read takes up to n bytes that have arrived.
func (s *socket) read(n int) {
	for n > 0 && !s.eof && s.err == nil {
		var w bytes.Buffer
		_, e := s.ep.Read(&tcpip.LimitedWriter{W: &w, N: int64(n)}, tcpip.ReadOptions{})
		s.got = append(s.got, w.Bytes()...)
		n -= w.Len()
		switch e.(type) {
		case nil:
		case *tcpip.ErrWouldBlock:
			return
		case *tcpip.ErrClosedForReceive:
			s.eof = true
		default:
			s.err = e
		}
	}
}

// write sends as much of b as the socket takes and returns the rest.
func (s *socket) write(b []byte) []byte {
	if len(b) == 0 || s.err != nil {
		return b
	}
	r := bytes.NewReader(b)
	n, e := s.ep.Write(r, tcpip.WriteOptions{})
	if _, wait := e.(*tcpip.ErrWouldBlock); e != nil && !wait {
		s.err = e
	}
	return b[n:]
}

// finish sends a FIN behind all that has been written.
func (s *socket) finish() { s.ep.Shutdown(tcpip.ShutdownWrite) }

// over reports whether the connection has ended.
func (s *socket) over() bool { return s.eof || s.err != nil }
