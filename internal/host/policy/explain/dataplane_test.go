package explain_test

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/thurward/thurward/internal/host/policy"
	"github.com/thurward/thurward/internal/host/policy/compile"
	"github.com/thurward/thurward/internal/host/policy/explain"
	"github.com/thurward/thurward/internal/host/replay"
	"github.com/thurward/thurward/internal/shared/event"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// firstFrame returns the frame that begins a flow.
func firstFrame(f policy.Flow, mac [6]byte) []byte {
	src, dst := f.Src.Addr().As4(), f.Dst.Addr().As4()
	var l4 []byte
	proto := byte(0)
	switch f.Protocol {
	case policy.TCP:
		proto, l4 = packet.TCP, make([]byte, 20)
		l4[12], l4[13], l4[14] = 5<<4, packet.SYN, 0x20
	case policy.UDP:
		proto, l4 = packet.UDP, make([]byte, 12)
		binary.BigEndian.PutUint16(l4[4:], 12)
	case policy.ICMP:
		proto, l4 = packet.ICMP, make([]byte, 16)
		l4[0] = packet.EchoRequest
		binary.BigEndian.PutUint16(l4[4:], uint16(rand.Uint32()))
	default:
		proto, l4 = byte(f.Protocol), make([]byte, 16)
	}
	pseudo := uint64(0)
	at := 2
	if f.Protocol == policy.TCP || f.Protocol == policy.UDP {
		binary.BigEndian.PutUint16(l4[0:], f.Src.Port())
		binary.BigEndian.PutUint16(l4[2:], f.Dst.Port())
		for _, a := range [][4]byte{src, dst} {
			pseudo += uint64(a[0])<<8 + uint64(a[1]) + uint64(a[2])<<8 + uint64(a[3])
		}
		pseudo += uint64(proto) + uint64(len(l4))
		at = map[policy.Protocol]int{policy.TCP: 16, policy.UDP: 6}[f.Protocol]
	}
	binary.BigEndian.PutUint16(l4[at:], sum(l4, pseudo))
	ip := make([]byte, 20)
	ip[0], ip[8], ip[9] = 0x45, 64, proto
	binary.BigEndian.PutUint16(ip[2:], uint16(20+len(l4)))
	copy(ip[12:], src[:])
	copy(ip[16:], dst[:])
	binary.BigEndian.PutUint16(ip[10:], sum(ip, 0))
	fr := append(mac[:len(mac):len(mac)], 2, 0, 0, 0, 9, 9, 8, 0)
	fr = append(append(fr, ip...), l4...)
	for len(fr) < 60 {
		fr = append(fr, 0)
	}
	return fr
}

// sum is the Internet checksum (RFC 1071).
func sum(b []byte, s uint64) uint16 {
	for i := 0; i+1 < len(b); i += 2 {
		s += uint64(binary.BigEndian.Uint16(b[i:]))
	}
	for s>>16 != 0 {
		s = s&0xffff + s>>16
	}
	return ^uint16(s)
}

