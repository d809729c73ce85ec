package reassembly

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/thurward/thurward/internal/guest/framebuf"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// A tester is a *testing.T or a *rapid.T.
type tester interface {
	Helper()
	Fatal(...any)
	Fatalf(string, ...any)
}

// A bench is a table with the frames that it may hold.
type bench struct {
	*Table
	t       tester
	pool    *framebuf.Pool
	lastBuf uint32
}

var memory = make([]byte, (MaxFragments+2)*framebuf.Size)

func newBench(t tester) *bench {
	b := &bench{t: t, pool: framebuf.NewPool(memory, 0)}
	b.Table = New(0x9e3779b97f4a7c15, framebuf.NewLinks(b.pool))
	return b
}

// frame returns a frame for an extent, which can be told from it.
func (b *bench) frame(off8, n int) framebuf.Frame {
	b.t.Helper()
	buf, ok := b.pool.Get()
	if !ok {
		b.t.Fatal("no buffer")
	}
	b.lastBuf = buf
	return framebuf.Frame{Buf: buf, Len: uint32(off8)<<16 | uint32(n)}
}

func extentIn(f framebuf.Frame) extent { return extent{uint16(f.Len>>16) * 8, uint16(f.Len)} }

// taken empties a queue and returns the extents of its frames.
func (b *bench) taken(q framebuf.Queue) (ps []extent) {
	for q.Len() > 0 {
		f := b.links.Pop(&q)
		ps = append(ps, extentIn(f))
		b.pool.Put(f.Buf)
	}
	return ps
}

// add puts a fragment in, and returns how many frames are dropped at once and the
// extents of a datagram that is complete.
func (b *bench) add(k Key, off, n int, more bool, now int64) (dropped int, whole []extent, length int) {
	b.t.Helper()
	var r Result
	b.Add(&Fragment{Key: k, Piece: packet.Piece{Off: off, Len: n, More: more}, Frame: b.frame(off/8, n)}, &r, now)
	for _, q := range r.Drop {
		dropped += len(b.taken(q))
	}
	if r.Reason != 0 {
		if r.Reason != verdict.FragmentedIPv4 || r.Complete.Len() != 0 {
			b.t.Fatalf("%+v", r)
		}
		b.pool.Put(b.lastBuf)
		dropped++
	}
	return dropped, b.taken(r.Complete), r.Length
}

// check compares the counts of a table with its datagrams.
func (b *bench) check() {
	b.t.Helper()
	used, held := 0, 0
	var fragments [sourceGroups]uint16
	var datagrams [sourceGroups]uint8
	for i := range b.dg {
		if b.key[i].rest == 0 {
			continue
		}
		d := &b.dg[i]
		used++
		held += d.list.Len()
		fragments[d.group] += uint16(d.list.Len())
		datagrams[d.group]++
		have, last, f := uint32(0), extent{}, d.list.First()
		for range d.list.Len() {
			w := extentOf(b.links.Tag(f))
			if w != extentIn(f) || uint32(w.off) < last.end() {
				b.t.Fatalf("extent %+v, of %+v, behind %+v", w, extentIn(f), last)
			}
			have += uint32(w.len)
			last, f = w, b.links.Next(f)
		}
		if d.list.Len() > 0 && (have != d.have || last != d.last || d.total != 0 && last.end() > d.total || d.poisoned) {
			b.t.Fatalf("%+v has %d bytes, the last are %+v", *d, have, last)
		}
		if b.Due() > d.expires {
			b.t.Fatalf("due at %d, but %+v", b.Due(), *d)
		}
	}
	if used != b.Len() || held != b.Held() || fragments != b.fragments || datagrams != b.datagrams {
		b.t.Fatalf("%d datagrams, counted %d; %d fragments, counted %d", used, b.Len(), held, b.Held())
	}
	if b.pool.Free()+held != b.pool.Cap() {
		b.t.Fatalf("%d buffers free and %d held of %d", b.pool.Free(), held, b.pool.Cap())
	}
}

