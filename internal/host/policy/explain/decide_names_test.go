package explain_test

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/thurward/thurward/internal/guest/export"
	"github.com/thurward/thurward/internal/host/ecs"
	"github.com/thurward/thurward/internal/host/ingest"
	"github.com/thurward/thurward/internal/host/policy"
	"github.com/thurward/thurward/internal/host/policy/explain"
	"github.com/thurward/thurward/internal/host/replay"
	"github.com/thurward/thurward/internal/shared/event"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// A question is what is resolved before a packet.
type question struct {
	by   netip.Addr // who asks
	name string
	addr netip.Addr // of the answer
	ttl  uint32
	ago  time.Duration // when the packet comes, after that
}

// randomQuestion gives a flow a name, and returns how somebody comes to know it.
func randomQuestion(r *rand.Rand, p *policy.Policy, f *policy.Flow) *question {
	if r.IntN(4) != 0 { // mostly to somewhere outside, or to the firewall itself
		f.Dst = netip.AddrPortFrom(netip.MustParseAddr([]string{"198.51.100.66", "192.0.2.1", "10.0.0.1"}[r.IntN(3)]), f.Dst.Port())
	}
	q := &question{by: f.Src.Addr(), addr: f.Dst.Addr(), ttl: []uint32{0, 1, 30, 60, 300}[r.IntN(5)]}
	q.name = []string{"a.example", "a.example", "www.a.example", "deep.www.a.example", "host.b.example", "x.b.example", "x.b.example", "other.org"}[r.IntN(8)]
	if r.IntN(2) == 0 {
		q.ttl = 300
	}
	q.ago = time.Duration(1+r.IntN(1000)) * 100 * time.Millisecond
	f.FQDN = q.name
	f.Naming, f.Ago = explain.Resolved(p, q.ago, time.Duration(q.ttl)*time.Second)
	if r.IntN(4) == 0 {
		q.by = netip.MustParseAddr("10.0.0.77")
		if f.Naming == policy.NameExpired { // for everybody
			q.ttl, q.ago = 300, time.Second
		}
		f.Naming, f.Ago = policy.NameOthers, 0
	}
	return q
}

// ask has the question asked and answered and returns when the packet comes.
func (q *question) ask(t *testing.T, fw *replay.Firewall, last *[2][]byte) int64 {
	t.Helper()
	const start = replay.Start + int64(1e9)
	from := netip.AddrPortFrom(q.by, 5353)
	m := new(dns.Msg)
	m.SetQuestion(dns.Fqdn(q.name), dns.TypeA)
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	last[replay.WAN] = nil
	fw.Receive(replay.LAN, start, gram(from, netip.MustParseAddrPort("10.0.0.1:53"), b, fw.MAC(replay.LAN)))
	fw.Advance(start + 1e6)
	fr := last[replay.WAN]
	if len(fr) > 42 && fr[12] == 8 && fr[23] == 17 && binary.BigEndian.Uint16(fr[36:]) == 53 {
		up := new(dns.Msg)
		if err := up.Unpack(fr[42:]); err != nil {
			t.Fatal(err)
		}
		re := new(dns.Msg)
		re.SetReply(up)
		re.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: up.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: q.ttl}, A: q.addr.AsSlice()}}
		if b, err = re.Pack(); err != nil {
			t.Fatal(err)
		}
		src, dst := netip.AddrFrom4([4]byte(fr[26:])), netip.AddrFrom4([4]byte(fr[30:]))
		fw.Receive(replay.WAN, start+1e6, gram(netip.AddrPortFrom(dst, 53), netip.AddrPortFrom(src, binary.BigEndian.Uint16(fr[34:])), b, fw.MAC(replay.WAN)))
	}
	at := start + 1e6 + int64(q.ago)
	fw.Advance(at - 1)
	return at
}

