package e2e

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"github.com/thurward/thurward/internal/host/ecs"
	"github.com/thurward/thurward/internal/host/netlab"
	"github.com/thurward/thurward/internal/host/policy/policytest"
	"github.com/thurward/thurward/internal/host/vmm"
)

// imageOf links the image of a policy's text.
func imageOf(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "thurward.img")
	if err := link(path, policytest.Compile(t, text)); err != nil {
		t.Fatal(err)
	}
	return path
}

const forwarding = `
interfaces:
  lan0: { address: 10.0.0.1/24 }
  wan0: { address: 203.0.113.10/24, gateway: 203.0.113.1 }
defaults: { default_action: deny }
nat:
  dnat:
    - { wan_ip: 203.0.113.10, wan_port: 443, to: "10.0.0.2:8443", proto: tcp }
rules:
  - { id: www, action: accept, direction: ingress, destination: 10.0.0.2, destination_port: 8443, protocol: tcp }
  - { id: answers, action: accept, direction: egress, state: established }
`

// TestS20_PortForward: a client of the WAN reaches a server of the LAN by the
// external address and port; the filter and the server see the server's own, and
// the answers leave with the external ones (also S23).
func TestS20_PortForward(t *testing.T) {
	each(t, func(t *testing.T, kvm bool) {
		l := newLab(t, kvm, func(c *vmm.Config) { c.Image = imageOf(t, forwarding) })
		l.awaitReady()
		leaked := seen(l.WANSwitch, l.Alice.Addr)
		server, err := l.Alice.ListenTCP(8443)
		if err != nil {
			t.Fatal(err)
		}
		defer server.Close()
		go func() {
			for {
				c, err := server.Accept()
				if err != nil {
					return
				}
				fmt.Fprintf(c, "you are %v, I am %v", c.RemoteAddr(), c.LocalAddr())
				c.Close()
			}
		}()
		c, err := l.Mallory.DialTCP(soon(t), netip.AddrPortFrom(outside, 443))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		got, err := io.ReadAll(c)
		want := fmt.Sprintf("you are %v, I am 10.0.0.2:8443", c.LocalAddr())
		if err != nil || string(got) != want {
			t.Errorf("%q, %v; want %q", got, err, want)
		}
		e := l.event(match{Action: "accept", RuleID: "www", Direction: "ingress", SrcIP: l.Mallory.Addr.String(), DstIP: outside.String(), DstPort: 443})
		if e.Translated() != netip.MustParseAddrPort("10.0.0.2:8443") || e.Str(ecs.EventReason) != "rule" {
			t.Errorf("translated to %v, reason %q", e.Translated(), e.Str(ecs.EventReason))
		}
		l.event(match{Action: "accept", RuleID: "answers", Direction: "egress", SrcIP: "10.0.0.2", SrcPort: 8443})
		if n := leaked(); n != 0 {
			t.Errorf("%d frames left with the server's own address", n)
		}
	})
}

// open accepts whatever the firewall might listen to.
const open = `
interfaces:
  lan0: { address: 10.0.0.1/24 }
  wan0: { address: 203.0.113.10/24, gateway: 203.0.113.1 }
defaults: { default_action: accept, upstream_dns: 198.51.100.53 }
rules: []
`

// A scanner is a host that sends to every port of an address, and keeps what
// answers.
type scanner struct {
	port *netlab.Port
	mac  net.HardwareAddr
	ip   net.IP

	mu       sync.Mutex
	answered map[string]bool // tcp/53
	gateway  net.HardwareAddr
	replies  int      // to ARP requests
	arps     uint64   // ARP messages that were sent
	lost     [][]byte // that the switch had no room for
}

// newScanner attaches a scanner to a switch.
func newScanner(sw *netlab.Switch, ip string) *scanner {
	s := &scanner{mac: net.HardwareAddr{2, 0, 0, 0, 9, 9}, ip: net.ParseIP(ip).To4(), answered: map[string]bool{}}
	s.port = sw.Attach("scanner", s.deliver)
	sw.OnDrop(func(at string, f []byte) {
		if at == "vm" && bytes.Equal(f[6:12], s.mac) {
			s.mu.Lock()
			s.lost = append(s.lost, bytes.Clone(f))
			s.mu.Unlock()
		}
	})
	return s
}

