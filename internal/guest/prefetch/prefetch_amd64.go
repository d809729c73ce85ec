package prefetch

// Read prefetches cache lines for reading (PREFETCHT0) and waits for none of them. Plain
// loads overlap only within the processor's reordering window, which is six or eight
// packets; this covers a batch. A processor has about twenty such requests outstanding and
// stalls on more: prefetching a few at a time, with work in between, costs less than all at
// once. Lines beyond the first Max are ignored.
//
//go:noescape
func Read(l []uintptr)

// ReadTwo is Read for each line and the one after it.
//
//go:noescape
func ReadTwo(l []uintptr)

// Write prefetches lines that will be written (PREFETCHW): copies in other processors'
// caches are invalidated. Processors without the instruction ignore it.
//
//go:noescape
func Write(l []uintptr)

// Write3 is Write for three lines, or fewer where some are the same.
//
//go:noescape
func Write3(a, b, c uintptr)
