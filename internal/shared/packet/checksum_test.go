package packet

import "testing"

// TestFold: both shortcuts agree with adding word by word.
func TestFold(t *testing.T) {
	check := func(s uint64) {
		t.Helper()
		n := s
		for n > 0xffff {
			n = n>>16 + n&0xffff
		}
		if got := fold(s); uint64(got) != n {
			t.Fatalf("fold(%#x) is %#x, want %#x", s, got, n)
		}
		if s != 0 && valid(s) != (n == 0xffff) {
			t.Fatalf("valid(%#x) is %v", s, valid(s))
		}
	}
	for s := range uint64(1 << 20) {
		check(s)
		check(s << 16)
		check(^s)
		check(s * 0xffff)
		check(s*0xffff<<28 + s)
		check(1<<63 + s*0x1_0001_0001)
	}
	for i := range uint64(64) {
		check(1 << i)
		check(1<<i - 1)
		check(^(uint64(1) << i))
	}
}
