package prefetch

import (
	"testing"
	"unsafe"
)

// TestAnyAddress: any address and any number of lines are harmless.
func TestAnyAddress(t *testing.T) {
	var l Lines
	mem := make([]byte, 64*Max)
	for i := range l {
		l[i] = uintptr(unsafe.Pointer(&mem[64*i]))
		if i%3 == 0 {
			l[i] = uintptr(i) << 40
		}
	}
	Write3(l[0], l[1], l[2])
	for _, f := range []func([]uintptr){Read, ReadTwo, Write} {
		for _, n := range []int{0, 1, 3, 4, 5, 7, 8, Max} {
			f(l[:n])
		}
		f(nil)
		f(make([]uintptr, Max+1))
	}
}
