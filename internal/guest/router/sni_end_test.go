package router

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"runtime"
	"sync"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/link/channel"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	gtcp "gvisor.dev/gvisor/pkg/tcpip/transport/tcp"

	"github.com/thurward/thurward/internal/guest/clienthello"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
)

// A client that may send any segments, the firewall, some routers, and a server
// with the TCP of gVisor and the TLS of the standard library: two programs that
// read a stream in their own way.

// An tcpEnd is the server. It takes connections to cdn.
type tcpEnd struct {
	ch *channel.Endpoint
	mu sync.Mutex
	by map[uint16][]*served // by the port of the other end
}

// A served is what the server has of a connection.
type served struct {
	conn   net.Conn
	stream []byte
	said   bool
	retry  int // how long the stream was when the server asked for another message; 0: it has not
}

// newHost makes a host with one address, whose packets come and go by ch.
func newHost(a string) (s *stack.Stack, ch *channel.Endpoint, err error) {
	s = stack.New(stack.Options{NetworkProtocols: []stack.NetworkProtocolFactory{ipv4.NewProtocol}, TransportProtocols: []stack.TransportProtocolFactory{gtcp.NewProtocol}})
	ch = channel.New(1024, 1500, "")
	sack := tcpip.TCPSACKEnabled(true)
	b := ip4(ip(a))
	for _, do := range []func() tcpip.Error{
		func() tcpip.Error { return s.SetTransportProtocolOption(gtcp.ProtocolNumber, &sack) },
		func() tcpip.Error { return s.CreateNIC(1, ch) },
		func() tcpip.Error {
			return s.AddProtocolAddress(1, tcpip.ProtocolAddress{Protocol: ipv4.ProtocolNumber, AddressWithPrefix: tcpip.AddrFrom4(b).WithPrefix()}, stack.AddressProperties{})
		},
	} {
		if e := do(); e != nil {
			return nil, nil, errors.New(e.String())
		}
	}
	s.SetRouteTable([]tcpip.Route{{Destination: header.IPv4EmptySubnet, NIC: 1}})
	return s, ch, nil
}

var theEndpoint = sync.OnceValues(func() (*tcpEnd, error) {
	s, ch, err := newHost(cdn)
	if err != nil {
		return nil, err
	}
	e := &tcpEnd{ch: ch, by: map[uint16][]*served{}}
	l, err := gonet.ListenTCP(s, tcpip.FullAddress{Port: 443}, ipv4.ProtocolNumber)
	if err != nil {
		return nil, err
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go e.serve(c)
		}
	}()
	return e, nil
})

func ip4(a packet.Addr) (b [4]byte) {
	binary.BigEndian.PutUint32(b[:], uint32(a))
	return b
}

