// Package prefetch loads cache lines before they are used, many at a time, so that their
// cache misses overlap.
package prefetch

// Max is the largest number of lines in one call.
const Max = 128

// Lines are addresses of cache lines. A wrong address is harmless. The garbage collector
// does not treat them as pointers, so they must lie in memory that does not move.
type Lines [Max]uintptr
