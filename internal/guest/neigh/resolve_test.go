package neigh

import (
	"testing"

	"github.com/thurward/thurward/internal/guest/framebuf"
	"github.com/thurward/thurward/internal/shared/packet"
)

// TestRoomToWait: a quarter of the buffers may wait on one link, or 512; all of
// that for the gateway, and 64 for another hop.
func TestRoomToWait(t *testing.T) {
	mem := make([]byte, 4096*framebuf.Size)
	for buffers, room := range map[int]int{4: 1, 236: 59, 256: 64, 264: 66, 2044: 511, 2048: 512, 2052: 512, 4096: 512} {
		for hop, want := range map[int]int{0: room, 1: min(room, MaxPerHop)} {
			c := New(1, gateway, framebuf.NewLinks(framebuf.NewPool(mem[:buffers*framebuf.Size], 0)))
			for i := range want + 3 {
				r := c.Resolve(gateway+packet.Addr(hop), framebuf.Frame{Buf: uint32(i), Len: 60}, 5, 1)
				if full := i >= want; r.Drop.Len() != 0 != full || full && r.Drop.First().Buf != uint32(i-want) || r.Request != (i == 0) {
					t.Fatalf("%d buffers, hop %d, frame %d: %+v", buffers, hop, i, r)
				}
			}
			if c.Waiting() != want {
				t.Errorf("%d buffers, hop %d: %d wait", buffers, hop, c.Waiting())
			}
		}
	}
}
