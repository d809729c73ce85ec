package conntrack

// prefetch asks for the first n of the cache lines, and waits for none of them.
// A plain load does so only as far ahead as the processor can reorder: six or
// eight packets, where this covers the batch. A prefetch of any address is
// harmless. n is at most maxLines.
//
//go:noescape
func prefetch(line *[maxLines]uintptr, n int)
