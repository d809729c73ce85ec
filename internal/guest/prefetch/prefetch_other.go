//go:build !amd64

package prefetch

// Ask is a hint, which other architectures do without.
func Ask([]uintptr) {}

// Own is Ask for lines that will be written.
func Own([]uintptr) {}
