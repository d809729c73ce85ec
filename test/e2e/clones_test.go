package e2e

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/miekg/dns"

	"github.com/thurward/thurward/internal/host/netlab"
	"github.com/thurward/thurward/internal/host/policy/policytest"
	"github.com/thurward/thurward/internal/host/vmm"
)

// drawn is what an observer sees of a firewall's random numbers.
type drawn struct {
	DNSPort, DNSID uint16 // of a query to the upstream
	Name           string // and the case of its letters
	Seq            uint32 // of an answer to a connection
	NATPort        uint16 // of a flow that cannot have its own
}

// differ names the numbers of two firewalls that are the same.
func (d drawn) differ(e drawn) (same []string) {
	for name, equal := range map[string]bool{"DNS port": d.DNSPort == e.DNSPort, "DNS id": d.DNSID == e.DNSID, "letter case": d.Name == e.Name,
		"sequence number": d.Seq == e.Seq, "NAT port": d.NATPort == e.NATPort} {
		if equal {
			same = append(same, name)
		}
	}
	return same
}

// A wire is both sides of a firewall, on which a test writes frames: two hosts of the LAN
// and the gateway.
type wire struct {
	t        *testing.T
	lan, wan *netlab.Switch
	port     [2]*netlab.Port
	got      [2]chan gopacket.Packet
}

var (
	wireMAC  = net.HardwareAddr{2, 0x77, 0, 0, 0, 9}
	fwLAN    = net.IP{10, 0, 0, 1}
	wireHost = [2]net.IP{{10, 0, 0, 71}, {10, 0, 0, 72}}
)

func newWire(t *testing.T) *wire {
	w := &wire{t: t, lan: netlab.NewSwitch("lan"), wan: netlab.NewSwitch("wan")}
	for i, sw := range []*netlab.Switch{w.lan, w.wan} {
		w.got[i] = make(chan gopacket.Packet, 1000)
		w.port[i] = sw.Attach("test", func(f []byte) {
			p := gopacket.NewPacket(append([]byte(nil), f...), layers.LayerTypeEthernet, gopacket.Default)
			if a, ok := p.Layer(layers.LayerTypeARP).(*layers.ARP); ok {
				w.answer(i, a)
				return
			}
			select {
			case w.got[i] <- p:
			default:
			}
		})
	}
	return w
}

// answer answers a request for any address but the firewall's own.
func (w *wire) answer(side int, a *layers.ARP) {
	if a.Operation != layers.ARPRequest || net.IP(a.DstProtAddress).Equal(net.IP(a.SourceProtAddress)) {
		return
	}
	w.send(side, net.HardwareAddr(a.SourceHwAddress), &layers.ARP{AddrType: layers.LinkTypeEthernet, Protocol: layers.EthernetTypeIPv4, HwAddressSize: 6, ProtAddressSize: 4,
		Operation: layers.ARPReply, SourceHwAddress: wireMAC, SourceProtAddress: a.DstProtAddress, DstHwAddress: a.SourceHwAddress, DstProtAddress: a.SourceProtAddress})
}

func (w *wire) send(side int, to net.HardwareAddr, l ...gopacket.SerializableLayer) {
	typ := layers.EthernetTypeIPv4
	if _, ok := l[0].(*layers.ARP); ok {
		typ = layers.EthernetTypeARP
	}
	b := gopacket.NewSerializeBuffer()
	all := append([]gopacket.SerializableLayer{&layers.Ethernet{SrcMAC: wireMAC, DstMAC: to, EthernetType: typ}}, l...)
	if err := gopacket.SerializeLayers(b, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, all...); err != nil {
		w.t.Error(err)
		return
	}
	w.port[side].Send(b.Bytes())
}

