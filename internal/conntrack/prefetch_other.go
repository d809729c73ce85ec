//go:build !amd64

package conntrack

// prefetch is a hint, which other architectures do without.
func prefetch(*[maxLines]uintptr, int) {}
