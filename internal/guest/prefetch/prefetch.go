// Package prefetch asks for memory before it is needed, for many places at
// once, so that their cache misses overlap.
package prefetch

// Max is how many lines are asked for at most.
const Max = 128

// Lines are addresses of cache lines. A wrong one is harmless. They are no
// pointers to the garbage collector, and must lie in memory that does not move.
type Lines [Max]uintptr
