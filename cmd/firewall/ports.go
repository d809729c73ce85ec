package main

import (
	"errors"
	"strings"
	"unsafe"

	"github.com/thurward/thurward/internal/guest/framebuf"
	"github.com/thurward/thurward/internal/guest/sys"
	"github.com/thurward/thurward/internal/guest/virtio"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
)

// ports are the two network devices.
type ports struct {
	*pair    // the first worker's
	workers  int
	renewals [2]renewal
	look     int64 // time of the next Look
	heard    bool  // the gateway; reported
}

const netDevice = 1 // virtio device type

// A side is the device of LAN or WAN, which has been found.
type side struct {
	*virtio.NetDevice
	name string
	role ruleset.Role
	mac  [6]byte
	bit  uint64 // in the result of sys.Wait
}

// sides are those of LAN and WAN.
type sides [2]side

// findPorts identifies the devices of LAN and WAN by their hardware addresses. The order of
// devices is not used: it differs between hypervisors. The address of an interface is in a
// boot argument or in the policy. most is how many pairs of queues will be used at most.
func findPorts(p *ruleset.Policy, args arguments, most int) (*sides, error) {
	devices := sys.Devices(netDevice)
	var have []string
	macs := make([][6]byte, len(devices))
	nets := make([]*virtio.NetDevice, len(devices))
	for i, d := range devices {
		n, err := virtio.FindNet(transport(d), virtio.Wanted{Offloads: !args.plain, Pairs: most > 1})
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
	ss := &sides{}
	used := -1
	for i, want := range []struct {
		name string
		role ruleset.Role
		arg  [6]byte
		set  bool
	}{{"lan", ruleset.LAN, args.lan, args.hasLAN}, {"wan", ruleset.WAN, args.wan, args.hasWAN}} {
		mac := want.arg
		if f := p.Interface(want.role); f != nil && f.HasMAC != 0 && !want.set {
			mac = f.MAC
		} else if !want.set {
			return nil, errors.New("which network device is the " + want.name + "? Give the boot argument thurward." +
				want.name + "=MAC, or mac: in the policy's interface; " + found)
		}
		n := -1
		for i := range macs {
			if nets[i] != nil && macs[i] == mac && i != used {
				n = i
			}
		}
		if n < 0 {
			return nil, errors.New("no network device for the " + want.name + " interface: want " + formatMAC(mac) + "; " + found)
		}
		used = n
		ss[i] = side{NetDevice: nets[n], name: want.name, role: want.role, mac: mac, bit: 1 << devices[n].Bit}
	}
	if len(devices) > 2 {
		say("note: " + itoa(len(devices)-2) + " network device(s) are not used; " + found)
	}
	return ss, nil
}

// open opens both devices, with a pair of queues for each of the pools.
func (ss *sides) open(p *ruleset.Policy, pools []*framebuf.Pool) (pairs []*pair, err error) {
	for range pools {
		pairs = append(pairs, &pair{lanBit: ss[0].bit, wanBit: ss[1].bit})
	}
	for i := range ss {
		s := &ss[i]
		devs, err := s.OpenPairs(dma, pools, virtio.NetOptions{Now: sys.Nanotime})
		if err != nil {
			return nil, errors.New("the " + s.name + " interface (" + formatMAC(s.mac) + "): " + err.Error())
		}
		if why := narrow(int(p.Interface(s.role).MTU), s.MTU(), pools[0].MaxLen()-packet.EthLen); why != "" {
			say("note: the " + s.name + " interface: " + why)
		}
		for k, n := range devs {
			pairs[k].shared = pairs[k].shared || n.SharesInterrupt()
			if i == 0 {
				pairs[k].lan = n
			} else {
				pairs[k].wan = n
			}
		}
	}
	return pairs, nil
}

// narrow says why packets on a link are not as long as one may expect, "" where they are: said
// is the policy's MTU, 0 for none, device the one that the device reports, 0 for none, and room
// the longest packet that a buffer holds.
func narrow(said, device, room int) string {
	switch {
	case said == 0 && device > min(room, ruleset.MaxMTU):
		return "its network carries packets of " + itoa(device) + " bytes, the firewall " + itoa(min(room, ruleset.MaxMTU)) +
			": longer ones are dropped (set the MTU of its hosts to that, or give the machine more memory)"
	case device != 0 && said > device:
		return "its mtu is " + itoa(said) + ", and its network carries packets of " + itoa(device) + " bytes: the firewall sends none that are longer"
	}
	return ""
}

// transport returns the transport of a device.
func transport(d sys.Device) virtio.Transport {
	if d.Notify == nil {
		return virtio.NewMMIO(registers(d.Registers))
	}
	vectors := uint32(1)
	if d.ID == netDevice {
		vectors = d.Vectors // each pair of queues interrupts the processor of its worker
	}
	return virtio.NewPCI(virtio.PCIWindows{ID: d.ID, Vectors: vectors, Common: registers(d.Registers), Notify: registers(d.Notify), NotifyLen: d.NotifyLen,
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