// fromLAN sends a packet of a host of the LAN to the firewall or through it.
func (w *wire) fromLAN(src, dst net.IP, l4 interface {
	gopacket.SerializableLayer
	SetNetworkLayerForChecksum(gopacket.NetworkLayer) error
}, payload []byte) {
	w.t.Helper()
	mac, _ := net.ParseMAC(vmm.DefaultMAC(vmm.LAN)) //nolint:errcheck // a constant
	ip := &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolUDP, SrcIP: src, DstIP: dst}
	if _, ok := l4.(*layers.TCP); ok {
		ip.Protocol = layers.IPProtocolTCP
	}
	if err := l4.SetNetworkLayerForChecksum(ip); err != nil {
		w.t.Fatal(err)
	}
	w.send(0, mac, ip, l4, gopacket.Payload(payload))
}

// await returns the first packet on a side that f takes.
func (w *wire) await(side int, what string, f func(gopacket.Packet) bool) {
	w.t.Helper()
	for late := time.After(limit); ; {
		select {
		case p := <-w.got[side]:
			if f(p) {
				return
			}
		case <-late:
			w.t.Fatalf("no %s within %v", what, limit)
		}
	}
}

// drain forgets what has come so far.
func (w *wire) drain() {
	for i := range w.got {
		for len(w.got[i]) > 0 {
			<-w.got[i]
		}
	}
}

// draw makes the firewall send what needs random numbers, beginning with a port of the
// hosts. It sends nothing twice, and waits for each: two machines with one state see the
// same.
func (w *wire) draw(port uint16) (d drawn) {
	w.t.Helper()
	w.drain()
	q := new(dns.Msg)
	q.SetQuestion("a.long.name.of.many.letters.example.test.", dns.TypeA)
	q.Id = 4711
	b, err := q.Pack()
	if err != nil {
		w.t.Fatal(err)
	}
	w.fromLAN(wireHost[0], fwLAN, &layers.UDP{SrcPort: layers.UDPPort(port), DstPort: 53}, b)
	w.await(1, "query to the upstream", func(p gopacket.Packet) bool {
		u, ok := p.Layer(layers.LayerTypeUDP).(*layers.UDP)
		m := new(dns.Msg)
		if !ok || u.DstPort != 53 || m.Unpack(u.Payload) != nil || len(m.Question) == 0 {
			return false
		}
		d.DNSPort, d.DNSID, d.Name = uint16(u.SrcPort), m.Id, m.Question[0].Name
		return true
	})
	w.fromLAN(wireHost[0], fwLAN, &layers.TCP{SrcPort: layers.TCPPort(port), DstPort: 53, SYN: true, Seq: 1, Window: 65535}, nil)
	w.await(0, "answer to a SYN", func(p gopacket.Packet) bool {
		c, ok := p.Layer(layers.LayerTypeTCP).(*layers.TCP)
		if !ok || c.SrcPort != 53 || c.DstPort != layers.TCPPort(port) || !c.SYN || !c.ACK { // an answer of before may be repeated
			return false
		}
		d.Seq = c.Seq
		return true
	})
	for i, h := range wireHost { // the second cannot have the port of the first
		w.fromLAN(h, net.IP{198, 51, 100, 80}, &layers.UDP{SrcPort: layers.UDPPort(port + 1), DstPort: 9999}, []byte("out"))
		w.await(1, "packet of a new flow", func(p gopacket.Packet) bool {
			u, ok := p.Layer(layers.LayerTypeUDP).(*layers.UDP)
			if ok && u.DstPort == 9999 && i == 1 {
				d.NATPort = uint16(u.SrcPort)
			}
			return ok && u.DstPort == 9999
		})
	}
	return d
}

// clonesImage is the image of a policy under which draw's packets pass.
func clonesImage(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "thurward.img")
	rules := strings.Replace(fmt.Sprintf(names, 100), "rules:\n",
		"rules:\n  - { id: allow-out, action: accept, direction: egress, source: 10.0.0.0/24, destination_port: 9999, protocol: udp }\n", 1)
	if err := link(path, policytest.Compile(t, rules)); err != nil {
		t.Fatal(err)
	}
	return path
}

