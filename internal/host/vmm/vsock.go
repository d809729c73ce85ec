package vmm

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/thurward/thurward/internal/host/vhostvsock"
)

// A Vsock is where the guest's vsock connections go. The zero Vsock is no device.
type Vsock struct {
	Path string // Unix sockets: this, an underscore and the port
	CID  uint32 // the kernel's vhost-vsock, with this context id for the guest
	Port uint32 // of the host, to which the firewall connects; 0: DefaultPort
}

// DefaultPort is the host's vsock port to which the firewall connects if nothing says
// otherwise.
const DefaultPort = 9000

// port returns the port.
func (v Vsock) port() uint32 {
	if v.Port == 0 {
		return DefaultPort
	}
	return v.Port
}

// Socket returns the Unix socket on which a receiver listens, "" if there is none.
func (v Vsock) Socket() string {
	if v.Path == "" {
		return ""
	}
	return v.Path + "_" + strconv.FormatUint(uint64(v.port()), 10)
}

// ParseVsockPort checks the value of --vsock-port.
func ParseVsockPort(n uint) (uint32, error) {
	if n == 0 || n >= 1<<32-1 {
		return 0, fmt.Errorf("%d is not a vsock port (want 1 to 4294967294)", n)
	}
	return uint32(n), nil
}

// VsockHelp lists the values that ParseVsock accepts.
const VsockHelp = "auto, none, a path, or kernel:CID"

// guestCID is the guest's context id if the device is its own, so that ids of other
// machines do not matter.
const guestCID = 3

// dialLimit is how long connecting to a receiver may take.
const dialLimit = 2 * time.Second

// vhostVsock is the kernel's device.
const vhostVsock = "/dev/vhost-vsock"

// ParseVsock reads the value of --vsock; def is the path that auto stands for.
func ParseVsock(s, def string) (Vsock, error) {
	cid, kernel := strings.CutPrefix(s, "kernel:")
	switch {
	case s == "none":
		return Vsock{}, nil
	case s == "auto":
		s = def
	case s == "kernel":
		return Vsock{}, errors.New("kernel needs a context id (want kernel:CID, 3 or more, another for each machine)")
	case kernel:
		n, err := strconv.ParseUint(cid, 10, 32)
		if err != nil || n < 3 || n == 1<<32-1 {
			return Vsock{}, fmt.Errorf("%q is not a context id of a guest (want 3 or more, another for each machine)", cid)
		}
		return Vsock{CID: uint32(n)}, nil
	}
	if s == "" {
		return Vsock{}, fmt.Errorf("a path is missing (want %s)", VsockHelp)
	}
	// The longest port makes the socket's path longer by this much.
	if room := maxPath - len("_4294967294"); len(s) > room {
		return Vsock{}, fmt.Errorf("a path of %d bytes; at most %d are possible, since _PORT is put behind it: %s", len(s), room, s)
	}
	path, err := filepath.Abs(s)
	return Vsock{Path: path}, err
}

// String returns where connections go.
func (v Vsock) String() string {
	switch {
	case v.Path != "":
		return v.Socket()
	case v.CID != 0:
		return fmt.Sprintf("vsock port %d of the host, from context id %d", v.port(), v.CID)
	}
	return "nowhere"
}

// attachVsock makes the vsock device for one start of a machine; fd is the number that its
// first file will have.
func (c *Config) attachVsock(fd int) (Attachment, error) {
	switch v := c.Vsock; {
	case v.Path != "":
		return c.attachVhostUser(fd)
	case v.CID != 0 && c.Machine == Q35IOMMU:
		return Attachment{}, fmt.Errorf("--machine %v: the kernel's vsock device would reach the machine's memory past the IOMMU (want a path for --vsock, or --machine q35)", c.Machine)
	case v.CID != 0:
		f, err := os.OpenFile(vhostVsock, os.O_RDWR, 0)
		if err != nil {
			return Attachment{}, fmt.Errorf("vsock: %w (modprobe vhost_vsock; or take a path, which needs nothing of the kernel)", err)
		}
		return Attachment{Files: []*os.File{f}, Args: []string{"-device", "vhost-vsock-" + c.Machine.bus() +
			",guest-cid=" + strconv.FormatUint(uint64(v.CID), 10) + ",vhostfd=" + strconv.Itoa(fd)}}, nil
	}
	return Attachment{}, nil
}

// attachVhostUser makes this process the device's back end.
func (c *Config) attachVhostUser(fd int) (Attachment, error) {
	conn, theirs, err := socketPair()
	if err != nil {
		return Attachment{}, fmt.Errorf("socket pair for vsock: %w", err)
	}
	cfg := vhostvsock.Config{CID: guestCID, Path: c.Vsock.Path, Translated: c.Machine == Q35IOMMU, Dial: c.dialer(), Tap: c.tap, Log: c.log()}
	go func() {
		defer conn.Close()
		if err := vhostvsock.Serve(conn, cfg, c.pulse); err != nil {
			cfg.Log("vsock: %v", err)
		}
	}()
	return Attachment{SharedMemory: true, Files: []*os.File{theirs}, Ended: func() { conn.Close() }, Args: []string{
		"-chardev", "socket,id=vsock,fd=" + strconv.Itoa(fd),
		"-device", "vhost-user-vsock-" + c.Machine.bus() + ",chardev=vsock" + c.Machine.through()}}, nil
}
