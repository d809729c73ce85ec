package vmm

import "unsafe"

// wordBytes returns the bytes of a slice of words, which begin at a multiple
// of 8.
func wordBytes(w []uint64) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(w))), len(w)*8)
}