// TestDecideIsTheDataPlane: what explain and tests say about a packet is what
// the data plane does with it: verdict, rule, reason, and the shadow rule.
func TestDecideIsTheDataPlane(t *testing.T) {
	files, err := filepath.Glob("../../../../examples/*.yaml")
	if err != nil || len(files) < 4 {
		t.Fatal(files, err)
	}
	for _, file := range append(files, "testdata/decide.yaml") {
		if filepath.Base(file) == "generated.yaml" {
			continue // ten thousand rules take long to read, and decide in no other way
		}
		t.Run(filepath.Base(file), func(t *testing.T) {
			src, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			p, ds := policy.Load(file, src)
			if p == nil {
				t.Fatal(ds)
			}
			rs, err := compile.Compile(p)
			if err != nil {
				t.Fatal(err)
			}
			var records []event.Record
			fw, err := replay.NewFirewall(replay.Config{Policy: rs, Seed: 1,
				Neighbour: func(replay.Side, packet.Addr) ([6]byte, bool) { return [6]byte{2, 0, 0, 0, 9, 9}, true },
				Event: func(r *event.Record, _ []byte) {
					if r.Kind == event.Verdict {
						records = append(records, *r)
					}
				}})
			if err != nil {
				t.Fatal(err)
			}
			r := rand.New(rand.NewPCG(1, uint64(len(file))))
			outcomes := map[string]int{}
			for i := range 1500 {
				f := randomFlow(r, p, uint16(1024+i))
				o := explain.Decide(p, rs, f)
				records = records[:0]
				side := replay.WAN
				if f.FromLAN {
					side = replay.LAN
				}
				fw.Receive(side, fw.Now()+20e9, firstFrame(f, fw.MAC(side)))
				var got *event.Record
				shadow := -1
				for j := range records {
					switch x := &records[j]; x.Action {
					case verdict.Accept, verdict.Drop:
						if got != nil {
							t.Fatalf("%v: two verdicts: %+v and %+v", f, *got, *x)
						}
						got = x
					default:
						shadow = int(x.Rule)
					}
				}
				if got == nil {
					if o.Accept && o.Local {
						outcomes["answered"]++ // nothing is told of what the firewall answers
						continue
					}
					t.Fatalf("%v: no verdict; decided %+v", f, o)
				}
				outcomes[got.Reason.String()]++
				if (got.Action == verdict.Accept) != o.Accept || got.Reason != o.Reason || o.Asked && (o.Accept || o.Action != ruleset.Accept) && int(got.Rule) != o.Rule {
					t.Fatalf("%v: the data plane: %v, %v, rule %s; decided: accept %v, %v, rule %s (%s)", f, got.Action, got.Reason, p.RuleID(int(got.Rule)), o.Accept, o.Reason, p.RuleID(o.Rule), o.Note)
				}
				if o.Asked && shadow != o.Shadow {
					t.Fatalf("%v: shadow rule %d, decided %d", f, shadow, o.Shadow)
				}
				if o.Accept && got.XlatDst && o.DNAT < 0 {
					t.Fatalf("%v: destination translated, decided without", f)
				}
			}
			t.Log(fmt.Sprint(outcomes))
			if len(outcomes) < 3 {
				t.Errorf("outcomes: %v", outcomes)
			}
		})
	}
}

// randomFlow returns a flow that begins, between addresses and ports that the
// policy knows, their neighbours, and others.
func randomFlow(r *rand.Rand, p *policy.Policy, port uint16) policy.Flow {
	f := policy.Flow{FromLAN: r.IntN(2) == 0, Protocol: []policy.Protocol{6, 6, 6, 17, 17, 1, 1, 47, 50}[r.IntN(9)]}
	var addrs []netip.Addr
	var ports []int
	for i := range p.Interfaces {
		n := p.Interfaces[i].Prefix
		addrs = append(addrs, n.Addr(), n.Addr().Next(), n.Masked().Addr(), n.Masked().Addr().Next().Next().Next())
	}
	for i := range p.DNAT {
		addrs = append(addrs, p.DNAT[i].WAN, p.DNAT[i].To)
		ports = append(ports, p.DNAT[i].Ports.Lo, p.DNAT[i].Ports.Hi, p.DNAT[i].ToPort)
	}
	for range 8 {
		if len(p.Rules) == 0 {
			break
		}
		q := &p.Rules[r.IntN(len(p.Rules))]
		for _, n := range append(q.Source, q.Destination...) {
			addrs = append(addrs, n.Addr(), n.Addr().Next())
		}
		for _, n := range q.Ports {
			ports = append(ports, n.Lo, n.Hi, min(n.Hi+1, 65535))
		}
	}
	lan := p.Interfaces[0].Prefix
	if !p.Interfaces[0].LAN {
		lan = p.Interfaces[1].Prefix
	}
	pick := func(home bool) netip.Addr {
		if r.IntN(10) < 7 {
			b := lan.Masked().Addr().As4()
			b[3] += byte(2 + r.IntN(60))
			if !home {
				b = [4]byte{198, 51, 100, byte(1 + r.IntN(250))}
			}
			if r.IntN(2) == 0 {
				return netip.AddrFrom4(b)
			}
		}
		return addrs[r.IntN(len(addrs))]
	}
	src, dst := pick(f.FromLAN), pick(!f.FromLAN)
	if f.Protocol != policy.TCP && f.Protocol != policy.UDP {
		f.Src, f.Dst = netip.AddrPortFrom(src, 0), netip.AddrPortFrom(dst, 0)
		return f
	}
	to := 1 + r.IntN(65535)
	if len(ports) > 0 && r.IntN(5) != 0 {
		to = ports[r.IntN(len(ports))]
	}
	f.Src, f.Dst = netip.AddrPortFrom(src, port), netip.AddrPortFrom(dst, uint16(to))
	return f
}
