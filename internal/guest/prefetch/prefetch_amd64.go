package prefetch

// Ask asks for the cache lines, and waits for none of them. A plain load does so
// only as far ahead as the processor can reorder: six or eight packets, where
// this covers a batch. A processor has some twenty such requests under way at a
// time and makes further ones wait: to ask for a few at a time, with work in
// between, costs less than to ask for all at once. More than Max are ignored.
//
//go:noescape
func Ask(l []uintptr)

// Own is Ask for lines that will be written: no other processor keeps a copy.
// It is a hint that old processors ignore.
//
//go:noescape
func Own(l []uintptr)
