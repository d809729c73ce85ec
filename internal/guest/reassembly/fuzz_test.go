package reassembly

import (
	"testing"

	"github.com/thurward/thurward/internal/guest/framebuf"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// A model of reassembly: what is known of each byte of one datagram.
type byteModel struct {
	have     [65536]bool
	seen     map[[2]int]bool // extents, whether they are the end
	total    int
	poisoned bool
	n        int
	most     int // end of the extent furthest back
}

// add returns whether the extent completes the datagram.
func (m *byteModel) add(off, n int, more bool) bool {
	if m.poisoned {
		return false
	}
	if end, ok := m.seen[[2]int{off, n}]; ok && end == !more {
		return false
	}
	bad := m.total != 0 && (!more || off+n > m.total) || !more && m.most > off+n || m.n == MaxPerDatagram
	for i := off; i < off+n && !bad; i++ {
		bad = m.have[i]
	}
	if bad {
		m.poisoned = true
		return false
	}
	for i := off; i < off+n; i++ {
		m.have[i] = true
	}
	m.seen[[2]int{off, n}] = !more
	m.most = max(m.most, off+n)
	m.n++
	if !more {
		m.total = off + n
	}
	for i := range m.total {
		if !m.have[i] {
			return false
		}
	}
	return m.total != 0
}

// FuzzReassembly puts extents of one datagram in, in any order and with any
// overlaps, and compares with a model that marks bytes. Each record is an offset
// (in units of 8), a length, and whether more follow.
func FuzzReassembly(f *testing.F) {
	f.Add([]byte{0, 16, 1, 2, 8, 0})
	f.Add([]byte{2, 8, 0, 0, 16, 1})
	f.Add([]byte{0, 8, 1, 2, 8, 0, 1, 8, 1})
	f.Add([]byte{0, 16, 1, 1, 8, 1, 2, 8, 0})
	f.Add([]byte{0, 8, 1, 1, 8, 1, 2, 8, 1, 2, 8, 0, 3, 8, 0})
	mem := make([]byte, 160*framebuf.Size)
	f.Fuzz(func(t *testing.T, b []byte) {
		h := &bench{t: t, pool: framebuf.NewPool(mem, 0)}
		h.Table = New(1, framebuf.NewLinks(h.pool))
		m := &byteModel{seen: map[[2]int]bool{}}
		for ; len(b) >= 3; b = b[3:] {
			off, n, more := int(b[0])*8, int(b[1]), b[2]&1 != 0
			if more {
				n &^= 7
			}
			if n == 0 || off == 0 && !more {
				continue // not a fragment
			}
			var r Result
			h.Add(&Fragment{Key: Key{Src: 1, Dst: 2, ID: 99, Proto: packet.UDP}, Piece: packet.Piece{Off: off, Len: n, More: more}, Frame: h.frame(off/8, n)}, &r, 1)
			whole := r.Complete.Len() > 0
			if want := m.add(off, n, more); want != whole || whole && (r.Length != m.total || r.Complete.Len() != m.n) {
				t.Fatalf("extent %d+%d, more %v: whole %v, want %v; held %d", off, n, more, whole, want, h.Held())
			}
			if r.Reason != 0 {
				if r.Reason != verdict.FragmentedIPv4 {
					t.Fatalf("dropped as %v", r.Reason)
				}
				h.pool.Put(h.lastBuf)
			}
			for _, q := range r.Drop {
				h.taken(q)
			}
			end := 0
			for _, w := range h.taken(r.Complete) {
				if int(w.off) != end {
					t.Fatalf("an extent at %d follows %d", w.off, end)
				}
				end = int(w.end())
			}
			if h.check(); whole {
				return
			}
			if h.Held() != 0 != (m.n > 0 && !m.poisoned) {
				t.Fatalf("%d held", h.Held())
			}
		}
	})
}
