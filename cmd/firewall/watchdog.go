package main

import (
	"math"
	"unsafe"

	"github.com/thurward/thurward/internal/guest/virtio"
	"github.com/thurward/thurward/internal/shared/abi"
)

// feedEvery is the interval in which the packet loop feeds the machine's watchdog, in
// nanoseconds, and dogStage the time of each of its two stages, in milliseconds: after 6 seconds
// without the packet loop it acts. A loop on a host that is far overloaded has gaps of some
// tenths of a second.
const (
	feedEvery = int64(1e9)
	dogStage  = 3000
)

// A watchdog is the machine's watchdog device (abi.DogReload), which the kernel has started. It
// does not depend on the stream, nor on anything of the host but the hypervisor.
type watchdog struct {
	r    virtio.Wide
	next int64 // when it is fed
}

// newWatchdog takes over the device at p; nil is none. A tick is 0.98 ms: 2^15 of PCI's clock.
func newWatchdog(p unsafe.Pointer) *watchdog {
	if p == nil {
		return &watchdog{next: math.MaxInt64}
	}
	w := &watchdog{r: registers(p)}
	for stage := range uint32(2) {
		w.unlock()
		w.r.Write32(4*stage, dogStage)
	}
	return w
}

func (w *watchdog) unlock() {
	w.r.Write16(abi.DogReload, abi.DogUnlock1)
	w.r.Write16(abi.DogReload, abi.DogUnlock2)
}

// feed begins the time anew.
func (w *watchdog) feed(now int64) {
	w.next = now + feedEvery
	w.unlock()
	w.r.Write16(abi.DogReload, abi.DogFeed)
}

// starves leaves the watchdog unfed while a worker stands still, and reports that it does.
func (w *watchdog) starves(still bool, now int64) bool {
	if still {
		w.next = now + feedEvery/10
	}
	return still
}
