package vmm

import (
	"errors"
	"io/fs"
	"os"
	"strconv"
)

// vhostNet is the kernel's back end of network devices: frames then go between a TAP device
// and the machine's memory without QEMU. A variable for tests.
var vhostNet = "/dev/vhost-net"

// addVhostNet has the kernel move the frames of an attachment's TAP device, where this user
// may have it do that; fd is the number that the attachment's first file will have. QEMU
// itself goes on where the kernel refuses the device. Only KVM is notified by it.
func (c *Config) addVhostNet(at *Attachment, fd int) {
	if !at.tap || !c.KVM || c.Machine == Q35IOMMU { // it would need translations from QEMU
		return
	}
	first := fd + len(at.Files)
	for i := range max(at.queues, 1) {
		f, err := os.OpenFile(vhostNet, os.O_RDWR, 0)
		switch {
		case err == nil:
			at.Files = append(at.Files, f)
			continue
		case !errors.Is(err, fs.ErrNotExist):
			c.log()("QEMU moves the frames of a TAP device, which takes longer: %v (vhost-net needs the right to open it)", err)
		}
		closeAll(at.Files[len(at.Files)-i:])
		at.Files = at.Files[:len(at.Files)-i]
		return
	}
	if at.queues > 1 {
		at.Args[len(at.Args)-1] += ",vhost=on,vhostfds=" + numbers(first, at.queues)
	} else {
		at.Args[len(at.Args)-1] += ",vhost=on,vhostfd=" + strconv.Itoa(first)
	}
	c.log()("the kernel moves the frames of a TAP device (vhost-net)")
}