// deliver answers ARP requests and notes what came from a port.
func (s *scanner) deliver(f []byte) {
	p := gopacket.NewPacket(f, layers.LayerTypeEthernet, gopacket.Default)
	if a, ok := p.Layer(layers.LayerTypeARP).(*layers.ARP); ok {
		if !net.IP(a.DstProtAddress).Equal(s.ip) {
			return
		}
		s.mu.Lock()
		s.gateway = net.HardwareAddr(a.SourceHwAddress)
		if a.Operation == layers.ARPReply {
			s.replies++
		}
		s.mu.Unlock()
		if a.Operation == layers.ARPRequest {
			go s.arp(layers.ARPReply, a.SourceHwAddress, a.SourceProtAddress)
		}
		return
	}
	ip, ok := p.Layer(layers.LayerTypeIPv4).(*layers.IPv4)
	if !ok || !ip.DstIP.Equal(s.ip) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch l := p.TransportLayer().(type) {
	case *layers.TCP:
		s.answered[fmt.Sprintf("tcp/%d", uint16(l.SrcPort))] = true
	case *layers.UDP:
		s.answered[fmt.Sprintf("udp/%d", uint16(l.SrcPort))] = true
	default:
		s.answered[ip.Protocol.String()] = true
	}
}

// send serializes a frame and sends it.
func (s *scanner) send(ls ...gopacket.SerializableLayer) {
	b := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(b, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, ls...); err != nil {
		panic(err) // the layers are the test's own
	}
	f := b.Bytes()
	for len(f) < 60 {
		f = append(f, 0)
	}
	s.port.Send(f)
}

func (s *scanner) arp(op uint16, mac, ip []byte) {
	s.mu.Lock()
	s.arps++
	s.mu.Unlock()
	to := net.HardwareAddr(mac)
	if op == layers.ARPRequest {
		to = net.HardwareAddr{255, 255, 255, 255, 255, 255}
	}
	s.send(&layers.Ethernet{SrcMAC: s.mac, DstMAC: to, EthernetType: layers.EthernetTypeARP},
		&layers.ARP{AddrType: layers.LinkTypeEthernet, Protocol: layers.EthernetTypeIPv4, HwAddressSize: 6, ProtAddressSize: 4, Operation: op,
			SourceHwAddress: s.mac, SourceProtAddress: s.ip, DstHwAddress: mac, DstProtAddress: ip})
}

// find asks for the address's hardware address.
func (s *scanner) find(t *testing.T, dst net.IP) net.HardwareAddr {
	t.Helper()
	for range 100 {
		s.arp(layers.ARPRequest, make([]byte, 6), dst)
		time.Sleep(50 * time.Millisecond)
		s.mu.Lock()
		at := s.gateway
		s.mu.Unlock()
		if at != nil {
			return at
		}
	}
	t.Fatalf("no answer from %v", dst)
	return nil
}

// sent returns how many ARP messages were sent.
func (s *scanner) sent() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.arps
}

// pace waits until the firewall has come so far: it answers what was asked last.
func (s *scanner) pace(t *testing.T, dst net.IP) {
	t.Helper()
	s.mu.Lock()
	before := s.replies
	s.mu.Unlock()
	for late := time.Now().Add(limit); ; {
		s.arp(layers.ARPRequest, make([]byte, 6), dst)
		for again := time.Now().Add(100 * time.Millisecond); time.Now().Before(again); time.Sleep(200 * time.Microsecond) {
			s.mu.Lock()
			n := s.replies
			s.mu.Unlock()
			if n > before {
				return
			}
		}
		if time.Now().After(late) {
			t.Fatalf("no answer from %v", dst)
		}
	}
}

