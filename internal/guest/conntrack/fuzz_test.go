package conntrack

import (
	"testing"

	"github.com/thurward/thurward/internal/shared/packet"
)

// FuzzTCP passes arbitrary segments of both ends to one connection, 8 bytes each:
//
//	flags of TCP; bit 6: of the other end; bit 7: numbers near the last ones
//	sequence and acknowledgement number, as signed distances
//	payload, window, and 3 bytes of options
//
// and checks the invariants: an invalid segment changes nothing, unless it answers a SYN of
// another connection; only that and an exact RST close the connection; nothing is
// established before both ends have sent SYN and acknowledged; and without window scaling a
// segment far from all that was sent is not accepted.
func FuzzTCP(f *testing.F) {
	syn, ack, other := byte(packet.SYN), byte(packet.ACK), byte(0x40)
	f.Add([]byte{syn, 0, 0, 0, 9, 3, 3, 7, other | syn | ack, 0, 0, 0, 9, 3, 3, 2, ack, 0, 0, 0, 9, 0, 0, 0,
		ack, 0, 0, 50, 9, 0, 0, 0, other | ack, 0, 0, 0, 9, 0, 0, 0, ack | packet.FIN, 0, 0, 0, 9, 0, 0, 0, other | ack | packet.FIN, 0, 0, 0, 9, 0, 0, 0, ack, 0, 0, 0, 9, 0, 0, 0})
	f.Add([]byte{syn, 0, 0, 0, 9, 0, 0, 0, other | syn, 0, 0, 0, 9, 0, 0, 0, syn | ack, 0, 0, 0, 9, 0, 0, 0, other | syn | ack, 0, 0, 0, 9, 0, 0, 0, packet.RST, 1, 0, 0, 9, 0, 0, 0, packet.RST, 0, 0, 0, 9, 0, 0, 0})
	f.Add([]byte{syn, 0, 0, 0, 9, 0, 0, 0, other | ack, 9, 9, 0, 9, 0, 0, 0, packet.RST, 9, 0, 0, 9, 0, 0, 0, other | packet.RST | ack, 0, 0, 0, 9, 0, 0, 0, syn, 90, 0, 0, 9, 0, 0, 0})
	f.Fuzz(func(t *testing.T, in []byte) {
		tab := New(4, [2]uint64{1, 2}, Timeouts{}, nil)
		k := Key{Src: 1, Dst: 2, SrcPort: 3, DstPort: 4, Proto: packet.TCP}
		out := packet.Rewrite{Src: 5, Dst: 2, SrcPort: 6, DstPort: 4}
		r := tab.Insert(&k, &out, SynSent, outward, 1)
		var next [2]uint32 // behind the last segment of each end
		next[0], next[1] = 1<<32-40, 1<<31-40
		var syns, acks [2]bool
		scaled, begun := false, false
		for ; len(in) >= 8; in = in[8:] {
			end := Ref(in[0] >> 6 & 1)
			p := packet.Packet{Class: packet.ClassTCP, Proto: packet.TCP, Flags: in[0] & 0x3f, Payload: uint16(in[3]) * 8, Window: uint16(in[4]) << 8}
			d := int32(int8(in[1]))
			far := in[0]&0x80 != 0 && in[4]&1 != 0
			if far {
				d <<= 20
			}
			p.Seq, p.Ack = next[end]+uint32(d), next[1-end]+uint32(int32(int8(in[2])))
			opts := in[5:8]
			if !begun {
				p.Flags = packet.SYN
				end = 0
				tab.StartTCP(r, &p, opts)
				begun, syns[0] = true, true
				next[0] = seqEnd(&p)
				continue
			}
			before, st := *tab.Shared(r), tab.Dir(r).State
			me, peer := &before.tcp[end], &before.tcp[1-end]
			scaled = scaled || me.flags&peer.flags&sideScale != 0
			v := tab.TCP(r^end, &p, opts)
			after := tab.Dir(r).State
			if after != tab.Dir(r^1).State || after < SynSent || after > Close {
				t.Fatalf("states %v and %v", after, tab.Dir(r^1).State)
			}
			switch v {
			case Invalid:
				if p.Flags&(packet.SYN|packet.ACK|packet.RST|packet.FIN) == packet.SYN|packet.ACK && before.answersNoted(end, p.Ack) && tab.Shared(r).tcp[1-end].flags&sideOver != 0 {
					peer.flags = peer.flags&^sideSYN | sideOver // and nothing else
					st = Close
				}
				if *tab.Shared(r) != before || after != st {
					t.Fatalf("an invalid segment %+v changed %+v, %v to %+v, %v", p, before, st, *tab.Shared(r), after)
				}
				continue
			case Restart:
				if st != TimeWait && st != Close || p.Flags&(packet.SYN|packet.ACK) != packet.SYN {
					t.Fatalf("restart in %v by flags %x", st, p.Flags)
				}
				return
			}
			if after == Close && st != Close {
				if p.Flags&packet.RST == 0 {
					t.Fatalf("closed by flags %x", p.Flags)
				}
				refused := end == 1 && p.Flags&packet.ACK != 0 && peer.flags&sideAcked == 0 && me.answers(peer, &p)
				refused = refused || p.Flags&packet.ACK != 0 && before.answersNoted(end, p.Ack)
				if st != SynSent && p.Seq != peer.ack && p.Seq != me.end && !refused {
					t.Fatalf("closed in %v by a RST of %d; %d is acknowledged, %d sent", st, p.Seq, peer.ack, me.end)
				}
			}
			if p.Flags&packet.RST == 0 {
				syns[end] = syns[end] || p.Flags&packet.SYN != 0
				acks[end] = acks[end] || p.Flags&packet.ACK != 0
			}
			if after == Established && !(syns[0] && syns[1] && (acks[0] || acks[1])) {
				t.Fatalf("established after SYNs %v and ACKs %v", syns, acks)
			}
			if v == Pass && !scaled && p.Flags&(packet.SYN|packet.RST) == 0 {
				if d := int32(p.Seq - me.end); d > 1<<18 || d < -1<<18 {
					t.Fatalf("a segment %d away from all that was sent passed in %v", d, st)
				}
			}
			next[end] = seqEnd(&p)
		}
	})
}
