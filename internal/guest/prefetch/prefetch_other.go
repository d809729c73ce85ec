//go:build !amd64

package prefetch

// Read does nothing: prefetching is a hint.
func Read([]uintptr) {}

// Write does nothing: see Read.
func Write([]uintptr) {}

// Write3 does nothing: see Read.
func Write3(a, b, c uintptr) {}

// ReadTwo does nothing: see Read.
func ReadTwo([]uintptr) {}
