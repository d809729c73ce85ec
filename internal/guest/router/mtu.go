package router

import (
	"github.com/thurward/thurward/internal/guest/framebuf"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
)

// MTU returns the size in bytes of the largest packet that the interface on a side sends: what
// the policy says, and no more than the device reports of its link, if it does (0: it does
// not).
func MTU(p *ruleset.Policy, side ruleset.Role, device int) int {
	said := 0
	if f := p.Interface(side); f != nil {
		said = int(f.MTU)
	}
	switch {
	case said == 0 && device == 0:
		return ruleset.DefaultMTU
	case device == 0:
		return said
	case said == 0:
		return min(device, ruleset.MaxMTU)
	}
	return min(said, device)
}

// LargestMTU returns the MTU that buffers must have room for: the larger one of both sides,
// whose devices report lan and wan (0: they do not). A frame keeps its buffer on its way.
func LargestMTU(p *ruleset.Policy, lan, wan int) int {
	return max(MTU(p, ruleset.LAN, lan), MTU(p, ruleset.WAN, wan))
}

// Numbers of packet buffers: two full queues for each of two devices, and as many again in
// the data plane; of large ones, which take much more memory, half as many there.
const (
	buffers      = 2048
	largeBuffers = 1536
)

// Buffers returns how many packet buffers there are for packets of at most mtu bytes, and how
// many times framebuf.Size each has.
func Buffers(mtu int) (n, span int) {
	if span = framebuf.Span(packet.EthLen + mtu); span > 1 {
		return largeBuffers, span
	}
	return buffers, span
}
