package vm

import (
	"testing"
	"unsafe"

	"pgregory.net/rapid"
)

// framesModel is Frames as a list of truths, and slow.
type framesModel struct {
	base uint64
	free []bool
}

func (m *framesModel) give(a, n uint64) {
	for ; n > 0; n, a = n-1, a+FrameSize {
		if a >= m.base && (a-m.base)/FrameSize < uint64(len(m.free)) {
			m.free[(a-m.base)/FrameSize] = true
		}
	}
}

func (m *framesModel) take() (uint64, bool) {
	for i, ok := range m.free {
		if ok {
			m.free[i] = false
			return m.base + uint64(i)*FrameSize, true
		}
	}
	return 0, false
}

func (m *framesModel) takeRun(n, align uint64) (uint64, bool) {
	for i := len(m.free) - int(n); n > 0 && i >= 0; i-- {
		a := m.base + uint64(i)*FrameSize
		all := a/FrameSize%align == 0
		for j := i; all && j < i+int(n); j++ {
			all = m.free[j]
		}
		if all {
			for j := i; j < i+int(n); j++ {
				m.free[j] = false
			}
			return a, true
		}
	}
	return 0, false
}

func (m *framesModel) count() (n uint64) {
	for _, ok := range m.free {
		if ok {
			n++
		}
	}
	return n
}

// TestFramesExactly: which frame is handed out, and not only that it was free:
// single ones from the bottom, runs from the top. The stretch begins at 0, at
// an address that no large alignment divides, and at one that all do; it is
// emptied and filled again; frames outside of it, and free ones, are given too.
func TestFramesExactly(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		base := rapid.SampledFrom([]uint64{0, 0x1000, 0x3f000, 0x400000, 0x1_0000_7000}).Draw(t, "base")
		n := rapid.SampledFrom([]uint64{1, 2, 63, 64, 65, 127, 128, 129, 200, 513}).Draw(t, "n")
		words := make([]uint64, (n+63)/64+6) // two and four words are not the bitmap's
		keep = append(keep, words)
		before, behind := words[:2], words[len(words)-4:]
		strange := func() {
			for i, w := range append(before[:2:2], behind...) {
				if w != 0xaa55+uint64(i) {
					t.Fatal("memory beside the bitmap was written to")
				}
			}
		}
		for i := range 2 {
			before[i] = 0xaa55 + uint64(i)
		}
		for i := range 4 {
			behind[i] = 0xaa57 + uint64(i)
		}
		var f Frames
		f.Init(base, n, uintptr(unsafe.Pointer(&words[2])))
		strange()
		m := framesModel{base, make([]bool, n)}
		if _, ok := f.Take(); ok {
			t.Fatal("a frame of a new stretch was free")
		}
		for range rapid.IntRange(1, 80).Draw(t, "steps") {
			op := rapid.IntRange(0, 4).Draw(t, "op")
			switch op {
			case 0:
				for range rapid.SampledFrom([]int{1, 2, 70, 600}).Draw(t, "times") {
					a, ok := f.Take()
					if want, wok := m.take(); a != want || ok != wok {
						t.Fatalf("Take = %#x %v, want %#x %v", a, ok, want, wok)
					}
				}
			case 1, 2:
				k := rapid.SampledFrom([]uint64{0, 1, 2, 3, 62, 63, 64, 65, 66, 127, 128, 129, 130, 192, 193, n - 1, n, n + 1, 1 << 40, 1<<64 - 1}).Draw(t, "k")
				align := uint64(1) << rapid.IntRange(0, 9).Draw(t, "align")
				a, ok := f.TakeRun(k, align)
				want, wok := uint64(0), false
				if k <= n {
					want, wok = m.takeRun(k, align)
				}
				if a != want || ok != wok {
					t.Fatalf("TakeRun(%d, %d) = %#x %v, want %#x %v", k, align, a, ok, want, wok)
				}
			case 3: // some, also around the ends
				a := base + rapid.Uint64Range(0, n+2).Draw(t, "at")*FrameSize
				if below := rapid.Uint64Range(0, 3).Draw(t, "below") * FrameSize; below <= base {
					a -= below
				}
				k := rapid.SampledFrom([]uint64{0, 1, 2, 5, 64, 130}).Draw(t, "n")
				f.Give(a, k)
				m.give(a, k)
			case 4: // all
				f.Give(base, n)
				m.give(base, n)
			}
			if f.Free() != m.count() || f.Total() != n {
				t.Fatalf("%d of %d free, want %d", f.Free(), f.Total(), m.count())
			}
		}
		strange()
		// What is free comes out once, and no more.
		for left := m.count(); ; left-- {
			a, ok := f.Take()
			if want, wok := m.take(); a != want || ok != wok {
				t.Fatalf("Take = %#x %v, want %#x %v", a, ok, want, wok)
			}
			if !ok {
				if left != 0 {
					t.Fatalf("%d frames were lost", left)
				}
				break
			}
		}
	})
}

