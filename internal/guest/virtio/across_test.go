package virtio

import (
	"encoding/binary"
	"runtime"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/thurward/thurward/internal/guest/framebuf"
	"github.com/thurward/thurward/internal/guest/prefetch"
)

// An across is a device on another processor, as a monitor's thread is: it sends
// what it is given back to where it came from. Only the rings are as they are in
// a machine; it checks nothing.
type across struct {
	mem  []byte
	q    [2]acrossQueue
	stop atomic.Bool
	done chan struct{}
}

type acrossQueue struct {
	desc      []desc
	avail     []uint16
	used      []usedElem
	availHead *uint32
	usedHead  *uint32
	mask      uint16
	seen, idx uint16
}

func newAcross(d *fakeNet) *across {
	a := &across{mem: d.mem, done: make(chan struct{})}
	at := func(addr uint64) unsafe.Pointer { return unsafe.Pointer(&d.mem[addr-memBase]) }
	for i := range a.q {
		f, q := &d.q[i], &a.q[i]
		q.desc = unsafe.Slice((*desc)(at(f.desc)), f.num)
		q.availHead = (*uint32)(at(f.avail))
		q.avail = unsafe.Slice((*uint16)(at(f.avail+4)), f.num)
		q.usedHead = (*uint32)(at(f.used))
		q.used = unsafe.Slice((*usedElem)(at(f.used+4)), f.num)
		q.mask = uint16(f.num - 1)
	}
	return a
}

// pin binds the thread to a processor.
func pin(cpu int) error {
	runtime.LockOSThread()
	var set unix.CPUSet
	set.Set(cpu)
	return unix.SchedSetaffinity(0, &set)
}

func (a *across) run() {
	defer close(a.done)
	if pin(0) != nil {
		return
	}
	frame := [72]byte{10: 1}
	for !a.stop.Load() {
		for i := range a.q {
			q := &a.q[1-i]
			n := min(int(uint16(atomic.LoadUint32(q.availHead)>>16)-q.seen), 64)
			var l prefetch.Lines
			for k := range n {
				l[k] = uintptr(unsafe.Pointer(&q.desc[q.avail[(q.seen+uint16(k))&q.mask]&q.mask]))
			}
			prefetch.Read(l[:n])
			for k := range n {
				d := &q.desc[q.avail[(q.seen+uint16(k))&q.mask]&q.mask]
				l[2*k] = uintptr(unsafe.Pointer(&a.mem[d.addr-memBase]))
				l[2*k+1] = l[2*k] + 64
			}
			if i == 1 {
				prefetch.Write(l[:2*n])
			} else {
				prefetch.Read(l[:2*n])
			}
			for range n {
				id := q.avail[q.seen&q.mask]
				q.seen++
				d := q.desc[id&q.mask]
				b := a.mem[d.addr-memBase:][:72]
				if i == 1 {
					copy(b, frame[:])
				} else {
					frame[50] = b[50]
				}
				q.used[q.idx&q.mask] = usedElem{uint32(id), 72}
				q.idx++
			}
			if n > 0 {
				atomic.StoreUint32(q.usedHead, uint32(q.idx)<<16)
			}
		}
	}
}

// BenchmarkAcross forwards frames that a device on another processor writes and
// takes back, and touches their headers as the firewall does: what it measures is
// how long the driver waits for the other processor's cache.
func BenchmarkAcross(b *testing.B) {
	if runtime.NumCPU() < 2 {
		b.Skip("the device needs a processor of its own")
	}
	d := newFake(allNet)
	n, pool := open(b, d, 700, NetOptions{})
	a := newAcross(d)
	go a.run()
	defer func() { a.stop.Store(true); <-a.done }()
	if err := pin(1); err != nil {
		b.Skip(err)
	}
	defer runtime.UnlockOSThread()
	var f [64]framebuf.Frame
	start, frames := time.Now(), -1 // the first rounds only warm up
	for i := 0; frames < b.N; i++ {
		if frames < 0 && i == 1000 {
			b.ResetTimer()
			start, frames = time.Now(), 0
		}
		if !n.HasRoom(len(f)) {
			continue
		}
		k := n.Receive(f[:])
		sum := uint64(0)
		for i := range f[:k] {
			h := pool.Head(f[i])
			for o := 0; o < 56; o += 8 {
				sum += binary.LittleEndian.Uint64(h[o:])
			}
			for range 60 { // some 50 ns: the firewall's work on it
				sum *= 3
			}
			binary.LittleEndian.PutUint64(h[26:], sum)
			binary.LittleEndian.PutUint64(h[0:], sum)
		}
		n.Transmit(f[:k])
		if frames >= 0 {
			frames += k
		}
	}
	b.ReportMetric(float64(frames)/time.Since(start).Seconds()/1e6, "Mpps")
}
