package packet

import (
	"encoding/binary"
	"math/bits"
	"unsafe"
)

// A processor hands what was just stored to a load only if one store has all of it. A load of
// a word of which several stores have a part each waits until all earlier stores are in the
// cache, and with them those to lines that come from the memory: hundreds of cycles where a new
// flow is made. So what is loaded in whole words is stored in whole words, and structures are
// filled in where they lie instead of being copied.

// Set sets all of a tuple, in the words in which hashes and comparisons load it.
func (t *Tuple) Set(src, dst Addr, srcPort, dstPort uint16, proto uint32) {
	w := (*[2]uint64)(unsafe.Pointer(t))
	w[0] = uint64(src) | uint64(dst)<<32
	w[1] = uint64(srcPort) | uint64(dstPort)<<16 | uint64(proto)<<32
}

// Set sets all of a translation, in the words in which it is copied.
func (r *Rewrite) Set(src, dst Addr, srcPort, dstPort uint16) {
	b := (*[12]byte)(unsafe.Pointer(r))
	binary.LittleEndian.PutUint64(b[0:], uint64(src)|uint64(dst)<<32)
	binary.LittleEndian.PutUint32(b[8:], uint32(srcPort)|uint32(dstPort)<<16)
}

// Put16 sets b to To16 of a.
func (a Addr) Put16(b *[16]byte) {
	binary.LittleEndian.PutUint64(b[0:], 0)
	binary.LittleEndian.PutUint64(b[8:], 0xffff<<16|uint64(bits.ReverseBytes32(uint32(a)))<<32)
}
