package router

import (
	"bytes"
	"reflect"
	"testing"

	"pgregory.net/rapid"

	"github.com/thurward/thurward/internal/guest/conntrack"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
)

// TestFastPathIsForward sends the same packets of established flows, and of some
// that break their rules, through two firewalls, of which one has no marked
// path, and compares everything that can be seen of them.
func TestFastPathIsForward(t *testing.T) {
	total := 0 // directions that were marked
	rapid.Check(t, func(r *rapid.T) {
		var ls [2]*lab
		for i := range ls {
			ls[i] = newLabWith(t, func(p *ruleset.Policy) {
				p.DNAT = []ruleset.DNAT{hairpinned(dnat(packet.UDP, ours, 9000, 9000, server, 53)), dnat(packet.TCP, ours, 9000, 9000, server, 80)}
				p.Interfaces[1].MTU = 1000
				p.Settings.TCPEstablished = 1000
			}, "deny egress -> 192.0.2.66", "accept egress", "accept ingress -> 10.0.0.5", established)
			ls[i].t = fatal{t, r}
		}
		ls[1].e.plain = true
		var ports [2]uint16
		for i, l := range ls {
			ports[i] = l.handshake(host, 4000, web, 80)
		}
		if ports[0] != ports[1] {
			r.Fatalf("ports %v", ports)
		}
		seqs := rapid.SampledFrom([]uint32{1001, 1006, 5001, 5006, 5000, 90_000, 1001 + 8192, 5001 + 8192})
		r.Repeat(map[string]func(*rapid.T){
			"packet": func(r *rapid.T) {
				from := rapid.IntRange(0, 1).Draw(r, "from")
				p := pkt{proto: rapid.SampledFrom([]uint8{packet.TCP, packet.UDP}).Draw(r, "proto"), win: rapid.SampledFrom([]uint16{0, 100, 8192}).Draw(r, "win"), df: rapid.Bool().Draw(r, "df"),
					flags: rapid.SampledFrom([]uint8{packet.ACK, packet.ACK, packet.ACK | packet.PSH, packet.SYN, packet.RST, packet.FIN | packet.ACK, packet.SYN | packet.ACK, 0}).Draw(r, "flags"),
					seq:   seqs.Draw(r, "seq"), ack: seqs.Draw(r, "ack"), ttl: rapid.SampledFrom([]uint8{64, 64, 64, 2, 1, 255}).Draw(r, "ttl"),
					data: make([]byte, rapid.SampledFrom([]int{0, 5, 60, 970, 980}).Draw(r, "size"))}
				if from == lan {
					p.src, p.sport = rapid.SampledFrom([]string{host, server}).Draw(r, "src"), rapid.SampledFrom([]uint16{4000, 53, 80}).Draw(r, "sport")
					p.dst, p.dport = rapid.SampledFrom([]string{web, web, ours, "192.0.2.66"}).Draw(r, "dst"), rapid.SampledFrom([]uint16{80, 9000, 4000}).Draw(r, "dport")
				} else {
					p.src, p.sport = rapid.SampledFrom([]string{web, web, host}).Draw(r, "src"), rapid.SampledFrom([]uint16{80, 9000, 4000}).Draw(r, "sport")
					p.dst, p.dport = ours, rapid.SampledFrom([]uint16{ports[0], 9000}).Draw(r, "dport")
				}
				f := p.frame([...][6]byte{lanMAC, wanMAC}[from])
				switch rapid.IntRange(0, 9).Draw(r, "defect") {
				case 0: // a broken byte
					f[rapid.IntRange(0, min(len(f), 60)-1).Draw(r, "at")] ^= rapid.Byte().Draw(r, "byte")
				case 1: // UDP without a checksum
					if p.proto == packet.UDP {
						f[40], f[41] = 0, 0
					}
				case 2: // padding
					f = append(f, 1, 2, 3)
				}
				more := rapid.Bool().Draw(r, "more") // then they come in one batch
				for _, l := range ls {
					l.port[from].in = append(l.port[from].in, bytes.Clone(f))
					if !more {
						l.run()
					}
				}
			},
			"wait": func(r *rapid.T) {
				s := rapid.Float64Range(0.01, 200).Draw(r, "seconds")
				for _, l := range ls {
					l.pass(s)
				}
			},
			"": func(r *rapid.T) {
				a, b := ls[0], ls[1]
				for i := range a.port {
					if !reflect.DeepEqual(a.port[i].out, b.port[i].out) {
						r.Fatalf("port %d sent %x, plainly %x", i, a.port[i].out, b.port[i].out)
					}
					a.port[i].out, b.port[i].out = nil, nil
				}
				if !reflect.DeepEqual(a.seen, b.seen) {
					r.Fatalf("events %+v, plainly %+v", a.seen, b.seen)
				}
				a.seen, b.seen = nil, nil
				x, y := *a.e.Counters(), *b.e.Counters()
				if !reflect.DeepEqual(x, y) {
					r.Fatalf("counters %+v, plainly %+v", x, y)
				}
				if a.e.flows.C != b.e.flows.C {
					r.Fatalf("table %+v, plainly %+v", a.e.flows.C, b.e.flows.C)
				}
				for ref := conntrack.Ref(0); ref < 64; ref++ {
					if d := a.e.flows.Dir(ref); *d != d.Unmarked() {
						total++
					}
					if d, o := a.e.flows.Dir(ref).Unmarked(), b.e.flows.Dir(ref).Unmarked(); d != o || *a.e.flows.Shared(ref) != *b.e.flows.Shared(ref) {
						r.Fatalf("direction %d: %+v, plainly %+v", ref, d, o)
					}
				}
			},
		})
	})
	if total == 0 {
		t.Fatal("no direction was ever marked")
	}
}

// TestPlainIsPlain: what the fast path is compared with does not take it.
func TestPlainIsPlain(t *testing.T) {
	for _, plain := range []bool{false, true} {
		l := newLab(t, "accept egress", established)
		l.e.plain = plain
		v := l.one(lan, udp(host, 4000, web, 5000))
		l.one(wan, udp(web, 5000, ours, v.SrcPort))
		l.one(lan, udp(host, 4000, web, 5000))
		l.e.b.pk[0] = received{}
		l.one(lan, udp(host, 4000, web, 5000))
		if took := l.e.b.pk[0].in == nil; took == plain { // it is not filled in
			t.Errorf("plain %v: it took the fast path: %v", plain, took)
		}
	}
}
