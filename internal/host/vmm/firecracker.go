package vmm

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/thurward/thurward/internal/host/sandbox"
)

// Firecracker is an installed Firecracker, and how it is run.
type Firecracker struct {
	Path    string
	Version string
	PCI     bool         // devices on PCI (--enable-pci) in place of MMIO
	Jail    *Jail        // nil: without its jailer
	Confine *Confinement // without its jailer; nil: it has all rights of this process
	From    *Snapshot    // what machines start from; nil: they boot
}

// FindFirecracker finds Firecracker and its version.
func FindFirecracker() (*Firecracker, error) {
	path, version, err := find("firecracker", "https://github.com/firecracker-microvm/firecracker/releases")
	if err != nil {
		return nil, err
	}
	f := &Firecracker{Path: path, Version: version}
	if f.Confine, err = NewConfinement(""); err != nil {
		return nil, err
	}
	return f, f.tooOld()
}

// Versions of Firecracker. Those before the first turn offload of checksums and segmentation
// on for TAP devices whatever the guest takes (its issue 4659), without mergeable buffers: a
// large segment fits no buffer of the firewall, and is lost.
var (
	firecrackerTSO = Version{1, 9}
	firecrackerPCI = Version{1, 13}
)

// tooOld returns why a version cannot be used.
func (f *Firecracker) tooOld() error {
	v, err := parseVersion("version " + f.Version)
	switch {
	case err != nil:
		return fmt.Errorf("%s: cannot tell its version from %q", f.Path, f.Version)
	case !v.AtLeast(firecrackerTSO.Major, firecrackerTSO.Minor):
		return fmt.Errorf("%s is version %s, which has hosts send large segments that it cannot pass on; %d.%d or newer is needed", f.Path, f.Version, firecrackerTSO.Major, firecrackerTSO.Minor)
	case f.PCI && !v.AtLeast(firecrackerPCI.Major, firecrackerPCI.Minor):
		return fmt.Errorf("%s is version %s; devices on PCI need %d.%d or newer", f.Path, f.Version, firecrackerPCI.Major, firecrackerPCI.Minor)
	}
	return nil
}

// find finds a hypervisor and the version that it says it has.
func find(name, where string) (path, version string, err error) {
	if path, err = exec.LookPath(name); err != nil {
		return "", "", fmt.Errorf("%s is not installed (%s), or not on the PATH", name, where)
	}
	out, err := exec.Command(path, "--version").Output()
	if err != nil {
		return "", "", fmt.Errorf("%s --version: %w", path, err)
	}
	line, _, _ := strings.Cut(string(out), "\n")
	_, version, ok := strings.Cut(line, " v")
	if !ok {
		return "", "", fmt.Errorf("%s: cannot tell its version from %q", path, line)
	}
	if path, err = filepath.Abs(path); err != nil {
		return "", "", err
	}
	return path, strings.TrimSpace(version), nil
}

// String implements Hypervisor.
func (f *Firecracker) String() string {
	s := "Firecracker " + f.Version
	if f.PCI {
		s += " with PCI"
	}
	if f.Jail != nil {
		s += " in a jail of " + f.Jail.User
	}
	if f.From != nil {
		s += " from a snapshot"
	}
	return s
}

func (f *Firecracker) traits() traits { return traits{grace: crashGrace} }

// Names in the folder of a machine, or in its jail.
const (
	fileConfig = "config.json"
	fileImage  = "thurward.img"
	fileAPI    = "api.sock"
	fileVsock  = "v.sock"
	fileLog    = "log"
)

// fcConfig is Firecracker's configuration (its API's bodies, by resource).
type fcConfig struct {
	BootSource fcBoot    `json:"boot-source"`
	Drives     []string  `json:"drives"` // must be there, and is empty
	Machine    fcMachine `json:"machine-config"`
	Networks   []fcNet   `json:"network-interfaces"`
	Vsock      *fcVsock  `json:"vsock,omitempty"`
	Entropy    struct{}  `json:"entropy"`
}

type fcBoot struct {
	Kernel string `json:"kernel_image_path"`
	Args   string `json:"boot_args"`
}

