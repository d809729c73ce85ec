package vm

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// page is what an area says of a page.
type page struct {
	prot  uint32
	fixed bool
}

// areasModel is Areas as a map of pages, and slow.
type areasModel map[uint64]page

// list returns what the areas must be: neighbours that are alike are one.
func (m areasModel) list(pages uint64) (l []Area) {
	for p := range pages {
		v, ok := m[p]
		if !ok {
			continue
		}
		if k := len(l) - 1; k >= 0 && l[k].End == p*FrameSize && l[k].Prot == v.prot && l[k].Fixed == v.fixed {
			l[k].End += FrameSize
			continue
		}
		l = append(l, Area{p * FrameSize, (p + 1) * FrameSize, v.prot, v.fixed})
	}
	return l
}

// TestAreasExactly compares every answer with that of a map from page to
// protection, for stretches of all kinds: of no length, turned round, of parts
// of the image, and such that end where the limit is.
func TestAreasExactly(t *testing.T) {
	const pages = 24
	rapid.Check(t, func(t *rapid.T) {
		var s Areas
		m := areasModel{}
		draw := func() (uint64, uint64) {
			return rapid.Uint64Range(0, pages).Draw(t, "start"), rapid.Uint64Range(0, pages).Draw(t, "end")
		}
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			a, e := draw()
			if rapid.IntRange(0, 2).Draw(t, "remove") == 0 {
				if !s.Remove(a*FrameSize, e*FrameSize) {
					t.Fatal("Remove failed with room left")
				}
				for p := a; p < e; p++ {
					delete(m, p)
				}
			} else {
				v := page{rapid.Uint32Range(0, 7).Draw(t, "prot"), rapid.Bool().Draw(t, "fixed")}
				if !s.Set(a*FrameSize, e*FrameSize, v.prot, v.fixed) {
					t.Fatal("Set failed with room left")
				}
				for p := a; p < e; p++ {
					m[p] = v
				}
			}
			want := m.list(pages)
			if s.Len() != len(want) {
				t.Fatalf("%d areas, want %+v", s.Len(), want)
			}
			for i, a := range want {
				if s.At(i) != a {
					t.Fatalf("area %d is %+v, want %+v", i, s.At(i), a)
				}
				for _, at := range []uint64{a.Start, a.Start + 1, a.End - 1} {
					if got, ok := s.Find(at); !ok || got != a {
						t.Fatalf("Find(%#x) = %+v %v, want %+v", at, got, ok, a)
					}
				}
			}
			for p := range uint64(pages + 1) {
				if _, there := m[p]; !there {
					if got, ok := s.Find(p * FrameSize); ok || got != (Area{}) {
						t.Fatalf("Find(%#x) = %+v, want none", p*FrameSize, got)
					}
				}
			}
			m.ask(t, &s, pages)
		}
	})
}

func (m areasModel) ask(t *rapid.T, s *Areas, pages uint64) {
	a, e := rapid.Uint64Range(0, pages).Draw(t, "from"), rapid.Uint64Range(0, pages).Draw(t, "to")
	prot := rapid.Uint32Range(0, 7).Draw(t, "asked")
	covered, overlaps, fixed := a <= e, false, false
	for p := a; p < e; p++ {
		v, ok := m[p]
		covered = covered && ok && v.prot&prot == prot
		overlaps = overlaps || ok
		fixed = fixed || v.fixed
	}
	if got := s.Covered(a*FrameSize, e*FrameSize, prot); got != covered {
		t.Fatalf("Covered(%d, %d, %d) = %v, want %v", a, e, prot, got, covered)
	}
	if a < e {
		if got := s.Overlaps(a*FrameSize, e*FrameSize); got != overlaps {
			t.Fatalf("Overlaps(%d, %d) = %v, want %v", a, e, got, overlaps)
		}
		if got := s.HasFixed(a*FrameSize, e*FrameSize); got != fixed {
			t.Fatalf("HasFixed(%d, %d) = %v, want %v", a, e, got, fixed)
		}
	}
	// Gap: also from within a page, and with larger alignments.
	from := a*FrameSize + rapid.Uint64Range(0, 2).Draw(t, "behind")
	from -= min(from, rapid.Uint64Range(0, 2).Draw(t, "before"))
	align := uint64(FrameSize) << rapid.IntRange(0, 3).Draw(t, "align")
	length := rapid.Uint64Range(1, 9).Draw(t, "length") * FrameSize
	limit := e * FrameSize
	want, wok := uint64(0), false
	for at := uint64(0); at+length <= limit && !wok; at += align {
		if at < from {
			continue
		}
		want, wok = at, true
		for p := at / FrameSize; p < (at+length)/FrameSize; p++ {
			if _, used := m[p]; used {
				want, wok = 0, false
			}
		}
	}
	if got, ok := s.Gap(from, limit, length, align); ok != wok || got != want {
		t.Fatalf("Gap(%#x, %#x, %#x, %#x) = %#x %v, want %#x %v", from, limit, length, align, got, ok, want, wok)
	}
}

// TestGapOverflow: what would go beyond the last address is no gap.
func TestGapOverflow(t *testing.T) {
	var s Areas
	s.Set(0x1000, 0x2000, Read, false)
	const top = ^uint64(0)
	for _, c := range []struct{ from, limit, length, align uint64 }{
		{0, top, top, FrameSize},                 // the length alone
		{0x2000, top, top - 0xfff, FrameSize},    // begins at 0x2000 and comes round to 0x1000
		{top - 0xffe, top, FrameSize, FrameSize}, // aligned, from is 0
		{top - 0xffe, top, FrameSize, 1 << 21},   // likewise
		{top - 0x1fff, top, 2 * FrameSize, FrameSize},
	} {
		if got, ok := s.Gap(c.from, c.limit, c.length, c.align); ok || got != 0 {
			t.Errorf("Gap(%#x, %#x, %#x, %#x) = %#x", c.from, c.limit, c.length, c.align, got)
		}
	}
	if got, ok := s.Gap(0x2000, 0x3000, 0x1000, FrameSize); !ok || got != 0x2000 {
		t.Errorf("the gap that fits exactly: %#x %v", got, ok)
	}
}

