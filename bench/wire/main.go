// Command wire is the control of the measurements in a virtual machine: a guest
// program that moves frames between its two network devices and looks at
// nothing. It runs on the firewall's kernel with the firewall's drivers, so
// that the difference between the two is the firewall.
//
// With the boot argument wire.like=firewall it takes the offloads and the pairs of queues that
// the firewall takes, each pair in a thread of its own, lets frames wait for room as it does, and
// sleeps when there are none. Otherwise it takes none, and never sleeps.
package main

import (
	"os"
	"runtime"
	"strings"
	"unsafe"

	"github.com/thurward/thurward/internal/guest/framebuf"
	"github.com/thurward/thurward/internal/guest/sys"
	"github.com/thurward/thurward/internal/guest/virtio"
)

const (
	batch   = 64
	buffers = 2048
	long    = 48 // buffers of large frames, as the firewall has
	netID   = 1  // virtio device type
	spin    = 200
	// longWait is the longest sleep, kickEvery the interval of Kick, in nanoseconds.
	longWait, kickEvery = int64(60e9), int64(100e6)
)

func main() {
	if sys.Native() {
		sys.Cooperate()
	}
	like := strings.Contains(sys.Cmdline(), "wire.like=firewall")
	pairs, _ := sys.Processors()
	if !like {
		pairs = 1
	}
	var devs []*virtio.NetDevice
	var bits []uint64
	for _, d := range sys.Devices(netID) {
		dev, err := virtio.FindNet(transport(d), virtio.Wanted{Offloads: like, Pairs: pairs > 1})
		if err != nil {
			refuse(err.Error())
		}
		devs, bits, pairs = append(devs, dev), append(bits, 1<<d.Bit), min(pairs, dev.Pairs())
	}
	if len(devs) != 2 {
		refuse("want two network devices")
	}
	pools := newPools(pairs, like)
	var nets [2][]*virtio.Net
	for i, dev := range devs {
		var err error
		if nets[i], err = dev.OpenPairs(dma, pools, virtio.NetOptions{Now: sys.Nanotime}); err != nil {
			refuse(err.Error())
		}
	}
	// The launcher waits for this line.
	os.Stdout.WriteString("thurward: ready version=wire\n")
	if !like {
		run(pools[0], nets[0][0], nets[1][0])
	}
	for k := pairs - 1; k > 0; k-- {
		go runLike(k, pools[k], [2]*virtio.Net{nets[0][k], nets[1][k]}, [2]uint64(bits))
	}
	runLike(0, pools[0], [2]*virtio.Net{nets[0][0], nets[1][0]}, [2]uint64(bits))
}

// newPools makes buffers for each of so many pairs of queues.
func newPools(pairs int, like bool) []*framebuf.Pool {
	mem, phys, err := sys.DMA(pairs*buffers*framebuf.Size, false)
	if err != nil {
		refuse("no memory for packet buffers")
	}
	pool := framebuf.NewPool(mem, phys)
	if like {
		if mem, phys, err = sys.DMA(pairs*long*framebuf.LongSize, false); err != nil {
			refuse("no memory for long buffers")
		}
		pool.AddLong(mem, phys)
	}
	return pool.Split(pairs)
}

// transport returns the transport of a device.
func transport(d sys.Device) virtio.Transport {
	registers := func(p unsafe.Pointer) virtio.Wide {
		if sys.Native() {
			return sys.NewRegisters(p)
		}
		return virtio.NewWindow(p)
	}
	if d.Notify == nil {
		return virtio.NewMMIO(registers(d.Registers))
	}
	return virtio.NewPCI(virtio.PCIWindows{ID: d.ID, Vectors: d.Vectors, Common: registers(d.Registers), Notify: registers(d.Notify), NotifyLen: d.NotifyLen,
		Multiplier: d.Multiplier, Config: registers(d.Config), ConfigLen: d.ConfigLen})
}

// run moves frames for ever. It does not sleep: it is there to be measured.
func run(pool *framebuf.Pool, a, b *virtio.Net) {
	var f [batch]framebuf.Frame
	native := sys.Native()
	for i := 0; ; i++ {
		move(pool, f[:], a, b)
		move(pool, f[:], b, a)
		if native && i%64 == 0 {
			sys.Yield()
		}
	}
}

// runLike moves frames of pair k of the queues for ever, and sleeps while there are none.
func runLike(k int, pool *framebuf.Pool, n [2]*virtio.Net, bits [2]uint64) {
	runtime.LockOSThread()
	var f [batch]framebuf.Frame
	want := bits[0] | bits[1]
	if k == 0 {
		want = 0 // all, as the firewall's first worker
	}
	sys.WaitAs(k, want, 0) // from now on the kernel keeps what comes for it
	idle, kick := 0, int64(0)
	for {
		got := 0
		for i, from := range n {
			if to := n[1-i]; to.HasRoom(virtio.Burst) {
				got += move(pool, f[:], from, to)
			}
		}
		if now := sys.Nanotime(); now >= kick {
			kick = now + kickEvery
			n[0].Kick()
			n[1].Kick()
		}
		if idle++; got > 0 {
			idle = 0
		}
		if idle < spin {
			continue
		}
		if !n[0].Arm() && !n[1].Arm() {
			woken := sys.WaitAs(k, want, sys.Nanotime()+longWait)
			for i := range n {
				if woken&bits[i] != 0 {
					n[i].Ack()
				}
			}
		}
		n[0].Disarm()
		n[1].Disarm()
		idle = 0
	}
}

func move(pool *framebuf.Pool, f []framebuf.Frame, from, to *virtio.Net) (n int) {
	n = from.Receive(f)
	for _, x := range f[:n] {
		if x.IsLarge() { // the device wants to know how long the headers are
			l := pool.Large(x)
			if b := pool.First(x); int(l.Transport)+13 <= len(b) {
				l.Headers = l.Transport + uint16(b[l.Transport+12]>>4)*4
			}
		}
	}
	for _, left := range f[to.Transmit(f[:n]):n] {
		pool.Release(left)
	}
	return n
}

func dma(n int) (virtio.DMA, error) {
	mem, phys, err := sys.DMA(n, true)
	return virtio.DMA{Mem: mem, Phys: phys}, err
}

func refuse(why string) {
	os.Stdout.WriteString("thurward: refusing to start: " + why + "\n")
	sys.PowerOff()
}
