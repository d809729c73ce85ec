package vmm

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/thurward/thurward/internal/host/sandbox/captured"
)

// TestMain lets the test's own program stand in for the hypervisors that it starts:
// under their names it speaks their command lines, configuration and API.
func TestMain(m *testing.M) {
	switch filepath.Base(os.Args[0]) {
	case "firecracker":
		standFirecracker(os.Args[1:])
	case "jailer":
		standJailer(os.Args[1:])
	case "cloud-hypervisor":
		standCloudHypervisor(os.Args[1:])
	case program:
		if slices.Contains(os.Args, "--version") {
			fmt.Println("QEMU emulator version 7.2.0")
			os.Exit(0)
		}
		guest("", nil)
	}
	os.Exit(m.Run())
}

// standInVar says what a stand-in's guest does.
const standInVar = "THURWARD_STANDIN"

// standIn puts the stand-ins on the PATH.
func standIn(t *testing.T, does string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, name := range []string{"firecracker", "jailer", "cloud-hypervisor", program} {
		if err := os.Symlink(self, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir)
	t.Setenv(standInVar, does)
}

// standCaptured begins what a hypervisor does that was taken over: it attacks the target that
// follows, which is JSON.
const standCaptured = "attacks "

func die(format string, a ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", a...)
	os.Exit(152) // Firecracker's status for a bad configuration
}

// flags reads options with values, and those without.
func flags(args []string, alone ...string) map[string][]string {
	f := map[string][]string{}
	last := ""
	for _, a := range args {
		if strings.HasPrefix(a, "--") {
			last = a
			f[a] = nil
			for _, x := range alone {
				if a == x {
					last = ""
				}
			}
			continue
		}
		if last == "" {
			die("stand-in: argument %q", a)
		}
		f[last] = append(f[last], a)
	}
	return f
}

func one(f map[string][]string, name string) string {
	if len(f[name]) != 1 {
		die("stand-in: %s has %d values", name, len(f[name]))
	}
	return f[name][0]
}

func standFirecracker(args []string) {
	f := flags(args, "--version", "--enable-pci")
	if _, ok := f["--version"]; ok {
		fmt.Println("Firecracker v1.16.1\n\n2026 [anonymous-instance:main] exit")
		os.Exit(0)
	}
	if _, ok := f["--config-file"]; !ok {
		standRestored(f)
	}
	r, err := os.Open(one(f, "--config-file"))
	if err != nil {
		die("%v", err)
	}
	// Firecracker refuses fields that it does not know, and wants these.
	var c struct {
		Boot struct {
			Kernel string `json:"kernel_image_path"`
			Args   string `json:"boot_args"`
		} `json:"boot-source"`
		Drives  *[]any `json:"drives"`
		Machine struct {
			CPUs   int `json:"vcpu_count"`
			Memory int `json:"mem_size_mib"`
		} `json:"machine-config"`
		Nets []struct {
			ID  string `json:"iface_id"`
			Tap string `json:"host_dev_name"`
			MAC string `json:"guest_mac"`
		} `json:"network-interfaces"`
		Vsock *struct {
			CID  uint32 `json:"guest_cid"`
			Path string `json:"uds_path"`
		} `json:"vsock"`
		Entropy *struct{} `json:"entropy"`
	}
	d := json.NewDecoder(r)
	d.DisallowUnknownFields()
	if err := d.Decode(&c); err != nil || c.Drives == nil || c.Machine.CPUs != 1 || c.Machine.Memory < 1 || len(c.Nets) != 2 || c.Entropy == nil {
		die("Configuration for VMM from one single json failed: %v: %+v", err, c)
	}
	root := ""
	if jail := os.Getenv("STANDIN_ROOT"); jail != "" {
		root = jail
	}
	if _, err := os.Stat(root + c.Boot.Kernel); err != nil {
		die("Cannot open the kernel file: %v", err)
	}
	if l := one(f, "--log-path"); os.WriteFile(root+l, []byte("a warning\n"), 0o600) != nil {
		die("no log")
	}
	fmt.Printf("args %s\npci %v\n", c.Boot.Args, f["--enable-pci"] != nil || args[len(args)-1] == "--enable-pci")
	for _, n := range c.Nets {
		fmt.Println("net", n.ID, n.Tap, n.MAC)
	}
	api := make(chan bool, 1)
	l, err := net.Listen("unix", root+one(f, "--api-sock"))
	if err != nil {
		die("%v", err)
	}
	go http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { //nolint:errcheck // until the end
		var a struct {
			Type string `json:"action_type"`
		}
		if b := standSave(root, r); b {
			w.WriteHeader(http.StatusNoContent)
			return
		}
		if r.Method != "PUT" || r.URL.Path != "/actions" || json.NewDecoder(r.Body).Decode(&a) != nil || a.Type != "SendCtrlAltDel" {
			w.WriteHeader(http.StatusBadRequest)
			io.WriteString(w, `{"fault_message":"no"}`) //nolint:errcheck // the status says it
			return
		}
		w.WriteHeader(http.StatusNoContent)
		api <- true
	}))
	vsock := ""
	if c.Vsock != nil {
		vsock = filepath.Join(root, c.Vsock.Path) // in the jail the working directory is its root
	}
	guest(vsock, api)
}

