package vmm

import (
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"
)

// CloudHypervisor is an installed cloud-hypervisor.
type CloudHypervisor struct {
	Path    string
	Version string
	Confine *Confinement // nil: it has all rights of this process
}

// FindCloudHypervisor finds cloud-hypervisor and its version.
func FindCloudHypervisor() (*CloudHypervisor, error) {
	path, version, err := find("cloud-hypervisor", "https://github.com/cloud-hypervisor/cloud-hypervisor/releases")
	if err != nil {
		return nil, err
	}
	confine, err := NewConfinement("")
	return &CloudHypervisor{path, version, confine}, err
}

// String implements Hypervisor.
func (h *CloudHypervisor) String() string { return "cloud-hypervisor " + h.Version }

// traits: it starts a guest that resets again by itself, without its report being
// read; the launcher ends it once the report is out.
func (h *CloudHypervisor) traits() traits { return traits{grace: 300 * time.Millisecond} }

// args returns the command for a machine whose NICs have the given TAP devices and
// whose files lie in dir.
func (h *CloudHypervisor) args(c *Config, taps []string, dir string) []string {
	a := []string{h.Path, "--kernel", c.Image, "--cmdline", c.Cmdline(), "--cpus", "boot=" + strconv.Itoa(c.CPUs), "--memory", "size=" + strconv.Itoa(c.MemoryMB) + "M",
		"--serial", "tty", "--console", "off", "--log-file", filepath.Join(dir, fileLog), "--api-socket", "path=" + filepath.Join(dir, fileAPI)}
	if len(c.NICs) > 0 {
		a = append(a, "--net")
	}
	for i, n := range c.NICs {
		a = append(a, fmt.Sprintf("tap=%s,mac=%s,offload_tso=off,offload_ufo=off,offload_csum=off", taps[i], n.MAC))
	}
	if c.Vsock.Path != "" {
		a = append(a, "--vsock", fmt.Sprintf("cid=%d,socket=%s", guestCID, filepath.Join(dir, fileVsock)))
	}
	return a
}

// Print implements Hypervisor.
func (h *CloudHypervisor) Print(c Config) (string, error) {
	return commandLine(h.args(&c, tapNames(&c), "DIR")), nil
}

// Start implements Hypervisor.
func (h *CloudHypervisor) Start(c Config, onLine func(Line)) (*Machine, error) {
	if err := unsupported("cloud-hypervisor", &c); err != nil {
		return nil, err
	}
	c.sayQueues("machine", 1, "cloud-hypervisor gives its devices one")
	s, err := newSite(&c, nil, h.Confine)
	if err != nil {
		return nil, err
	}
	s.within = s.dir
	cmd := exec.Command(h.Path, h.args(&c, s.taps, s.dir)[1:]...)
	if h.Confine != nil {
		within := s.dir
		inner := c
		if h.Confine.Spaces == nil {
			within, inner.Image = insideSite, insideImage
		}
		s.within = within
		if cmd, err = h.Confine.beside(&c, s, h.Path, h.args(&inner, s.taps, within)[1:]); err != nil {
			s.close()
			return nil, err
		}
	}
	socket := filepath.Join(s.dir, fileAPI)
	return launch(&Machine{name: "cloud-hypervisor", there: s.there, cmd: cmd, log: s.log, ask: func() error { return pressButton(socket) }}, onLine, s.close)
}

// pressButton asks the guest to end, by cloud-hypervisor's API: it presses the power button.
func pressButton(socket string) error {
	_, err := apiCall(socket, http.MethodPut, "/api/v1/vm.power-button", nil)
	return err
}
