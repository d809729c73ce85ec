// Command wire is the control of the measurements in a virtual machine: a guest
// program that moves frames between its two network devices and looks at
// nothing. It runs on the firewall's kernel with the firewall's drivers, so
// that the difference between the two is the firewall.
package main

import (
	"os"

	"github.com/thurward/thurward/internal/guest/framebuf"
	"github.com/thurward/thurward/internal/guest/sys"
	"github.com/thurward/thurward/internal/guest/virtio"
)

const (
	batch   = 64
	buffers = 2048
	netID   = 1 // virtio device type
)

func main() {
	if sys.Native() {
		sys.Cooperate()
	}
	mem, phys, err := sys.DMA(buffers*framebuf.Size, false)
	if err != nil {
		refuse("no memory for packet buffers")
	}
	pool := framebuf.NewPool(mem, phys)
	var nets []*virtio.Net
	for _, d := range sys.Devices(netID) {
		var t virtio.Transport = virtio.NewMMIO(virtio.NewWindow(d.Registers))
		if sys.Native() {
			t = virtio.NewMMIO(sys.NewRegisters(d.Registers))
		}
		dev, err := virtio.FindNet(t, virtio.Wanted{})
		if err != nil {
			refuse(err.Error())
		}
		n, err := dev.Open(dma, pool, virtio.NetOptions{})
		if err != nil {
			refuse(err.Error())
		}
		nets = append(nets, n)
	}
	if len(nets) != 2 {
		refuse("want two network devices")
	}
	// The launcher waits for this line.
	os.Stdout.WriteString("thurward: ready version=wire\n")
	run(pool, nets[0], nets[1])
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

func move(pool *framebuf.Pool, f []framebuf.Frame, from, to *virtio.Net) {
	n := from.Receive(f)
	for _, left := range f[to.Transmit(f[:n]):n] {
		pool.Put(left.Buf)
	}
}

func dma(n int) (virtio.DMA, error) {
	mem, phys, err := sys.DMA(n, true)
	return virtio.DMA{Mem: mem, Phys: phys}, err
}

func refuse(why string) {
	os.Stdout.WriteString("thurward: refusing to start: " + why + "\n")
	sys.PowerOff()
}