// TestKeys: what differs in one field of its key is another datagram.
func TestKeys(t *testing.T) {
	k := Key{Src: 1, Dst: 2, ID: 3, Proto: 4, Link: 0}
	for i, o := range []Key{{Src: 9, Dst: 2, ID: 3, Proto: 4}, {Src: 1, Dst: 9, ID: 3, Proto: 4}, {Src: 1, Dst: 2, ID: 3 + 1<<8, Proto: 4},
		{Src: 1, Dst: 2, ID: 3, Proto: 5}, {Src: 1, Dst: 2, ID: 3, Proto: 4, Link: 1}, {Src: 2, Dst: 1, ID: 3, Proto: 4}, {}} {
		b := newBench(t)
		b.add(k, 0, 8, true, 1)
		if dropped, whole, _ := b.add(o, 8, 8, false, 1); dropped != 0 || whole != nil || b.Len() != 2 {
			t.Errorf("key %d: %v", i, whole)
		}
		if dropped, whole, n := b.add(k, 8, 8, false, 1); dropped != 0 || len(whole) != 2 || n != 16 || b.Len() != 1 {
			t.Errorf("key %d: not whole: %v", i, whole)
		}
		b.check()
	}
}

// TestOverlapsPoison: whatever overlaps or contradicts, nothing of the datagram is
// ever complete, not even when the missing fragments come later, until its time is
// over.
func TestOverlapsPoison(t *testing.T) {
	type part struct {
		off, len int
		more     bool
	}
	whole := []part{{0, 24, true}, {24, 24, true}, {48, 24, true}, {72, 8, false}}
	for name, evil := range map[string]part{
		"one block into the first":      {16, 24, true},
		"the end before what is there":  {24, 8, false},
		"a second end":                  {80, 8, false},
		"behind the end":                {80, 24, true},
		"across two":                    {8, 24, true},
		"inside another":                {8, 8, true},
		"the same place and more of it": {72, 16, false},
		"the same place, not the end":   {72, 8, true},
		"the start again, shorter":      {0, 8, true},
		"the end again, longer":         {64, 16, false},
	} {
		for _, order := range [][]int{{0, 1, 3, 9, 2}, {9, 0, 1, 2, 3}, {3, 2, 9, 1, 0}, {0, 2, 3, 9, 1}, {2, 9, 0, 1, 3}} {
			at := slices.Index(order, 9)
			if name == "the end before what is there" && at == 0 || name == "the same place and more of it" && at < slices.Index(order, 3) {
				continue // it came first, and is the end
			}
			b := newBench(t)
			k, dropped := Key{Src: 1, Dst: 2, ID: 7, Proto: packet.UDP}, 0
			for _, j := range order {
				p := evil
				if j < 9 {
					p = whole[j]
				}
				n, got, _ := b.add(k, p.off, p.len, p.more, 1)
				if dropped += n; got != nil {
					t.Fatalf("%s, order %v: %v is complete", name, order, got)
				}
				b.check()
			}
			if b.Len() != 1 || dropped+b.Held() != 5 {
				t.Errorf("%s, order %v: %d dropped, %d held", name, order, dropped, b.Held())
			}
			for q, ok := b.Expired(1 + Timeout); ok; q, ok = b.Expired(1 + Timeout) {
				b.taken(q)
			}
			if b.check(); b.Len() != 0 {
				t.Fatalf("%s, order %v: remembered for ever", name, order)
			}
			// The number is free again.
			for i, p := range whole {
				if n, got, length := b.add(k, p.off, p.len, p.more, 2+Timeout); n != 0 || (got != nil) != (i == 3) || i == 3 && length != 80 {
					t.Errorf("%s, order %v: later %d dropped, complete: %v", name, order, n, got)
				}
			}
		}
	}
}

// TestFragmentsOfADatagram: in any order, and as many as 64.
func TestFragmentsOfADatagram(t *testing.T) {
	r := rand.New(rand.NewPCG(4, 7))
	for n, want := range map[int]bool{2: true, MaxPerDatagram - 1: true, MaxPerDatagram: true, MaxPerDatagram + 1: false} {
		for range 5 {
			b := newBench(t)
			k, dropped := Key{Src: 1, Dst: 2, ID: 7, Proto: packet.UDP}, 0
			var whole []extent
			for i, j := range r.Perm(n) {
				var d, length int
				if d, whole, length = b.add(k, 8*j, 8, j != n-1, 1); whole != nil && (i != n-1 || length != 8*n) {
					t.Fatalf("%d of %d fragments are %d bytes", i+1, n, length)
				}
				dropped += d
				b.check()
			}
			if (whole != nil) != want || !want && dropped != n || want && dropped != 0 {
				t.Errorf("%d fragments: %d are complete, %d dropped", n, len(whole), dropped)
			}
			for i, w := range whole {
				if int(w.off) != 8*i {
					t.Fatalf("extent %d is %+v", i, w)
				}
			}
		}
	}
}