// standSave handles the requests by which a machine is saved, and no others.
func standSave(root string, r *http.Request) bool {
	var b struct {
		State string `json:"state"`
		Type  string `json:"snapshot_type"`
		Path  string `json:"snapshot_path"`
		Mem   string `json:"mem_file_path"`
	}
	switch {
	case r.Method == "PATCH" && r.URL.Path == "/vm":
		return json.NewDecoder(r.Body).Decode(&b) == nil && b.State == "Paused"
	case r.Method == "PUT" && r.URL.Path == "/snapshot/create":
		return json.NewDecoder(r.Body).Decode(&b) == nil && b.Type == "Full" && os.Getenv(standInVar) != "does not save" &&
			os.WriteFile(filepath.Join(root, b.Path), []byte("state"), 0o644) == nil &&
			os.WriteFile(filepath.Join(root, b.Mem), nil, 0o644) == nil && os.Truncate(filepath.Join(root, b.Mem), 64<<20) == nil
	}
	return false
}

// standRestored waits for a snapshot, which it must be given as Firecracker wants it.
func standRestored(f map[string][]string) {
	root := os.Getenv("STANDIN_ROOT")
	l, err := net.Listen("unix", filepath.Join(root, one(f, "--api-sock")))
	if err != nil {
		die("%v", err)
	}
	api, begin := make(chan bool, 1), make(chan bool)
	go http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { //nolint:errcheck // until the end
		if r.URL.Path == "/actions" {
			w.WriteHeader(http.StatusNoContent)
			api <- true
			return
		}
		var b struct {
			State string `json:"snapshot_path"`
			Mem   struct {
				Type string `json:"backend_type"`
				Path string `json:"backend_path"`
			} `json:"mem_backend"`
			Taps []struct {
				ID  string `json:"iface_id"`
				Tap string `json:"host_dev_name"`
			} `json:"network_overrides"`
			Clock  bool `json:"clock_realtime"`
			Resume bool `json:"resume_vm"`
		}
		d := json.NewDecoder(r.Body)
		d.DisallowUnknownFields()
		err := d.Decode(&b)
		for _, p := range []string{b.State, b.Mem.Path} {
			if _, e := os.Stat(filepath.Join(root, p)); err == nil {
				err = e
			}
		}
		if err != nil || r.Method != "PUT" || r.URL.Path != "/snapshot/load" || b.Mem.Type != "File" || len(b.Taps) != 2 || !b.Resume ||
			os.Getenv(standInVar) == "does not load" {
			w.WriteHeader(http.StatusBadRequest)
			fmt.Fprintf(w, `{"fault_message":"no: %v"}`, err)
			return
		}
		for _, t := range b.Taps {
			fmt.Println("net", t.ID, t.Tap)
		}
		fmt.Println("clock", b.Clock)
		w.WriteHeader(http.StatusNoContent)
		close(begin)
	}))
	<-begin
	guest(fileVsock, api)
}