// serve reads a connection to its end.
func (e *tcpEnd) serve(c net.Conn) {
	a, ok := c.RemoteAddr().(*net.TCPAddr)
	if !ok {
		return // it is over
	}
	k := &served{conn: c}
	e.mu.Lock()
	e.by[uint16(a.Port)] = append(e.by[uint16(a.Port)], k)
	e.mu.Unlock()
	buf := make([]byte, 4096)
	for {
		n, err := c.Read(buf)
		e.mu.Lock()
		k.stream = append(k.stream, buf[:n]...)
		e.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// of returns the last connection from a port, or nil, and what has come on it.
func (e *tcpEnd) of(port uint16) (*served, []byte) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if all := e.by[port]; len(all) > 0 {
		k := all[len(all)-1]
		return k, bytes.Clone(k.stream)
	}
	return nil, nil
}

// read returns the names that the server has read of the first messages of all
// connections from a port, and of those for which it has asked then, and ends them.
func (e *tcpEnd) read(port uint16) (first, second []string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, k := range e.by[port] {
		k.conn.Close()
		if n := serverReads(k.stream); n != "" {
			first = append(first, n)
		}
		if k.retry > 0 {
			if n := serverReads(bytes.TrimPrefix(k.stream[k.retry:], []byte("\x14\x03\x03\x00\x01\x01"))); n != "" {
				second = append(second, n)
			}
		}
	}
	return first, second
}

// A course of a first message.
type messageRun struct {
	*dnsLab
	end   *tcpEnd
	sport uint16
	iss   uint32 // of the client
	srv   uint32 // what the client knows of the server: the next number
	ext   uint16
	stamp bool
	clock uint32
	lost  bool // what leaves now does not reach the server
}

const (
	goodName = "github.com"
	evilName = "evil10.com"
	hops     = 7 // routers behind the firewall
)

var (
	messageLab  *dnsLab
	messagePort = uint16(2000)
)

func newMessageRun(t testing.TB, stamp bool) *messageRun {
	e, err := theEndpoint()
	if err != nil {
		t.Fatal(err)
	}
	if messageLab == nil || messageLab.now > 2000e9 {
		messageLab = newDNSLab(t, func(p *ruleset.Policy) {
			named(p, 2, goodName)
			p.Rules[2].SNI = 1
		}, "accept egress tcp any -> any :443", established)
		messageLab.resolve(host, goodName, "@ 3000 IN A "+cdn)
		messageLab.resolve(host, evilName, "@ 3000 IN A "+cdn)
	}
	messageLab.t = t
	if messagePort++; messagePort == 60000 {
		messagePort = 2001
	}
	r := &messageRun{dnsLab: messageLab, end: e, sport: messagePort, iss: uint32(messagePort) * 99991, stamp: stamp, clock: 1000}
	e.mu.Lock()
	delete(e.by, r.sport)
	e.mu.Unlock()
	r.seen, r.names = nil, nil
	return r
}

// sends puts a segment of the client's into the firewall. What leaves reaches the server if
// its TTL lasts, and the server's answers reach the client.
func (r *messageRun) sends(p pkt) {
	if r.stamp && p.opts == nil {
		p.opts = append(binary.BigEndian.AppendUint32([]byte{1, 1, 8, 10}, r.clock), 0, 0, 0, 0)
	}
	out, _ := r.put(lan, p)
	for _, v := range out {
		r.ext = v.SrcPort
		if v.TTL <= hops || r.lost {
			continue
		}
		b := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(v.frame[packet.EthLen:])})
		r.end.ch.InjectInbound(ipv4.ProtocolNumber, b)
		b.DecRef()
	}
	r.hears()
}

// hears delivers the server's segments to the client, until its goroutines have sent
// nothing for a while.
func (r *messageRun) hears() {
	for quiet := 0; quiet < 20; {
		b := r.end.ch.Read()
		if b == nil {
			quiet++
			runtime.Gosched()
			continue
		}
		quiet = 0
		f := append(make([]byte, packet.EthLen), b.ToView().AsSlice()...)
		b.DecRef()
		gw := macOf(ip("203.0.113.1"))
		packet.PutEth(f, &wanMAC, &gw, packet.TypeIPv4)
		in, _ := r.raw(wan, f)
		for _, v := range in {
			if v.DstPort == r.sport && v.Flags&packet.RST == 0 {
				n := v.Seq + uint32(v.Payload)
				if v.Flags&packet.SYN != 0 {
					n++
				}
				r.srv = n
			}
		}
	}
}

// waits is hears for those who have the time.
func (r *messageRun) waits(n int) {
	for range n {
		time.Sleep(50 * time.Microsecond)
		r.hears()
	}
}

// segment is one of the client's whose data begin at a place of its stream.
func (r *messageRun) segment(flags uint8, at int, data []byte) pkt {
	p := tcpSeg(host, r.sport, cdn, 443, flags, r.iss+1+uint32(at), r.srv)
	p.data = data
	return p
}

// says has the server's program send data, when it has a connection.
func (r *messageRun) says(data []byte) {
	k, stream := r.end.of(r.sport)
	if k == nil {
		return
	}
	if bytes.Equal(data, helloRetry) {
		if k.said {
			return // or else it is no answer any more
		}
		h, s := clienthello.Read(stream, new([255]byte))
		if s != clienthello.Found {
			return // no request without a message
		}
		k.retry = h.Len
	}
	k.said = true
	k.conn.SetWriteDeadline(time.Now().Add(time.Millisecond)) //nolint:errcheck // it has one
	k.conn.Write(data)                                        //nolint:errcheck // the connection may be over
	r.hears()
}

// A recording is a connection on which a client has sent bytes.
type recording struct {
	net.Conn // nil: nothing else is used
	r        *bytes.Reader
}

func (s recording) Read(b []byte) (int, error)     { return s.r.Read(b) }
func (recording) Write(b []byte) (int, error)      { return len(b), nil }
func (recording) Close() error                     { return nil }
func (recording) SetWriteDeadline(time.Time) error { return nil }