type fcMachine struct {
	CPUs   int `json:"vcpu_count"`
	Memory int `json:"mem_size_mib"`
}

type fcNet struct {
	ID   string `json:"iface_id"`
	Host string `json:"host_dev_name"`
	MAC  string `json:"guest_mac"`
}

type fcVsock struct {
	CID  uint32 `json:"guest_cid"`
	Path string `json:"uds_path"`
}

// config returns the configuration of a machine whose NICs have the given TAP
// devices. Rate limiters are left off: the firewall's
// own limits are in its policy.
func (f *Firecracker) config(c *Config, taps []string, image string) *fcConfig {
	fc := &fcConfig{BootSource: fcBoot{image, c.Cmdline()}, Drives: []string{}, Machine: fcMachine{c.CPUs, c.MemoryMB}, Networks: []fcNet{}}
	for i, n := range c.NICs {
		fc.Networks = append(fc.Networks, fcNet{nicID(i, n), taps[i], n.MAC})
	}
	if c.Vsock.Path != "" {
		fc.Vsock = &fcVsock{guestCID, fileVsock} // in its working directory: a snapshot keeps the path
	}
	return fc
}

// nicID returns the name of a network interface in Firecracker's API.
func nicID(i int, n NIC) string {
	if n.Role == None {
		return "n" + strconv.Itoa(i)
	}
	return string(n.Role)
}

// args returns the command for a machine whose files lie in dir.
func (f *Firecracker) args(dir string) []string {
	a := []string{"--api-sock", filepath.Join(dir, fileAPI), "--log-path", filepath.Join(dir, fileLog), "--level", "Warn"}
	if f.From == nil {
		a = append(a, "--config-file", filepath.Join(dir, fileConfig))
	}
	if f.PCI && f.From == nil { // a snapshot says it itself
		a = append(a, "--enable-pci")
	}
	return a
}

// unsupported returns why a machine cannot be had from a hypervisor that is not QEMU.
func unsupported(name string, c *Config) error {
	switch {
	case !c.KVM:
		return fmt.Errorf("%s needs KVM", name)
	case c.Vsock.CID != 0:
		return fmt.Errorf("%s has its own vsock device, by Unix sockets (want --vsock with auto, none or a path, not kernel:CID)", name)
	}
	return nil
}

// Print implements Hypervisor.
func (f *Firecracker) Print(c Config) (string, error) {
	taps := tapNames(&c)
	dir, image := "DIR", c.Image
	command := append([]string{f.Path}, f.args(dir)...)
	if f.Jail != nil {
		dir, image = "/", "/"+fileImage
		command = f.Jail.command("ID", "DIR", f.Path, f.args(dir))
	}
	if f.From != nil {
		if f.Jail == nil {
			dir = f.From.Dir
		}
		b, err := json.MarshalIndent(f.loadRequest(&c, taps, filepath.Join(dir, fileState), filepath.Join(dir, fileMemory)), "", "  ")
		return commandLine(command) + "PUT /snapshot/load\n" + string(b) + "\n", err
	}
	b, err := f.config(&c, taps, image).encode()
	return commandLine(command) + string(b), err
}

// tapNames names the TAP devices as far as they are known before a start.
func tapNames(c *Config) []string {
	taps := make([]string, len(c.NICs))
	for i, n := range c.NICs {
		if taps[i] = n.TapName; taps[i] == "" {
			taps[i] = "TAP-" + string(n.Role) // made at each start
		}
	}
	return taps
}

func (c *fcConfig) encode() ([]byte, error) {
	b, err := json.MarshalIndent(c, "", "  ")
	return append(b, '\n'), err
}

