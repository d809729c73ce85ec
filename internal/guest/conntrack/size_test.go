package conntrack

import (
	"testing"
	"unsafe"
)

// TestLines: records are whole cache lines, and a direction is one.
func TestLines(t *testing.T) {
	if s := unsafe.Sizeof(Dir{}); s != 64 {
		t.Errorf("Dir takes %d bytes", s)
	}
	if s := unsafe.Sizeof(Shared{}); s != 64 {
		t.Errorf("Shared takes %d bytes", s)
	}
	if s := unsafe.Sizeof(bucket{}); s != 64 {
		t.Errorf("bucket takes %d bytes", s)
	}
}