// serverReads returns the server name that crypto/tls reads from a stream, or
// nothing.
func serverReads(b []byte) (name string) {
	tls.Server(recording{r: bytes.NewReader(b)}, &tls.Config{MinVersion: tls.VersionTLS10, GetConfigForClient: func(i *tls.ClientHelloInfo) (*tls.Config, error) { //nolint:gosec // to see as much as it can read
		name = i.ServerName
		return nil, io.EOF
	}}).Handshake() //nolint:errcheck // it ends there
	return name
}

// smallHello is a first message of 80 bytes or so.
func smallHello(name string) []byte {
	u16 := func(n int) []byte { return []byte{byte(n >> 8), byte(n)} }
	sni := append(append(append([]byte{0, 0}, u16(len(name)+5)...), u16(len(name)+3)...), append([]byte{0}, append(u16(len(name)), name...)...)...)
	exts := append(append(u16(len(sni)+7), sni...), 0, 43, 0, 3, 2, 3, 4)
	body := append(append(append([]byte{3, 3}, make([]byte, 32)...), 0, 0, 2, 0x13, 1, 1, 0), exts...)
	m := append([]byte{1, 0, byte(len(body) >> 8), byte(len(body))}, body...)
	return append(append([]byte{22, 3, 1}, u16(len(m))...), m...)
}

// TestMessageReachesServer: between the ends of the fuzzer's run a first message
// comes to be read, with and without timestamps, and a second one.
func TestMessageReachesServer(t *testing.T) {
	for _, stamp := range []bool{false, true} {
		r := newMessageRun(t, stamp)
		r.opens()
		m := smallHello(goodName)
		r.sends(r.segment(packet.ACK, 0, m[:30]))
		r.sends(r.segment(packet.ACK, 30, m[30:]))
		for n := 0; n < 1000; n++ {
			if k, _ := r.end.of(r.sport); k != nil && k.retry > 0 {
				break
			}
			r.waits(1)
			r.says(helloRetry)
		}
		r.sends(r.segment(packet.ACK, len(m), m))
		for n := 0; n < 1000; n++ {
			if _, stream := r.end.of(r.sport); len(stream) >= 2*len(m) {
				break
			}
			r.waits(1)
		}
		if a, b := r.end.read(r.sport); len(a) != 1 || len(b) != 1 || a[0] != goodName || b[0] != goodName {
			t.Fatalf("timestamps %v: the server reads %q, then %q; drops %s", stamp, a, b, r.drops())
		}
	}
}

// opens makes the connection.
func (r *messageRun) opens() {
	p := r.segment(packet.SYN, -1, nil)
	if r.stamp {
		p.opts = append(binary.BigEndian.AppendUint32([]byte{4, 2, 8, 10}, r.clock), 0, 0, 0, 0)
	}
	r.sends(p)
	for n := 0; n < 20 && r.srv == 0; n++ {
		r.waits(1)
	}
	r.sends(r.segment(packet.ACK, 0, nil))
}