// Start implements Hypervisor.
func (f *Firecracker) Start(c Config, onLine func(Line)) (_ *Machine, err error) {
	if err := unsupported("Firecracker", &c); err != nil {
		return nil, err
	}
	if err := f.tooOld(); err != nil {
		return nil, err
	}
	if f.From != nil {
		if err := errors.Join(f.SnapshotError(), f.From.Fits(f, &c)); err != nil {
			return nil, err
		}
	}
	c.sayQueues("machine", 1, "Firecracker gives its devices one")
	s, err := newSite(&c, f.Jail, f.Confine)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	image, err := filepath.Abs(c.Image)
	if err != nil {
		return nil, err
	}
	command := append([]string{f.Path}, f.args(s.dir)...)
	within := s.dir // as Firecracker sees it
	switch {
	case f.Jail != nil:
		within = "/"
		if err := s.jail(image); err != nil {
			return nil, err
		}
		image = "/" + fileImage
		command = f.Jail.command(s.id, s.base, f.Path, f.args(within))
	case f.Confine != nil && f.Confine.Spaces == nil:
		within, image = insideSite, insideImage
	}
	s.within = within
	var files []sandbox.File
	if f.From != nil {
		if files, err = f.place(s); err != nil {
			return nil, err
		}
	}
	b, err := f.config(&c, s.taps, image).encode()
	if err == nil {
		err = s.write(fileConfig, b)
	}
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Dir = s.dir
	end := syscall.SIGTERM
	switch {
	case f.Jail != nil:
		cmd = held(command)
	case f.Confine != nil:
		if cmd, err = f.Confine.beside(&c, s, f.Path, f.args(within), files...); err != nil {
			return nil, err
		}
		// The first process of a PID name space gets no signal that it does not
		// handle, and Firecracker handles none of these: it has nothing to finish.
		end = syscall.SIGKILL
	}
	m := &Machine{name: "firecracker", there: s.there, cmd: cmd, log: s.log, end: end,
		ask:    func() error { return pressCtrlAltDel(filepath.Join(s.dir, fileAPI)) },
		paused: func() bool { return apiPaused(filepath.Join(s.dir, fileAPI)) },
		save:   func(dir string) error { return s.save(dir, f.Confine) }}
	if m, err = launch(m, onLine, s.close); err != nil || f.From == nil {
		return m, err
	}
	if err = f.load(m, &c, s); err != nil {
		m.kill()
		if end := m.Wait(); end != nil {
			err = fmt.Errorf("%w (%w)", err, end)
		}
		return nil, err
	}
	return m, nil
}

// apiLimit is how long an answer of Firecracker's API may take.
const apiLimit = time.Second

// pressCtrlAltDel asks the guest to end, by Firecracker's API.
func pressCtrlAltDel(socket string) error {
	return apiPut(socket, "/actions", map[string]string{"action_type": "SendCtrlAltDel"})
}

// apiPut sends a request to the API behind a Unix socket.
func apiPut(socket, path string, body any) error {
	b, err := json.Marshal(body)
	if err != nil {
		return err
	}
	_, err = apiCall(socket, http.MethodPut, path, b)
	return err
}

// apiPaused reports whether Firecracker says that the machine is paused.
func apiPaused(socket string) bool {
	b, err := apiCall(socket, http.MethodGet, "/", nil)
	var i struct {
		State string `json:"state"`
	}
	return err == nil && json.Unmarshal(b, &i) == nil && i.State == "Paused"
}

// apiCall makes a request and returns the beginning of the answer's body.
func apiCall(socket, method, path string, body []byte) ([]byte, error) {
	return apiCallWithin(apiLimit, socket, method, path, body)
}

// apiCallWithin is apiCall with another limit.
func apiCallWithin(limit time.Duration, socket, method, path string, body []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, "http://localhost"+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	t := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return dialNoLink(ctx, socket)
	}}
	r, err := t.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	defer r.Body.Close()
	said, _ := io.ReadAll(io.LimitReader(r.Body, tailLen)) //nolint:errcheck // the status says enough
	if r.StatusCode/100 != 2 {
		return nil, errors.New(path + ": " + r.Status + ": " + strings.TrimSpace(string(said)))
	}
	return said, nil
}

// dialNoLink connects to a socket in the folder of a hypervisor, which may have been taken over:
// not to what a link there leads to, which may be another machine's, or a service's of the host.
func dialNoLink(ctx context.Context, path string) (net.Conn, error) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFSOCK {
		return nil, fmt.Errorf("%s is no socket", path)
	}
	var d net.Dialer
	return d.DialContext(ctx, "unix", "/proc/self/fd/"+strconv.Itoa(fd))
}
