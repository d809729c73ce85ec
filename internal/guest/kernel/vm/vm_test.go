package vm

import (
	"testing"
	"unsafe"

	"pgregory.net/rapid"
)

// bitmap returns memory for a Frames' bitmap.
func bitmap(n uint64) uintptr {
	b := make([]uint64, (n+63)/64)
	keep = append(keep, b)
	return uintptr(unsafe.Pointer(&b[0]))
}

var keep [][]uint64

func TestFramesAgainstSet(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const base = 0x400000
		n := rapid.Uint64Range(1, 500).Draw(t, "n")
		var f Frames
		f.Init(base, n, bitmap(n))
		if f.Free() != 0 || f.Total() != n {
			t.Fatalf("new: %d free of %d", f.Free(), f.Total())
		}
		free := map[uint64]bool{}
		give := func(i, k uint64) {
			f.Give(base+i*FrameSize, k)
			for ; k > 0 && i < n; i, k = i+1, k-1 {
				free[i] = true
			}
		}
		take := func(a, k uint64, what string) {
			for ; k > 0; a, k = a+FrameSize, k-1 {
				i := (a - base) / FrameSize
				if !free[i] {
					t.Fatalf("%s returned frame %d, which is not free", what, i)
				}
				delete(free, i)
			}
		}
		give(0, n)
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			switch rapid.IntRange(0, 2).Draw(t, "op") {
			case 0:
				a, ok := f.Take()
				if ok != (len(free) > 0) {
					t.Fatalf("Take ok=%v with %d free", ok, len(free))
				}
				if ok {
					take(a, 1, "Take")
				}
			case 1:
				k := rapid.Uint64Range(1, 80).Draw(t, "k")
				align := uint64(1) << rapid.IntRange(0, 6).Draw(t, "align")
				a, ok := f.TakeRun(k, align)
				if want := hasRun(free, base/FrameSize, n, k, align); ok != want {
					t.Fatalf("TakeRun(%d, %d) ok=%v, want %v", k, align, ok, want)
				}
				if ok {
					if a/FrameSize%align != 0 {
						t.Fatalf("TakeRun: %#x not aligned to %d frames", a, align)
					}
					take(a, k, "TakeRun")
				}
			case 2:
				give(rapid.Uint64Range(0, n-1).Draw(t, "i"), rapid.Uint64Range(1, 20).Draw(t, "k"))
			}
			if f.Free() != uint64(len(free)) {
				t.Fatalf("Free() = %d, want %d", f.Free(), len(free))
			}
		}
	})
}

func hasRun(free map[uint64]bool, first, n, k, align uint64) bool {
	for i := uint64(0); i+k <= n; i++ {
		if (first+i)%align != 0 {
			continue
		}
		all := true
		for j := i; j < i+k && all; j++ {
			all = free[j]
		}
		if all {
			return true
		}
	}
	return false
}

// TestAreasAgainstPages compares Areas with a map from page to protection.
func TestAreasAgainstPages(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const pages = 40
		var s Areas
		model := map[uint64]uint32{}
		rng := func() (uint64, uint64) {
			a := rapid.Uint64Range(0, pages-1).Draw(t, "a")
			return a * FrameSize, (a + rapid.Uint64Range(1, pages-a).Draw(t, "n")) * FrameSize
		}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			a, e := rng()
			if rapid.Bool().Draw(t, "set") {
				prot := rapid.Uint32Range(0, 3).Draw(t, "prot")
				if !s.Set(a, e, prot, false) {
					t.Fatal("Set failed with room left")
				}
				for p := a; p < e; p += FrameSize {
					model[p] = prot
				}
			} else {
				if !s.Remove(a, e) {
					t.Fatal("Remove failed with room left")
				}
				for p := a; p < e; p += FrameSize {
					delete(model, p)
				}
			}
			check(t, &s, model, pages)
			qa, qe := rng()
			covered, overlaps := true, false
			for p := qa; p < qe; p += FrameSize {
				prot, ok := model[p]
				overlaps = overlaps || ok
				covered = covered && ok && prot&Write != 0
			}
			if got := s.Covered(qa, qe, Write); got != covered {
				t.Fatalf("Covered(%#x, %#x) = %v, want %v", qa, qe, got, covered)
			}
			if got := s.Overlaps(qa, qe); got != overlaps {
				t.Fatalf("Overlaps(%#x, %#x) = %v, want %v", qa, qe, got, overlaps)
			}
			k := rapid.Uint64Range(1, 8).Draw(t, "gap")
			got, ok := s.Gap(0, pages*FrameSize, k*FrameSize, FrameSize)
			want, wok := uint64(0), false
			for p := uint64(0); p+k <= pages && !wok; p++ {
				want, wok = p*FrameSize, true
				for j := p; j < p+k; j++ {
					if _, used := model[j*FrameSize]; used {
						wok = false
					}
				}
			}
			if ok != wok || ok && got != want {
				t.Fatalf("Gap(%d pages) = %#x %v, want %#x %v", k, got, ok, want, wok)
			}
		}
	})
}

func check(t *rapid.T, s *Areas, model map[uint64]uint32, pages uint64) {
	for i := 0; i < s.Len(); i++ {
		a := s.At(i)
		if a.Start >= a.End || i > 0 && s.At(i-1).End > a.Start {
			t.Fatalf("area %d out of order: %+v", i, a)
		}
		if i > 0 && s.At(i-1).End == a.Start && s.At(i-1).Prot == a.Prot {
			t.Fatalf("areas %d and %d should be one", i-1, i)
		}
	}
	for p := uint64(0); p < pages*FrameSize; p += FrameSize {
		prot, want := model[p]
		a, ok := s.Find(p + 123)
		if ok != want || ok && a.Prot != prot {
			t.Fatalf("Find(%#x) = %+v %v, want prot %d %v", p, a, ok, prot, want)
		}
	}
}

func TestAreasFull(t *testing.T) {
	var s Areas
	n := 0
	for i := uint64(0); s.Set(i*2*FrameSize, (i*2+1)*FrameSize, Read, false); i++ {
		n++
	}
	if n < MaxAreas-2 {
		t.Fatalf("only %d areas fit, want about %d", n, MaxAreas)
	}
	if s.Remove(0, FrameSize); s.Len() != n-1 {
		t.Fatalf("%d areas after Remove, want %d", s.Len(), n-1)
	}
}

func TestHasFixed(t *testing.T) {
	var s Areas
	s.Set(0x1000, 0x3000, Read, true)
	s.Set(0x5000, 0x6000, Read, false)
	for _, c := range []struct {
		a, e uint64
		want bool
	}{{0, 0x1000, false}, {0, 0x1001, true}, {0x2000, 0x8000, true}, {0x3000, 0x9000, false}} {
		if got := s.HasFixed(c.a, c.e); got != c.want {
			t.Errorf("HasFixed(%#x, %#x) = %v", c.a, c.e, got)
		}
	}
}