// guest does what was asked for, and ends as Firecracker does: with 0, whatever it
// was.
func guest(vsock string, api chan bool) {
	ready := func() { fmt.Println("thurward: ready version=x boot_us=5") }
	if to, ok := strings.CutPrefix(os.Getenv(standInVar), standCaptured); ok {
		var x captured.Target
		if err := json.Unmarshal([]byte(to), &x); err != nil {
			die("%v", err)
		}
		captured.Try(os.Stdout, x)
		os.Exit(0)
	}
	switch does := os.Getenv(standInVar); does {
	case "stops", "does not save", "does not load":
		ready()
		<-api
		fmt.Println("thurward: stopped: Ctrl-Alt-Del")
	case "is deaf":
		ready()
		<-api
		time.Sleep(time.Hour)
	case "resets":
		ready()
	case "refuses":
		fmt.Println("thurward: refusing to start: no policy")
	case "crashes":
		ready()
		fmt.Println("\nthurward: crash: page fault\nrip=0x5")
	case "says nothing":
	case "is killed":
		ready()
		syscall.Kill(os.Getpid(), syscall.SIGKILL) //nolint:errcheck // refused if it is confined
		time.Sleep(time.Hour)
	case "tells":
		ready()
		c, err := net.Dial("unix", vsock+"_9000")
		if err != nil {
			die("%v", err)
		}
		io.WriteString(c, "HELLO") //nolint:errcheck // the test fails then
		b := make([]byte, 2)
		n, _ := io.ReadFull(c, b) //nolint:errcheck // likewise
		fmt.Printf("answer %q\nthurward: stopped: told\n", b[:n])
	case "hangs", "beats":
		ready()
		c, err := net.Dial("unix", vsock+"_9000")
		if err != nil {
			die("%v", err)
		}
		for i := 0; i < 5 || does == "beats"; i++ {
			io.WriteString(c, "# BEAT\n") //nolint:errcheck // the test fails then
			time.Sleep(50 * time.Millisecond)
		}
		time.Sleep(time.Hour)
	default:
		die("stand-in: %q", does)
	}
	os.Exit(0)
}

// standJailer makes of the jail a folder, and runs the program in it.
func standJailer(args []string) {
	i := 0
	for i < len(args) && args[i] != "--" {
		i++
	}
	f := flags(args[:i])
	uid, err := strconv.Atoi(one(f, "--uid"))
	if err != nil || one(f, "--gid") == "" || i == len(args) {
		die("jailer: %v", args)
	}
	root := filepath.Join(one(f, "--chroot-base-dir"), filepath.Base(one(f, "--exec-file")), one(f, "--id"), "root")
	files := []string{root, root + "/" + fileImage, root + "/" + fileConfig, root + "/" + fileLog}
	if !slices.Contains(args, "--config-file") {
		files = []string{root, root + "/" + fileState, root + "/" + fileMemory, root + "/" + fileLog}
	}
	for _, name := range files {
		st, err := os.Stat(name)
		if err != nil || st.Sys().(*syscall.Stat_t).Uid != uint32(uid) {
			die("jailer: %s: %v", name, err)
		}
	}
	os.Setenv("STANDIN_ROOT", root) //nolint:errcheck // it has no NUL
	b := args[i+1:]
	for k := range b {
		if k > 0 && b[k-1] == "--config-file" {
			b[k] = root + b[k]
		}
	}
	standFirecracker(b)
}

func standCloudHypervisor(args []string) {
	f := flags(args, "--version")
	if _, ok := f["--version"]; ok {
		fmt.Println("cloud-hypervisor v48.0.0")
		os.Exit(0)
	}
	if one(f, "--cpus") != "boot=1" || one(f, "--serial") != "tty" || one(f, "--console") != "off" || one(f, "--memory") != "size=64M" || len(f["--net"]) != 2 {
		die("cloud-hypervisor: %v", args)
	}
	if _, err := os.Stat(one(f, "--kernel")); err != nil {
		die("%v", err)
	}
	fmt.Println("args", one(f, "--cmdline"))
	for _, n := range f["--net"] {
		fmt.Println("net", n)
	}
	_, vsock, _ := strings.Cut(strings.Join(f["--vsock"], ""), "socket=")
	guest(vsock, nil)
}

// serveState stands in for Firecracker's API: it says in what state the machine is.
func serveState(t *testing.T, state string) (socket string) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "api")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet && r.URL.Path == "/" {
			json.NewEncoder(w).Encode(map[string]string{"id": "anonymous-instance", "state": state, "app_name": "Firecracker"}) //nolint:errcheck // the test fails then
		}
	})}
	go srv.Serve(l) //nolint:errcheck // until the end
	t.Cleanup(func() { srv.Close() })
	return socket
}