// TestGiveMuch: an absurd number of frames is given in as much time as there
// are frames.
func TestGiveMuch(t *testing.T) {
	var f Frames
	f.Init(0x400000, 100, bitmap(100))
	f.Give(0x400000+99*FrameSize, 1<<60)
	if f.Free() != 1 {
		t.Errorf("%d frames free, want 1", f.Free())
	}
	f.Give(0x400000+FrameSize*50+123, 1) // an address within a frame is the frame's
	if a, ok := f.Take(); a != 0x400000+FrameSize*50 || !ok {
		t.Errorf("Take = %#x %v", a, ok)
	}
}

func TestBitmapBytes(t *testing.T) {
	for _, c := range [][2]uint64{{0, 0}, {1, 8}, {63, 8}, {64, 8}, {65, 16}, {128, 16}, {129, 24}, {1 << 20, 1 << 17}} {
		if got := BitmapBytes(c[0]); got != c[1] {
			t.Errorf("BitmapBytes(%d) = %d, want %d", c[0], got, c[1])
		}
	}
}

// TestFramesGivenBackBelow: a frame given back below those that were taken is found
// again, whichever word it is in.
func TestFramesGivenBackBelow(t *testing.T) {
	var f Frames
	f.Init(0, 256, bitmap(256))
	f.Give(0, 256)
	for range 200 {
		f.Take()
	}
	if f.hint != 3 {
		t.Errorf("the search goes on at word %d, want 3", f.hint)
	}
	for _, i := range []uint64{130, 63, 64, 0, 127} {
		was := f.hint
		if f.Give(i*FrameSize, 1); f.hint != min(was, i/64) {
			t.Errorf("frame %d was given back: the search begins at word %d", i, f.hint)
		}
		if a, ok := f.Take(); a != i*FrameSize || !ok {
			t.Errorf("frame %d was given back, Take = %#x %v", i, a, ok)
		}
	}
}

// TestFramesOfMuchMemory: a large stretch, at each border of words: frames are told
// apart however far they are from the first.
func TestFramesOfMuchMemory(t *testing.T) {
	const n, base = 20000, 0x7000
	var f Frames
	f.Init(base, n, bitmap(n))
	if f.hint != 0 {
		t.Errorf("the search begins at word %d", f.hint)
	}
	if f.Give(base, n); f.Free() != n {
		t.Fatalf("%d frames free, want %d", f.Free(), n)
	}
	for i := uint64(0); i < n; i++ {
		if a, ok := f.Take(); !ok || a != base+i*FrameSize {
			t.Fatalf("Take = %#x %v, want frame %d", a, ok, i)
		}
		if b := i - i%64; b > 0 && i%64 < 2 { // the last of the word before
			f.Give(base+(b-1)*FrameSize, 1)
			if a, ok := f.Take(); !ok || a != base+(b-1)*FrameSize {
				t.Fatalf("Take = %#x %v, want frame %d", a, ok, b-1)
			}
		}
	}
	for i := uint64(0); i < n; i += 61 {
		if f.Give(base+i*FrameSize, 1); f.Free() != 1 {
			t.Fatalf("frame %d was not given", i)
		}
		if a, ok := f.TakeRun(1, 1); !ok || a != base+i*FrameSize {
			t.Fatalf("TakeRun = %#x %v, want frame %d", a, ok, i)
		}
	}
}

// TestGiveBehindTheHint: a frame given in a later word does not make the search
// begin there.
func TestGiveBehindTheHint(t *testing.T) {
	for w := uint64(1); w < 300; w++ {
		var f Frames
		f.Init(0, 20000, bitmap(20000))
		f.Give(w*64*FrameSize, 2)
		f.Take()
		f.Give((w+1)*64*FrameSize, 1)
		if a, ok := f.Take(); !ok || a != (w*64+1)*FrameSize {
			t.Fatalf("Take = %#x %v, want frame %d", a, ok, w*64+1)
		}
	}
}

// TestRunOverWords: a single frame that is taken is seen, wherever a run of whole words
// meets it.
func TestRunOverWords(t *testing.T) {
	for taken := range uint64(192) {
		var f Frames
		f.Init(0, 192, bitmap(192))
		f.Give(0, taken)
		f.Give((taken+1)*FrameSize, 191-taken)
		for at := range uint64(65) {
			if got, want := f.clear(at, 128), taken < at || taken >= at+128; got != want {
				t.Fatalf("frame %d is taken, and 128 from %d on are free: %v", taken, at, got)
			}
		}
	}
}