// FuzzFirstMessage has a client send any segments of two first messages, of which
// one has a name that may pass. Each record of the input is 6 bytes: what to do,
// a place and a length, TTL, flags (and whether it gets lost), and timestamp. Whatever the server reads has a
// name that may pass.
func FuzzFirstMessage(f *testing.F) {
	n := byte(len(smallHello(goodName)))
	rec := func(b ...byte) []byte { return append(b, make([]byte, 6-len(b))...) }
	add := func(rs ...[]byte) {
		f.Add(bytes.Join(append([][]byte{{0}}, rs...), nil))
		f.Add(bytes.Join(append([][]byte{{1}}, rs...), nil))
	}
	const lost, again = 128, 8
	good, evil := rec(0, 0, n, 64), rec(1, 0, n, 64)
	add(good, evil)
	add(rec(0, 0, n, 2), evil)
	add(rec(0, 0, n, 64, lost), evil)
	add(rec(0, 0, n, 64, lost), rec(0, 0, 40, 64), rec(1, 30, n, 64))
	add(rec(0, 0, n, 64, lost), rec(3, 0, n, 64), rec(1, 0, n, 64))
	add(rec(0, 0, 40, 64), rec(1, 0, n, 64), rec(0, 40, n, 64))
	add(rec(0, 50, n, 64), rec(1, 20, 60, 64), rec(0, 0, 50, 64))
	add(good, rec(8), evil)
	add(good, rec(9), evil, rec(1, n, n, 64), rec(0, n, n, 64))
	add(good, rec(9), rec(0, n, n, 64, lost), rec(1, n, n, 64))
	add(good, rec(1, n, n, 64, lost), rec(9), rec(1, n, n, 64))
	add(rec(2, 0, n, 64), evil)             // in a SYN
	add(rec(2, 0, n, 64, again), evil)      // in one at the beginning
	add(rec(0, 0, n, 64, packet.URG), evil) // urgent
	add(rec(0, 0, n, 64, 0, 200), evil)     // an old timestamp
	add(good, rec(4), rec(5), evil)         // a RST, a new connection
	add(rec(0, 0, n, 64, lost), rec(4, 0, 0, 2), rec(5, 1), evil)
	add(rec(3, 0, n, 64), rec(1, 1, n, 64), rec(0, 0, 1)) // shifted
	add(rec(0, 0, n, 64, packet.FIN), rec(1, 0, n, 64), rec(8))
	add(rec(0, 0, n, 64, 64), rec(1, 0, n, 64), rec(8)) // with a signature
	add(rec(6, 0, 0, 2), evil, rec(6, 0, 0, 64, packet.URG), good)
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) == 0 {
			return
		}
		r := newMessageRun(t, b[0]&1 != 0)
		r.opens()
		messages := [2][]byte{smallHello(goodName), smallHello(evilName)}
		for i := range messages {
			messages[i] = append(messages[i], messages[i]...)
		}
		b = b[1:]
		for k := 0; k < 24 && len(b) >= 6; k++ {
			r.does(b[:6], &messages)
			b = b[6:]
		}
		r.waits(5)
		first, second := r.end.read(r.sport)
		for _, n := range append(first, second...) {
			if n != goodName {
				t.Fatalf("the server reads %q, then %q", first, second)
			}
		}
		r.now += 31e9
		r.run()
		r.taken(lan)
		r.taken(wan)
		r.invariants()
	})
}

// executes a record.
func (r *messageRun) does(b []byte, messages *[2][]byte) {
	part := func(m []byte) []byte {
		at := min(int(b[1]), len(m))
		return m[at:min(at+int(b[2]), len(m))]
	}
	flags := packet.ACK | b[4]&(packet.FIN|packet.PSH|packet.URG)
	var p pkt
	switch b[0] % 12 {
	case 0, 1:
		p = r.segment(flags, int(b[1]), part(messages[b[0]%12]))
	case 2:
		p = r.segment(packet.SYN|b[4]&packet.ACK, int(b[4]>>3&1)-1, part(messages[b[5]&1]))
	case 3:
		p = r.segment(flags, int(b[1])-1, part(messages[b[5]&1]))
	case 4:
		p = r.segment(packet.RST|b[4]&packet.ACK, int(b[1]), nil)
		if b[4]&1 != 0 {
			p.data = part(messages[b[5]&1])
		}
	case 5: // the client begins again, with the same numbers or others
		r.iss += uint32(b[1]) % 3 * 40
		r.opens()
		return
	case 6:
		p = r.segment(flags, int(b[1]), nil)
	case 7:
		r.now += int64(b[1]) * 5e7
		r.run()
		r.taken(lan)
		r.taken(wan)
		return
	case 8:
		r.says(serverHello)
		return
	case 9:
		r.says(helloRetry)
		return
	case 10: // behind the first message
		p = r.segment(flags, len(messages[0])/2+int(b[1]), part(messages[b[5]&1]))
	case 11:
		r.waits(5)
		return
	}
	p.ttl = b[3]
	if p.ttl <= 1 {
		p.ttl = 64
	}
	if b[4]&64 != 0 {
		p.opts = append([]byte{1, 1, 19, 18}, make([]byte, 16)...)
	} else if r.stamp && b[5] >= 128 {
		p.opts = append(binary.BigEndian.AppendUint32([]byte{1, 1, 8, 10}, r.clock-uint32(b[5])), 0, 0, 0, 0)
	} else {
		r.clock += uint32(b[5] & 7)
	}
	r.lost = b[4]&128 != 0
	r.sends(p)
	r.lost = false
}
