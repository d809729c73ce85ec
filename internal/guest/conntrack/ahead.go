package conntrack

import (
	"unsafe"

	"github.com/thurward/thurward/internal/guest/prefetch"
)

// What a new flow writes is prefetched one flow ahead: nothing else is as slow about it.

// fetchNext prefetches the record that the next flow will be written to.
func (t *Table) fetchNext() {
	i := t.freeHead - 1
	if t.freeHead == 0 {
		i = t.fresh
	}
	if i < uint32(len(t.shared)) {
		prefetch.Write3(uintptr(unsafe.Pointer(&t.shared[i])), uintptr(unsafe.Pointer(&t.dirs[2*i])), uintptr(unsafe.Pointer(&t.dirs[2*i+1])))
	}
}

// fetchEnd prefetches what the removal of flow i needs beside its directions.
func (t *Table) fetchEnd(i uint32) {
	a, _ := t.Lines(&t.dirs[2*i].Key)
	b, _ := t.Lines(&t.dirs[2*i+1].Key)
	prefetch.Write3(uintptr(unsafe.Pointer(&t.shared[i])), a, b)
}

// Lines returns the addresses of both buckets of a key, for prefetch.Read. They are no
// references.
func (t *Table) Lines(k *Key) (a, b uintptr) {
	h := t.Hash(k)
	return uintptr(unsafe.Pointer(&t.buckets[h&t.mask])), uintptr(unsafe.Pointer(&t.buckets[t.second(h)]))
}

// Unknown reports whether a prepared batch has a key j that was in the table under no
// direction when it was prepared.
func (b *Batch) Unknown(j int) bool { return j < b.n && b.hint[j&(BatchSize-1)] == None }