// machine is one of QEMU's with both networks on the wire, which devices of a kind join.
func (w *wire) machine(ctx context.Context, image string, args []string, device string) *stoppable {
	w.t.Helper()
	args = append(slices.Clone(args), "-kernel", image, "-global", "virtio-mmio.force-legacy=false",
		"-append", "thurward.events=console thurward.lan="+vmm.DefaultMAC(vmm.LAN)+" thurward.wan="+vmm.DefaultMAC(vmm.WAN))
	for i, sw := range []*netlab.Switch{w.lan, w.wan} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			w.t.Fatal(err)
		}
		w.t.Cleanup(func() { l.Close() })
		go sw.Serve(l, "firewall")
		mac := vmm.DefaultMAC([]vmm.Role{vmm.LAN, vmm.WAN}[i])
		args = append(args, "-netdev", fmt.Sprintf("socket,id=n%d,connect=%s", i, l.Addr()), "-device", fmt.Sprintf("%s,netdev=n%d,mac=%s", device, i, mac))
	}
	return startStoppable(ctx, w.t, args)
}

// TestRestoresDiffer: two machines that QEMU restores from one saved state send different
// numbers, and say that they were restored. Without a generation id they cannot know, and
// send the same: so the test would notice.
func TestRestoresDiffer(t *testing.T) {
	t.Parallel()
	if _, err := vmm.FindQEMU(); err != nil {
		t.Skip(err)
	}
	image := clonesImage(t)
	for name, device := range map[string][]string{"vmgenid": {"-device", "vmgenid,guid=auto"}, "nothing": nil} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			w := newWire(t)
			args := append([]string{"-accel", "tcg", "-cpu", "max", "-M", "pc"}, device...)
			s := w.machine(ctx, image, args, "virtio-net-pci")
			w.draw(4000) // both neighbours are known from now on
			state := filepath.Join(t.TempDir(), "state")
			s.execute("stop")
			s.save(ctx, state)
			s.end() //nolint:errcheck // it may have ended
			var of [2]drawn
			for i := range of {
				r := w.machine(ctx, image, append(slices.Clone(args), "-incoming", "exec:cat "+state), "virtio-net-pci")
				r.resume(ctx)
				of[i] = w.draw(5000)
				if told := r.said("restored"); told != (device != nil) {
					t.Errorf("restore %d: said that it was restored: %v", i, told)
				}
				r.end() //nolint:errcheck // it may have ended
			}
			same := of[0].differ(of[1])
			t.Logf("%+v and %+v", of[0], of[1])
			if device != nil && len(same) > 0 {
				t.Errorf("two restores send the same %s", strings.Join(same, ", "))
			}
			if device == nil && len(same) != 5 {
				t.Errorf("without a generation id the same are only %q: the test would not notice", same)
			}
		})
	}
}

// TestNamesAfterStop: a name does not open its address for longer than its TTL because the
// machine stood still, and opens it before.
func TestNamesAfterStop(t *testing.T) {
	if _, err := vmm.FindQEMU(); err != nil {
		t.Skip(err)
	}
	t.Parallel() // with TestDrift: both wait most of the time
	image := clonesImage(t)
	for name, accel := range map[string][]string{"tcg": {"-accel", "tcg", "-cpu", "max"}, "kvm": {"-accel", "kvm", "-cpu", "host,-arch-capabilities"}} {
		t.Run(name, func(t *testing.T) {
			if why := noKVM(); name == "kvm" && why != "" && !softwareKVM() {
				t.Skip(why)
			}
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			w := newWire(t)
			s := w.machine(ctx, image, append(accel, "-M", "microvm,rtc=on"), "virtio-net-device")
			const ttl, gap = 16, 16 * time.Second
			time.Sleep(3 * time.Second) // a real-time clock is first read for a second
			web := net.IP{198, 51, 100, 80}
			w.resolve("www.example.test.", web, ttl)
			resolved := time.Now()
			if !w.opens(6000, web) {
				t.Fatal("a name does not open its address")
			}
			s.execute("stop")
			time.Sleep(gap / 2)
			s.resume(ctx)
			time.Sleep(4 * time.Second)
			if !w.opens(6001, web) {
				t.Errorf("after %v, of which it stood still for half, a name of %d s is gone", time.Since(resolved), ttl)
			}
			s.execute("stop")
			time.Sleep(gap / 2)
			s.resume(ctx)
			resumed := time.Now()
			for port := uint16(6002); w.connects(port, web); port++ {
				if time.Since(resumed) > 5*time.Second {
					t.Fatalf("%v after it was resolved a name of %d s still opens its address", time.Since(resolved), ttl)
				}
			}
			t.Logf("it was gone %v after going on, when the machine had run for %v since it was resolved", time.Since(resumed), time.Since(resolved)-gap)
		})
	}
}