// scan sends a SYN and a datagram to each port, a DNS query for that of DNS.
func (s *scanner) scan(t *testing.T, to string) {
	dst := net.ParseIP(to).To4()
	eth := &layers.Ethernet{SrcMAC: s.mac, DstMAC: s.find(t, dst), EthernetType: layers.EthernetTypeIPv4}
	query := &layers.DNS{ID: 7, RD: true, Questions: []layers.DNSQuestion{{Name: []byte("www.example.com"), Type: layers.DNSTypeA, Class: layers.DNSClassIN}}}
	for port := 1; port <= 65535; port++ {
		ip := &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolTCP, SrcIP: s.ip, DstIP: dst}
		tcp := &layers.TCP{SrcPort: 40000, DstPort: layers.TCPPort(port), Seq: 1, SYN: true, Window: 65535}
		tcp.SetNetworkLayerForChecksum(ip) //nolint:errcheck // it is IPv4
		s.send(eth, ip, tcp)
		ip.Protocol = layers.IPProtocolUDP
		udp := &layers.UDP{SrcPort: 40000, DstPort: layers.UDPPort(port)}
		udp.SetNetworkLayerForChecksum(ip) //nolint:errcheck // it is IPv4
		if port == 53 {
			s.send(eth, ip, udp, query)
		} else {
			s.send(eth, ip, udp, gopacket.Payload("?"))
		}
		switch {
		case port%64 != 0: // what the switch's queues carry
		case processors() > 1:
			s.pace(t, dst)
		default:
			time.Sleep(3 * time.Millisecond)
		}
	}
	if processors() > 1 {
		s.pace(t, dst)
		return
	}
	// On a busy host the machine takes them more slowly.
	for late := time.Now().Add(time.Minute); time.Now().Before(late); {
		s.mu.Lock()
		again := s.lost
		s.lost = nil
		s.mu.Unlock()
		if len(again) == 0 {
			return
		}
		for i, f := range again {
			s.port.Send(f)
			if i%64 == 63 {
				time.Sleep(10 * time.Millisecond)
			}
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// TestS47_NothingListens: of all ports of both sides only DNS on the LAN answers,
// under a policy that accepts all. That every packet arrived, the counters say. With several
// processors the network is of TAP devices, which drop what the machine does not take at once, and
// tell nobody: then all is sent twice, no faster than the firewall takes it, and nearly all of it must
// have arrived. What has, it counts.
func TestS47_NothingListens(t *testing.T) {
	each(t, func(t *testing.T, kvm bool) {
		l, r := watched(t, kvm, func(c *vmm.Config) { c.Image = imageOf(t, open) })
		r.mu.Lock()
		r.keep = func(string) bool { return false } // one event for each port
		r.mu.Unlock()
		const silent = `thurward_drops_total{drop_reason="no_local_service"}`
		const full = `thurward_drops_total{drop_reason="handover_full"}`
		before := r.fresh()
		for _, c := range []struct {
			sw                     *netlab.Switch
			received, scanner, dst string
			open                   []string
			dropped                uint64
		}{
			{l.LANSwitch, `thurward_interface_receive_packets_total{interface="lan"}`, "10.0.0.77", "10.0.0.1", []string{"tcp/53", "udp/53"}, 2*65535 - 2},
			{l.WANSwitch, `thurward_interface_receive_packets_total{interface="wan"}`, "203.0.113.77", "203.0.113.10", nil, 2 * 65535},
		} {
			s := newScanner(c.sw, c.scanner)
			s.scan(t, c.dst)
			least := c.dropped
			if processors() > 1 {
				s.scan(t, c.dst)
				c.dropped *= 2
				least = c.dropped * 95 / 100
			}
			// What has reached the firewall it counts, whatever the network lost: beside what it drops
			// there are names that are asked for, and ARP, of other hosts, too.
			var m map[string]uint64
			wrong := "-"
			for until := time.Now().Add(limit); wrong != "" && time.Now().Before(until); time.Sleep(100 * time.Millisecond) {
				m, wrong = r.fresh(), ""
				n, handed, arrived := m[silent]-before[silent], m[full]-before[full], m[c.received]-before[c.received]
				if n < least || n > c.dropped || arrived < n+handed || arrived > n+handed+s.sent()+20 {
					wrong = fmt.Sprintf("%d of %d packets were dropped as no_local_service, %d as handover_full; %d arrived, with up to %d of ARP", n, c.dropped, handed, arrived, s.sent())
				}
			}
			if wrong != "" {
				t.Errorf("%s: %s", c.dst, wrong)
			}
			s.mu.Lock()
			before = m
			for _, want := range c.open {
				if !s.answered[want] {
					t.Errorf("%s: %s does not answer", c.dst, want)
				}
				delete(s.answered, want)
			}
			if len(s.answered) > 0 {
				t.Errorf("%s: these answer: %s", c.dst, strings.Trim(fmt.Sprint(s.answered), "map[]"))
			}
			s.mu.Unlock()
			s.port.Detach()
		}
	})
}
