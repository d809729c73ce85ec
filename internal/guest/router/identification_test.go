package router

import (
	"encoding/binary"
	"testing"

	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
)

// TestWhoseIdentification: a packet keeps its sender's identification, unless its source is
// translated and it may be fragmented.
func TestWhoseIdentification(t *testing.T) {
	const id = 0x1234
	for _, translated := range []bool{false, true} {
		for _, df := range []bool{false, true} {
			for name, p := range map[string]pkt{"UDP": udp(host, 4000, web, 53), "SYN": syn(host, 4000, web, 80), "ping": echo(host, web, packet.EchoRequest, 9)} {
				for _, plain := range []bool{false, true} {
					l := newLabWith(t, func(p *ruleset.Policy) {
						if !translated {
							routed(p)
						}
					}, "accept egress", established)
					l.e.plain = plain
					for i := range l.e.ids {
						l.e.ids[i] = 0x7000
					}
					p.df = df
					for range 3 { // also on the fast path
						f := p.frame(lanMAC)
						packet.SetID(f[packet.EthLen:], id)
						across, _ := l.raw(lan, f)
						if len(across) != 1 {
							t.Fatalf("%s: %d crossed; drops: %s", name, len(across), l.drops())
						}
						got := packet.FragmentID(across[0].frame)
						if kept := got == id; kept != (df || !translated) || !kept && got&0xfff0 != 0x7000 {
							t.Errorf("%s, translated %v, DF %v, plain %v: %#x", name, translated, df, plain, got)
						}
					}
				}
			}
		}
	}
	// Fragments with DF are renumbered together: another host's may have the same.
	l := newLabWith(t, func(p *ruleset.Policy) { p.Settings.Fragments = ruleset.FragmentsReassemble }, "accept", established)
	fs := fragments(large(udp(host, 4000, web, 53), 2000), lanMAC, 1500, id)
	for i := range fs {
		packet.SetDF(fs[i][packet.EthLen:])
	}
	l.port[lan].in = append(l.port[lan].in, fs...)
	l.run()
	ids := map[uint16]int{}
	for _, f := range l.port[wan].out {
		ids[binary.BigEndian.Uint16(f[packet.EthLen+4:])]++
	}
	if len(ids) != 1 || ids[id] != 0 || len(l.port[wan].out) != 2 {
		t.Errorf("identifications of fragments: %v", ids)
	}
}
