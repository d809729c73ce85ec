package e2e

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/thurward/thurward/internal/host/vmm"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// with boots the image of a changed policy.
func with(t *testing.T, kvm bool, change func(*ruleset.Policy)) *lab {
	t.Helper()
	l := newLab(t, kvm, func(c *vmm.Config) { c.Image = linked(t, change) })
	l.awaitReady()
	return l
}

// allow puts a rule without conditions but the protocol on the way out in
// front of all others.
func allow(p *ruleset.Policy, proto uint8) {
	p.Rules = append([]ruleset.Rule{{Action: ruleset.Accept}}, p.Rules...)
	for i := range p.Matches {
		p.Matches[i].Rule++
	}
	m := ruleset.Match{Action: ruleset.Accept, Proto: proto, Direction: verdict.Egress, PortHi: 65535}
	p.Matches = append([]ruleset.Match{m}, p.Matches...)
}

// TestRFC4787_REQ14_ImagePassesFragments: a large datagram whose fragments come
// in the wrong order leaves the image whole, in order, translated, once its last
// fragment is there.
func TestRFC4787_REQ14_ImagePassesFragments(t *testing.T) {
	each(t, func(t *testing.T, kvm bool) {
		l := with(t, kvm, func(p *ruleset.Policy) {
			p.Settings.Fragments = ruleset.FragmentsReassemble
			allow(p, packet.UDP)
		})
		got := make(chan []byte, 100)
		l.WANSwitch.Tap(func(_ string, f []byte) {
			if packet.Type(f) == packet.TypeIPv4 && f[packet.EthLen+9] == packet.UDP {
				got <- append([]byte(nil), f...)
			}
		})
		s := l.sprayer()
		fs := fragments(3000)
		for _, i := range []int{2, 1, 0} {
			select {
			case f := <-got:
				t.Fatalf("a frame of %d bytes left before the datagram was whole", len(f))
			case <-time.After(silence / 3):
			}
			s.p.Send(fs[i])
		}
		var data []byte
		for range fs {
			select {
			case f := <-got:
				ip := f[packet.EthLen:]
				if netip.AddrFrom4([4]byte(ip[12:])) != outside || int(binary.BigEndian.Uint16(ip[6:])&0x1fff)*8 != len(data) || packet.Sum(ip[:20], 0) != 0xffff {
					t.Fatalf("after %d bytes: %x", len(data), ip[:28])
				}
				data = append(data, ip[20:]...)
			case <-time.After(limit):
				t.Fatalf("%d bytes left", len(data))
			}
		}
		if len(data) != 3008 || packet.Sum(data, uint64(203<<24|113<<8|10)+uint64(198<<24|51<<16|100<<8|80)+packet.UDP+3008) != 0xffff {
			t.Errorf("%d bytes left, or their checksum is wrong", len(data))
		}
	})
}

// fragments returns the fragments of a UDP datagram with n bytes of data from
// the sprayer to 198.51.100.80.
func fragments(n int) [][]byte {
	const dst = 198<<24 | 51<<16 | 100<<8 | 80
	f := make([]byte, packet.EthLen+packet.MinIPv4+packet.UDPLen+n)
	packet.PutEth(f, &[6]byte{0x52, 0x54, 0, 0x74, 0x68, 1}, &sprayMAC, packet.TypeIPv4)
	packet.PutIPv4(f[packet.EthLen:], sprayAddr, dst, packet.UDP, 64, packet.UDPLen+n)
	u := f[packet.EthLen+packet.MinIPv4:]
	binary.BigEndian.PutUint16(u, 4000)
	binary.BigEndian.PutUint16(u[2:], 9000)
	binary.BigEndian.PutUint16(u[4:], uint16(packet.UDPLen+n))
	for i := range u[packet.UDPLen:] {
		u[packet.UDPLen+i] = byte(i>>8 ^ i)
	}
	binary.BigEndian.PutUint16(u[6:], ^packet.Sum(u, uint64(sprayAddr)+dst+packet.UDP+uint64(len(u))))
	var fs [][]byte
	c := packet.NewCutter(f[packet.EthLen:], 1500)
	for {
		b := make([]byte, packet.EthLen+1500)
		k := c.Next(b[packet.EthLen:])
		if k == 0 {
			return fs
		}
		copy(b, f[:packet.EthLen])
		fs = append(fs, b[:packet.EthLen+k])
	}
}

// TestImageRejects: who is rejected knows at once.
func TestImageRejects(t *testing.T) {
	each(t, func(t *testing.T, kvm bool) {
		l := with(t, kvm, func(p *ruleset.Policy) { p.Settings.DefaultAction = ruleset.Reject })
		c, err := l.Alice.DialTCP(soon(t), netip.AddrPortFrom(l.Web.Addr, 25))
		if err == nil {
			c.Close()
			t.Fatal("connected to a port that no rule allows")
		}
		if errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "refused") {
			t.Errorf("%v; want that it was refused", err)
		}
		l.event(match{Action: "drop", RuleID: "default-reject", Transport: "tcp", Direction: "egress", SrcIP: l.Alice.Addr.String(), DstPort: 25})
	})
}

// TestImageNarrowWAN: TCP between hosts with larger MTUs works across a
// narrower WAN, without a segment that would have to be cut.
func TestImageNarrowWAN(t *testing.T) {
	each(t, func(t *testing.T, kvm bool) {
		l := with(t, kvm, func(p *ruleset.Policy) { p.Interfaces[1].MTU = 1000 })
		long := 0
		l.WANSwitch.Tap(func(_ string, f []byte) {
			if len(f) > 1014 {
				long++
			}
		})
		const n = 300_000
		got, err := l.get(soon(t), l.Alice, fmt.Sprintf("/bytes/%d", n))
		if err != nil || len(got) != n {
			t.Fatalf("%d bytes, %v", len(got), err)
		}
		if long != 0 {
			t.Errorf("%d frames were longer than the WAN carries", long)
		}
	})
}
