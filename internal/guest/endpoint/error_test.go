package endpoint

import (
	"testing"

	"github.com/thurward/thurward/internal/shared/packet"
)

// TestErrorsOfASecond: errorsPerSecond errors are examined in a second, and no more.
func TestErrorsOfASecond(t *testing.T) {
	var u errorRate
	now := 5 * second
	for range 3 {
		for i := range errorsPerSecond + 5 {
			if u.within(now) != (i < errorsPerSecond) {
				t.Fatalf("error %d", i)
			}
		}
		now += second - 1
		if u.within(now) {
			t.Fatal("a nanosecond early")
		}
		now++
	}
}

// TestSaysUnreachable: which types and codes of ICMP errors mean unreachable.
func TestSaysUnreachable(t *testing.T) {
	for typ := range 256 {
		for code := range 256 {
			p := packet.Packet{ICMPType: uint8(typ), ICMPCode: uint8(code)}
			if got, want := saysUnreachable(&p), typ == 3 && code != 4 || typ == 11 && code == 0; got != want {
				t.Fatalf("type %d, code %d: %v", typ, code, got)
			}
		}
	}
}
