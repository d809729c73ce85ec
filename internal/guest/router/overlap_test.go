package router

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// shift returns a copy of a fragment at another place of the datagram, in bytes; more
// reports whether others follow.
func shift(f []byte, off int, more bool) []byte {
	f = append([]byte(nil), f...)
	h := f[packet.EthLen:]
	w := uint16(off / 8)
	if more {
		w |= 0x2000
	}
	binary.BigEndian.PutUint16(h[6:], w)
	binary.BigEndian.PutUint16(h[10:], 0)
	binary.BigEndian.PutUint16(h[10:], ^packet.Sum(h[:20], 0))
	return f
}

// TestRFC5722_OverlapsPoisonTheDatagram: whatever overlaps, nothing of the
// datagram passes, not even when the missing fragments come later.
func TestRFC5722_OverlapsPoisonTheDatagram(t *testing.T) {
	whole := fragments(large(udp(host, 4000, web, 53), 72), lanMAC, 44, 7) // 3 of 24, 1 of 8 bytes
	if len(whole) != 4 {
		t.Fatalf("%d fragments", len(whole))
	}
	for name, evil := range map[string][]byte{
		"one block into the first":      shift(whole[1], 16, true),
		"the end before what is there":  shift(whole[3], 24, false),
		"a second end":                  shift(whole[3], 80, false),
		"behind the end":                shift(whole[1], 80, true),
		"across two":                    shift(whole[1], 8, true),
		"inside another":                shift(whole[3], 8, true),
		"the same place and more of it": shift(append(append([]byte(nil), whole[3]...), 0, 0, 0, 0, 0, 0, 0, 0), 72, false),
		"the same place, not the end":   shift(whole[3], 72, true),
		"the start again, shorter":      shift(whole[3], 0, true),
	} {
		if name == "the same place and more of it" {
			binary.BigEndian.PutUint16(evil[packet.EthLen+2:], uint16(len(evil)-packet.EthLen))
			evil = shift(evil, 72, false)
		}
		t.Run(name, func(t *testing.T) {
			for _, order := range [][]int{{0, 1, 3, 9, 2}, {9, 0, 1, 2, 3}, {3, 2, 9, 1, 0}, {0, 2, 3, 9, 1}, {2, 9, 0, 1, 3}} {
				l := reassembling(t, "accept")
				sent := 0
				for _, j := range order {
					f := evil
					if j < 9 {
						f = whole[j]
					}
					sent += len(l.feed(lan, append([]byte(nil), f...)))
				}
				if sent != 0 {
					t.Fatalf("order %v: %d datagrams passed", order, sent)
				}
				if l.e.frags.Held() != 0 && order[0] != 9 && order[1] != 9 {
					t.Fatalf("order %v: %d fragments still held", order, l.e.frags.Held())
				}
				l.invariants()
				l.pass(31)
				if l.e.frags.Len() != 0 || l.e.c.DropReasons[verdict.FragmentedIPv4]+l.e.c.DropReasons[verdict.MalformedPacket] != 5 {
					t.Fatalf("order %v: %d datagrams remembered; drops: %s", order, l.e.frags.Len(), l.drops())
				}
				// The number is free again.
				if got := l.feed(lan, whole...); len(got) != 1 {
					t.Fatalf("order %v: later %d datagrams passed; drops: %s", order, len(got), l.drops())
				}
			}
		})
	}
}

// TestFragmentRepeated: an exact repetition does no harm; what counts is the
// one that came first.
func TestFragmentRepeated(t *testing.T) {
	l := reassembling(t, "accept")
	p := large(udp(host, 4000, web, 53), 100)
	fs := fragments(p, lanMAC, 60, 7)
	forged := append([]byte(nil), fs[1]...)
	forged[packet.EthLen+20] ^= 0xff
	got := l.feed(lan, fs[0], fs[1], forged, fs[0], fs[2])
	if len(got) != 1 || string(got[0].frame[packet.EthLen+28:]) != string(p.data) || l.e.c.DropReasons[verdict.FragmentedIPv4] != 2 {
		t.Fatalf("%v; drops: %s", got, l.drops())
	}
}

// TestRFC5722_PiecesBehindTheEnd: as many bytes as the end asks for, but not in
// their places, are no datagram, whichever comes first. Without a checksum nothing
// else would tell.
func TestRFC5722_PiecesBehindTheEnd(t *testing.T) {
	fs := fragments(large(udp(host, 4000, web, 53), 24), lanMAC, 28, 7)
	fs[0][40], fs[0][41] = 0, 0
	fs[1], fs[2] = shift(fs[1], 48, true), shift(fs[2], 56, true)
	r := rand.New(rand.NewPCG(5, 7))
	for range 24 {
		l := reassembling(t, "accept")
		for _, i := range r.Perm(4) {
			if got := l.feed(lan, append([]byte(nil), fs[i]...)); len(got) != 0 || l.partial != 0 {
				t.Fatalf("%v passed", got)
			}
		}
		l.invariants()
	}
}
