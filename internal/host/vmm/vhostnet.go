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
	f, err := os.OpenFile(vhostNet, os.O_RDWR, 0)
	switch {
	case err == nil:
		at.Args[len(at.Args)-1] += ",vhost=on,vhostfd=" + strconv.Itoa(fd+len(at.Files))
		at.Files = append(at.Files, f)
		c.log()("the kernel moves the frames of a TAP device (vhost-net)")
	case !errors.Is(err, fs.ErrNotExist):
		c.log()("QEMU moves the frames of a TAP device, which takes longer: %v (vhost-net needs the right to open it)", err)
	}
}
