package main

import (
	"errors"
	"strings"
	"unsafe"

	"github.com/thurward/thurward/internal/guest/framebuf"
	"github.com/thurward/thurward/internal/guest/router"
	"github.com/thurward/thurward/internal/guest/sys"
	"github.com/thurward/thurward/internal/guest/virtio"
	"github.com/thurward/thurward/internal/shared/ruleset"
)

// ports are the two network devices.
type ports struct {
	lan, wan       *virtio.Net
	lanBit, wanBit uint64 // in the result of sys.Wait
	renewals       [2]renewal
	kick, look     int64 // times of the next Kick and Look
	heard          bool  // the gateway; reported
}

const netDevice = 1 // virtio device type

// openPorts identifies the devices of LAN and WAN by their hardware addresses, and opens
// both. The order of devices is not used: it differs between hypervisors. The address of an
// interface is in a boot argument or in the policy.
func openPorts(p *ruleset.Policy, args arguments, pool *framebuf.Pool) (*ports, error) {
	devices := sys.Devices(netDevice)
	var have []string
	macs := make([][6]byte, len(devices))
	nets := make([]*virtio.NetDevice, len(devices))
	for i, d := range devices {
		find := virtio.FindOffloads
		if args.plain {
			find = virtio.FindNet
		}
		n, err := find(transport(d))
		if err != nil {
			have = append(have, "one that cannot be used ("+err.Error()+")")
			continue
		}
		nets[i] = n
		if m, ok := n.MAC(); ok {
			macs[i] = m
			have = append(have, formatMAC(m))
		} else {
			have = append(have, "one without a hardware address (Firecracker: guest_mac)")
		}
	}
	found := noNetwork(sys.Found())
	if len(have) > 0 {
		found = "the machine has " + strings.Join(have, ", ")
	}
	ps := &ports{}
	used := -1
	for _, side := range []struct {
		name string
		role ruleset.Role
		arg  [6]byte
		set  bool
		dev  **virtio.Net
		bit  *uint64
	}{{"lan", ruleset.LAN, args.lan, args.hasLAN, &ps.lan, &ps.lanBit}, {"wan", ruleset.WAN, args.wan, args.hasWAN, &ps.wan, &ps.wanBit}} {
		want := side.arg
		if f := p.Interface(side.role); f != nil && f.HasMAC != 0 && !side.set {
			want = f.MAC
		} else if !side.set {
			return nil, errors.New("which network device is the " + side.name + "? Give the boot argument thurward." +
				side.name + "=MAC, or mac: in the policy's interface; " + found)
		}
		n := -1
		for i := range macs {
			if nets[i] != nil && macs[i] == want && i != used {
				n = i
			}
		}
		if n < 0 {
			return nil, errors.New("no network device for the " + side.name + " interface: want " + formatMAC(want) + "; " + found)
		}
		used = n
		dev, err := nets[n].Open(dma, pool, virtio.NetOptions{})
		if err != nil {
			return nil, errors.New("the " + side.name + " interface (" + formatMAC(want) + "): " + err.Error())
		}
		if m := dev.DeviceMTU(); m > dev.MTU() {
			say("note: the network of the " + side.name + " interface carries packets of " + itoa(m) + " bytes, the firewall " +
				itoa(dev.MTU()) + ": longer ones are dropped (set the MTU of its hosts to that)")
		}
		*side.dev, *side.bit = dev, 1<<devices[n].Bit
	}
	if len(devices) > 2 {
		say("note: " + itoa(len(devices)-2) + " network device(s) are not used; " + found)
	}
	return ps, nil
}

func (p *ports) config(r ruleset.Role) router.PortConfig {
	n := p.lan
	if r == ruleset.WAN {
		n = p.wan
	}
	mac, _ := n.MAC()
	takes, sends := n.Large()
	return router.PortConfig{Role: r, Port: n, MAC: mac, MTU: n.MTU(), LargeIn: takes, LargeOut: sends}
}

// transport returns the transport of a device.
func transport(d sys.Device) virtio.Transport {
	if d.Notify == nil {
		return virtio.NewMMIO(registers(d.Registers))
	}
	return virtio.NewPCI(virtio.PCIWindows{ID: d.ID, Common: registers(d.Registers), Notify: registers(d.Notify), NotifyLen: d.NotifyLen,
		Multiplier: d.Multiplier, Config: registers(d.Config), ConfigLen: d.ConfigLen})
}

// registers returns the registers in a window.
func registers(p unsafe.Pointer) virtio.Wide {
	if sys.Native() {
		return sys.NewRegisters(p)
	}
	return virtio.NewWindow(p)
}

// dma allocates memory that devices can access.
func dma(n int) (virtio.DMA, error) {
	mem, phys, err := sys.DMA(n, true)
	return virtio.DMA{Mem: mem, Phys: phys}, err
}
