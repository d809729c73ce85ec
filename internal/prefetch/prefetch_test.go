package prefetch

import (
	"testing"
	"unsafe"
)

// TestAsk: any address and any number are harmless.
func TestAsk(t *testing.T) {
	var l Lines
	mem := make([]byte, 64*Max)
	for i := range l {
		l[i] = uintptr(unsafe.Pointer(&mem[64*i]))
		if i%3 == 0 {
			l[i] = uintptr(i) << 40
		}
	}
	for _, n := range []int{0, 1, 7, Max} {
		Ask(l[:n])
	}
	Ask(nil)
	Ask(make([]uintptr, Max+1))
}
