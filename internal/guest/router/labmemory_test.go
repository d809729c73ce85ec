package router

import "syscall"

// mappings is memory that costs as much time as is touched of it: a lab has some
// megabytes and a test some packets.
type mappings [][]byte

func (m *mappings) alloc(n int, _ bool) []byte {
	if n < 64<<10 {
		return make([]byte, n)
	}
	b, err := syscall.Mmap(-1, 0, n, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_PRIVATE|syscall.MAP_ANON)
	if err != nil {
		return make([]byte, n)
	}
	*m = append(*m, b)
	return b
}

func (m mappings) free() {
	for _, b := range m {
		syscall.Munmap(b)
	}
}
