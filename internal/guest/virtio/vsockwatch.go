package virtio

import "sync/atomic"

// A ResetWatch notices events of a socket device before the device's own goroutine handles
// them. The only event is the transport's reset (virtio 1.2, 5.10.6.7): the machine is
// another one than before, or its state is used a second time. One goroutine may use it,
// beside the one that uses the device. The zero ResetWatch sees nothing.
type ResetWatch struct {
	head *uint32 // of the event queue's used ring: flags | idx<<16
	seen uint16
}

// WatchResets returns a watch that reports events from now on.
func (v *Vsock) WatchResets() ResetWatch {
	w := ResetWatch{head: v.ev.usedHead}
	w.Reset()
	return w
}

// Reset reports whether there were events since the last call. It costs a load from memory
// that the device writes at an event only.
func (w *ResetWatch) Reset() bool {
	if w.head == nil {
		return false
	}
	i := uint16(atomic.LoadUint32(w.head) >> 16)
	reset := i != w.seen
	w.seen = i
	return reset
}
