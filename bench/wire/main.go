// Command wire is the control of the measurements in a virtual machine: a guest
// program that moves frames between its two network devices and looks at
// nothing. It runs on the firewall's kernel with the firewall's drivers, so
// that the difference between the two is the firewall.
package main

import (
	"os"

	"github.com/thurward/thurward/internal/frame"
	"github.com/thurward/thurward/internal/machine"
	"github.com/thurward/thurward/internal/virtio"
)

const (
	batch   = 64
	buffers = 2048
	netID   = 1 // virtio device type
)

func main() {
	if machine.Native() {
		machine.Cooperate()
	}
	mem, phys, err := machine.DMA(buffers*frame.Size, false)
	if err != nil {
		refuse("no memory for packet buffers")
	}
	pool := frame.NewPool(mem, phys)
	var nets []*virtio.Net
	for _, d := range machine.Devices(netID) {
		var t virtio.Transport = virtio.NewMMIO(d.Registers)
		if machine.Native() {
			t = machine.NewRegisters(d.Registers)
		}
		dev, err := virtio.FindNet(t)
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
func run(pool *frame.Pool, a, b *virtio.Net) {
	var f [batch]frame.Frame
	native := machine.Native()
	for i := 0; ; i++ {
		move(pool, f[:], a, b)
		move(pool, f[:], b, a)
		if native && i%64 == 0 {
			machine.Yield()
		}
	}
}

func move(pool *frame.Pool, f []frame.Frame, from, to *virtio.Net) {
	n := from.Receive(f)
	for _, left := range f[to.Transmit(f[:n]):n] {
		pool.Put(left.Buf)
	}
}

func dma(n int) (virtio.DMA, error) {
	mem, phys, err := machine.DMA(n, true)
	return virtio.DMA{Mem: mem, Phys: phys}, err
}

func refuse(why string) {
	os.Stdout.WriteString("thurward: refusing to start: " + why + "\n")
	machine.PowerOff()
}