// gram makes a UDP packet.
func gram(src, dst netip.AddrPort, data []byte, mac [6]byte) []byte {
	b := frameOf(policy.Flow{Protocol: policy.UDP, Src: src, Dst: dst}, mac, [6]byte{2, 9, 9, 9, 9, 9})[:42]
	b = append(b, data...)
	if len(data)%2 != 0 {
		b = append(b, 0)
	}
	put := binary.BigEndian.PutUint16
	ip, u := b[14:34], b[34:]
	put(ip[2:], uint16(28+len(data)))
	put(ip[10:], 0)
	put(ip[10:], checksum(ip))
	put(u[4:], uint16(8+len(data)))
	put(u[6:], 0)
	pseudo := append(slices.Clone(ip[12:20]), 0, 17, byte((8+len(data))>>8), byte(8+len(data)))
	put(u[6:], checksum(append(pseudo, u...)))
	return b[:42+len(data)]
}

// answerTo makes the first packet with which the other side answers one that has
// left.
func answerTo(fr []byte, mac [6]byte) []byte {
	src, dst := netip.AddrFrom4([4]byte(fr[30:])), netip.AddrFrom4([4]byte(fr[26:]))
	sport, dport := binary.BigEndian.Uint16(fr[36:]), binary.BigEndian.Uint16(fr[34:])
	f := policy.Flow{Protocol: policy.Protocol(fr[23]), Src: netip.AddrPortFrom(src, sport), Dst: netip.AddrPortFrom(dst, dport)}
	b := frameOf(f, mac, [6]byte{2, 9, 9, 9, 9, 9})
	put := binary.BigEndian.PutUint16
	switch l4 := b[34:]; f.Protocol {
	case policy.TCP:
		l4[13] = 0x12 // SYN, ACK
		binary.BigEndian.PutUint32(l4[8:], binary.BigEndian.Uint32(fr[38:])+1)
		put(l4[16:], 0)
		put(l4[16:], checksum(append(append(slices.Clone(b[26:34]), 0, 6, 0, 20), l4...)))
	case policy.ICMP:
		copy(l4, fr[34:54])
		l4[0] = 0
		put(l4[2:], 0)
		put(l4[2:], checksum(l4))
	}
	return b
}

// reproduced returns what is wrong with the commands that events --explain
// prints: each must give the event's verdict, rule and hint.
func reproduced(p *policy.Policy, rs *ruleset.Policy, events []event.Record, names []string, met map[string]int) string {
	ctx := export.Context{Policy: rs, Clock: "none"}
	for i := range events {
		line := string(export.AppendNamed(nil, &events[i], []byte(names[i]), &ctx))
		it := ingest.Parse(line)
		cmd := ecs.Explain(it.Event)
		if cmd == "" {
			continue
		}
		w, unknown := words(cmd)
		f, err := explain.ParseFlow(p, w)
		if err != nil || unknown != "" {
			return fmt.Sprintf("%s: %v %s", cmd, err, unknown)
		}
		o := explain.Decide(p, rs, f)
		if (events[i].Action == verdict.Accept) != o.Accept || events[i].Reason != o.Reason || o.Asked && (o.Accept || o.Action != ruleset.Accept) && int(events[i].Rule) != o.Rule || events[i].Hint.Name() != o.Hint.Name() {
			return fmt.Sprintf("%s\ngives accept %v, %v, rule %s, hint %q; the event is %s", cmd, o.Accept, o.Reason, p.RuleID(o.Rule), o.Hint.Name(), line)
		}
		met["reproduced"]++
		met[o.Reason.String()]++
	}
	return ""
}

// words reads the command line of thurward explain.
func words(cmd string) (w explain.FlowWords, unknown string) {
	args := strings.Fields(strings.TrimPrefix(cmd, "thurward explain"))
	into := map[string]*string{"--from": &w.From, "--proto": &w.Proto, "--src": &w.Src, "--dst": &w.Dst, "--fqdn": &w.FQDN, "--state": &w.State, "--expired": &w.Expired}
	for i := 0; i < len(args); i++ {
		switch v := into[args[i]]; {
		case args[i] == "--by-other":
			w.Others = true
		case v != nil && i+1 < len(args):
			i++
			*v = args[i]
		default:
			return w, args[i]
		}
	}
	return w, ""
}
