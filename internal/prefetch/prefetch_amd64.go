package prefetch

// Ask asks for the first n of the cache lines, and waits for none of them. A
// plain load does so only as far ahead as the processor can reorder: six or
// eight packets, where this covers a batch. n is at most Max.
//
//go:noescape
func Ask(l *Lines, n int)
