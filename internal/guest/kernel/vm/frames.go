// Package vm keeps account of memory: which physical frames are free, and
// what each stretch of the program's address space is for. It touches neither
// page tables nor the memory itself, so that it is tested on any host.
//
// The kernel links it, so its code allocates nothing and calls nothing.
package vm

import (
	"math/bits"
	"unsafe"
)

// FrameSize is the size of a frame in bytes.
const FrameSize = 4096

// Frames hands out the frames of one stretch of physical memory. A set bit
// marks a frame that is not free. Single frames come from the bottom and runs
// from the top, so that small allocations do not break up what large ones
// need.
type Frames struct {
	base  uint64  // physical address of frame 0
	n     uint64  // number of frames
	free  uint64  // of them free
	words uintptr // address of the bitmap, n/64 words rounded up
	hint  uint64  // word at which the search for a single frame begins
}

// BitmapBytes returns how much memory the bitmap of n frames takes.
func BitmapBytes(n uint64) uint64 { return (n + 63) / 64 * 8 }

// Init makes f manage n frames from base on, all of them taken, with its
// bitmap at the given address.
func (f *Frames) Init(base, n uint64, bitmap uintptr) {
	f.base, f.n, f.free, f.words, f.hint = base, n, 0, bitmap, 0
	for i := uint64(0); i < (n+63)/64; i++ {
		*f.word(i) = ^uint64(0)
	}
}

func (f *Frames) word(i uint64) *uint64 {
	a := f.words + uintptr(i)*8
	return *(**uint64)(unsafe.Pointer(&a))
}

// Free returns the number of free frames, Total that of all.
func (f *Frames) Free() uint64 { return f.free }

// Total returns the number of frames managed, free or not.
func (f *Frames) Total() uint64 { return f.n }

// Give frees the n frames from physical address a on. Frames outside the
// stretch, and such as are free already, are left alone.
func (f *Frames) Give(a, n uint64) {
	for ; n > 0; n, a = n-1, a+FrameSize {
		if a < f.base {
			continue
		}
		i := (a - f.base) / FrameSize
		if i >= f.n {
			return
		}
		w, b := f.word(i/64), uint64(1)<<(i%64)
		if *w&b == 0 {
			continue
		}
		*w &^= b
		f.free++
		if i/64 < f.hint {
			f.hint = i / 64
		}
	}
}

// Take returns a free frame's physical address, lowest first.
func (f *Frames) Take() (a uint64, ok bool) {
	for i := f.hint; i < (f.n+63)/64; i++ {
		w := f.word(i)
		if *w == ^uint64(0) {
			continue
		}
		b := uint64(bits.TrailingZeros64(^*w))
		*w |= 1 << b
		f.free--
		f.hint = i
		return f.base + (i*64+b)*FrameSize, true
	}
	return 0, false
}

// TakeRun returns the address of n contiguous free frames, aligned to align
// frames (a power of two), highest first.
func (f *Frames) TakeRun(n, align uint64) (a uint64, ok bool) {
	if n == 0 || n > f.free {
		return 0, false
	}
	first := f.base / FrameSize
	for i := (first + f.n - n) &^ (align - 1); i >= first && i < first+f.n; i -= align { // i may go round at 0
		if f.clear(i-first, n) {
			for j := i - first; j < i-first+n; j++ {
				*f.word(j / 64) |= 1 << (j % 64)
			}
			f.free -= n
			return i * FrameSize, true
		}
	}
	return 0, false
}

// clear reports whether frames i to i+n-1 are all free.
func (f *Frames) clear(i, n uint64) bool {
	for j := i; j < i+n; {
		w := *f.word(j / 64)
		if j%64 == 0 && i+n-j >= 64 {
			if w != 0 {
				return false
			}
			j += 64
			continue
		}
		if w>>(j%64)&1 != 0 {
			return false
		}
		j++
	}
	return true
}