// TestRepeated: an exact repetition is dropped alone, and what came first stays.
func TestRepeated(t *testing.T) {
	b := newBench(t)
	k := Key{Src: 1, Dst: 2, ID: 7, Proto: packet.UDP}
	for i, x := range []struct {
		off     int
		more    bool
		dropped int
	}{{16, false, 0}, {16, false, 1}, {0, true, 0}, {0, true, 1}, {16, false, 1}} {
		if n, whole, _ := b.add(k, x.off, 8, x.more, 1); n != x.dropped || whole != nil {
			t.Fatalf("step %d: %d dropped, complete: %v", i, n, whole)
		}
		b.check()
	}
	if n, whole, length := b.add(k, 8, 8, true, 1); n != 0 || length != 24 || !slices.Equal(whole, []extent{{0, 8}, {8, 8}, {16, 8}}) {
		t.Fatalf("%d dropped, complete: %v", n, whole)
	}
	b.check()
}

// TestTime: a datagram lives for 30 seconds from its first fragment on, whatever
// comes; then the same number is another's.
func TestTime(t *testing.T) {
	const start = 5e9
	for late, want := range map[int64]bool{-1: true, 0: false, 1: false} {
		b := newBench(t)
		k := Key{Src: 1, Dst: 2, ID: 7, Proto: packet.UDP}
		b.add(k, 0, 8, true, start)
		b.add(k, 8, 8, true, start+Timeout/2)
		if b.Due() != start+Timeout {
			t.Errorf("due at %d", b.Due())
		}
		if _, ok := b.Expired(start + Timeout - 1); ok {
			t.Error("expired too early")
		}
		dropped, whole, _ := b.add(k, 16, 8, false, start+Timeout+late)
		if (whole != nil) != want || dropped != map[bool]int{true: 0, false: 2}[want] {
			t.Errorf("%d ns late: %d dropped, complete: %v", late, dropped, whole)
		}
		if !want && (b.Len() != 1 || b.Held() != 1 || b.Due() != start+2*Timeout+late) {
			t.Errorf("%d ns late: %d fragments of %d datagrams, due at %d", late, b.Held(), b.Len(), b.Due())
		}
		b.check()
	}
}

// TestExpiredGoesOn: all that have expired are returned, one after the other, and
// those that come between two calls are not lost.
func TestExpiredGoesOn(t *testing.T) {
	b := newBench(t)
	for i := range uint16(5) {
		b.add(Key{Src: 1, ID: i}, 0, 8, true, int64(i))
	}
	for i := range 3 {
		q, ok := b.Expired(2 + Timeout)
		if !ok || len(b.taken(q)) != 1 {
			t.Fatalf("call %d: %v", i, ok)
		}
		b.add(Key{Src: 1, ID: uint16(10 + i)}, 0, 8, true, 2+Timeout)
	}
	if _, ok := b.Expired(2 + Timeout); ok || b.Len() != 5 {
		t.Fatalf("%d left", b.Len())
	}
	b.check()
	n := 0
	for q, ok := b.Expired(2 + 2*Timeout); ok; q, ok = b.Expired(2 + 2*Timeout) {
		n += len(b.taken(q))
	}
	if b.check(); n != 5 || b.Len() != 0 {
		t.Fatalf("%d of 5 expired", n)
	}
}

// TestSourceGroups: sources have groups all over, and others with another secret.
func TestSourceGroups(t *testing.T) {
	last := map[packet.Addr]uint8{}
	for _, secret := range []uint64{0, 0x5851f42d4c957f2d, 0x14057b7ef767814e, 0x123456789abcdef1} {
		b, seen, same := New(secret, nil), map[uint8]bool{}, 0
		for i := range packet.Addr(sourceGroups) {
			a := 10<<24 + i
			g := b.group(a)
			if v, ok := last[a]; ok && v == g {
				same++
			}
			seen[g], last[a] = true, g
		}
		if len(seen) < sourceGroups*40/100 || same > 10 { // at random 1 - 1/e
			t.Errorf("secret %#x: %d groups, %d as before", secret, len(seen), same)
		}
	}
}