// fill makes n areas, each of the pages 2i of 4.
func fill(s *Areas, n int) {
	for i := range uint64(n) {
		s.Set(i*4*FrameSize, (i*4+3)*FrameSize, Read, false)
	}
}

// same compares what is in use of two tables.
func same(a, b *Areas) bool {
	return a.n == b.n && slices.Equal(a.a[:a.n], b.a[:b.n])
}

// TestAreasTableFull: the last areas, one short of the bound, at it and beyond
// it; a refusal changes nothing, what needs no room goes on, and the table
// shrinks to nothing and grows again.
func TestAreasTableFull(t *testing.T) {
	var s Areas
	fill(&s, MaxAreas+5)
	if s.Len() != MaxAreas-1 {
		t.Fatalf("%d areas, want %d: a split may need one more", s.Len(), MaxAreas-1)
	}
	before := s
	if s.Set(1<<40, 1<<40+FrameSize, Read, false) || s.Set(FrameSize, 2*FrameSize, Write, false) {
		t.Error("Set with no room for it")
	}
	if s != before {
		t.Error("a refused Set changed something")
	}
	if !s.Remove(FrameSize, 2*FrameSize) || s.Len() != MaxAreas { // one area becomes two
		t.Fatalf("%d areas after a hole, want %d", s.Len(), MaxAreas)
	}
	before = s
	if s.Remove(5*FrameSize, 6*FrameSize) || s.Remove(0, FrameSize) {
		t.Error("Remove with no room for it")
	}
	if s != before {
		t.Error("a refused Remove changed something")
	}
	for i, at := range []uint64{0, 2 * FrameSize, 4 * FrameSize, (MaxAreas - 2) * 4 * FrameSize} {
		if _, ok := s.Find(at); !ok {
			t.Errorf("%d: area at %#x is lost", i, at)
		}
	}
	if s.Find((MaxAreas - 1) * 4 * FrameSize); s.Overlaps((MaxAreas-1)*4*FrameSize, 1<<50) {
		t.Error("there is more than was set")
	}
	// From two below the bound on there is room again.
	for n := MaxAreas - 3; n <= MaxAreas; n++ {
		var s Areas
		fill(&s, min(n, MaxAreas-1))
		if n == MaxAreas {
			s.Remove(FrameSize, 2*FrameSize)
		}
		if s.Len() != n {
			t.Fatalf("%d areas, want %d", s.Len(), n)
		}
		if ok := s.Set(1<<40, 1<<40+FrameSize, Read, false); ok != (n <= MaxAreas-2) {
			t.Errorf("Set with %d areas: %v", n, ok)
		}
	}
	// What splits an area and is like it makes one of three, also at the bound.
	var w Areas
	fill(&w, MaxAreas-2)
	before = w
	if !w.Set(FrameSize, 2*FrameSize, Read, false) || !same(&w, &before) {
		t.Errorf("%d areas after a part of one was set to what it was", w.Len())
	}
	if !w.Set((MaxAreas-3)*4*FrameSize+FrameSize, (MaxAreas-3)*4*FrameSize+2*FrameSize, Read, false) || !same(&w, &before) {
		t.Errorf("%d areas after a part of the last was set to what it was", w.Len())
	}
	if !w.Set(FrameSize, 2*FrameSize, Write, false) || w.Len() != MaxAreas {
		t.Errorf("%d areas, want %d", w.Len(), MaxAreas)
	}
	var e Areas
	fill(&e, MaxAreas-1)
	if !e.Remove(0, 1<<50) || e.Len() != 0 {
		t.Fatalf("%d areas after all were removed", e.Len())
	}
	if fill(&e, MaxAreas-1); e.Len() != MaxAreas-1 {
		t.Errorf("%d areas after the table was filled again", e.Len())
	}
}

// TestAreasEmptyStretch: a stretch of no length, or one that ends before it
// begins, changes nothing, however often: it neither splits nor takes a place.
func TestAreasEmptyStretch(t *testing.T) {
	var s Areas
	s.Set(0x1000, 0x9000, Read, false)
	before := s
	for range MaxAreas {
		for _, c := range [][2]uint64{{0x3000, 0x3000}, {0x1000, 0x1000}, {0x9000, 0x9000}, {0, 0}, {0x5000, 0x2000}, {0xf000, 0xb000}} {
			if !s.Set(c[0], c[1], Write, true) || !s.Remove(c[0], c[1]) || s != before {
				t.Fatalf("[%#x, %#x) made %d areas of one", c[0], c[1], s.Len())
			}
		}
	}
}

// TestNothingBehindTheLast: an area joins none that has been removed, though it lay there
// and was alike.
func TestNothingBehindTheLast(t *testing.T) {
	var s Areas
	s.Set(0, FrameSize, Read, false)
	s.Set(FrameSize, 2*FrameSize, Write, false)
	s.Remove(FrameSize, 2*FrameSize)
	s.Set(0, FrameSize, Write, false)
	if s.Len() != 1 || s.At(0) != (Area{0, FrameSize, Write, false}) {
		t.Errorf("%d areas, %+v", s.Len(), s.At(0))
	}
}