// resolve has a host ask for the address of a name, and answers for the upstream.
func (w *wire) resolve(name string, a net.IP, ttl uint32) {
	w.t.Helper()
	w.drain()
	q := new(dns.Msg)
	q.SetQuestion(name, dns.TypeA)
	b, err := q.Pack()
	if err != nil {
		w.t.Fatal(err)
	}
	w.fromLAN(wireHost[0], fwLAN, &layers.UDP{SrcPort: 4000, DstPort: 53}, b)
	w.await(1, "query to the upstream", func(p gopacket.Packet) bool {
		u, ok := p.Layer(layers.LayerTypeUDP).(*layers.UDP)
		m := new(dns.Msg)
		if !ok || u.DstPort != 53 || m.Unpack(u.Payload) != nil {
			return false
		}
		r := new(dns.Msg).SetReply(m)
		r.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: m.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: ttl}, A: a}}
		b, err := r.Pack()
		if err != nil {
			w.t.Fatal(err)
		}
		query := p.NetworkLayer().(*layers.IPv4)
		answer := &layers.UDP{SrcPort: 53, DstPort: u.SrcPort}
		ip := &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolUDP, SrcIP: query.DstIP, DstIP: query.SrcIP}
		answer.SetNetworkLayerForChecksum(ip) //nolint:errcheck // IPv4
		w.send(1, p.LinkLayer().(*layers.Ethernet).SrcMAC, ip, answer, gopacket.Payload(b))
		return true
	})
	w.await(0, "answer to the host", func(p gopacket.Packet) bool {
		u, ok := p.Layer(layers.LayerTypeUDP).(*layers.UDP)
		return ok && u.SrcPort == 53
	})
}

// connects reports whether a SYN of a host passes to port 80 of an address.
func (w *wire) connects(port uint16, a net.IP) bool {
	w.t.Helper()
	w.drain()
	w.fromLAN(wireHost[0], a, &layers.TCP{SrcPort: layers.TCPPort(port), DstPort: 80, SYN: true, Seq: 1, Window: 65535}, nil)
	for late := time.After(silence); ; {
		select {
		case p := <-w.got[1]:
			if c, ok := p.Layer(layers.LayerTypeTCP).(*layers.TCP); ok && c.DstPort == 80 {
				return true
			}
		case <-late:
			return false
		}
	}
}

// opens is connects for what must pass: on a busy host a packet may take longer.
func (w *wire) opens(port uint16, a net.IP) bool {
	w.t.Helper()
	for end := time.Now().Add(2 * time.Second); time.Now().Before(end); {
		if w.connects(port, a) {
			return true
		}
	}
	return false
}

// TestBehindIOMMU: devices that insist on the platform's way to memory work, with an IOMMU
// that passes everything until it is programmed, as QEMU's do.
func TestBehindIOMMU(t *testing.T) {
	t.Parallel()
	if _, err := vmm.FindQEMU(); err != nil {
		t.Skip(err)
	}
	image := clonesImage(t)
	for name, device := range map[string]string{"intel-iommu": "intel-iommu", "virtio-iommu": "virtio-iommu-pci", "none": ""} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			args := []string{"-accel", "tcg", "-cpu", "max", "-M", "q35"}
			if device != "" {
				args = append(args, "-device", device)
			}
			w := newWire(t)
			w.machine(ctx, image, args, "virtio-net-pci,disable-legacy=on,iommu_platform=on")
			w.draw(4000)
			if w.connects(5000, net.IP{198, 51, 100, 80}) {
				t.Error("a connection passes that no rule allows")
			}
		})
	}
}
