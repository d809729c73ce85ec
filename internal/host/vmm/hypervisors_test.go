package vmm

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// A watched is a machine of a stand-in, with its console.
type watched struct {
	mu    sync.Mutex
	lines []string
	drops int // TAP devices given up
}

func (w *watched) line(l Line) { w.mu.Lock(); w.lines = append(w.lines, l.Text); w.mu.Unlock() }

func (w *watched) console() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return strings.Join(w.lines, "\n")
}

// config is a machine whose TAP devices have names only.
func (w *watched) config(t *testing.T) Config {
	image := filepath.Join(t.TempDir(), "an image")
	if err := os.WriteFile(image, []byte("image"), 0o644); err != nil {
		t.Fatal(err)
	}
	tap := func(name string) TapMaker {
		return func(int) (string, func(), error) {
			return name, func() { w.mu.Lock(); w.drops++; w.mu.Unlock() }, nil
		}
	}
	return Config{Image: image, KVM: true, MemoryMB: 64, CPUs: 1, Log: t.Logf,
		NICs: []NIC{{Role: LAN, MAC: DefaultMAC(LAN), Tap: tap("t0")}, {Role: WAN, MAC: DefaultMAC(WAN), Tap: tap("t1")}}}
}

// leftovers returns what is left of machines on the host.
func leftovers(t *testing.T) []string {
	t.Helper()
	m, err := filepath.Glob(filepath.Join(os.TempDir(), "thurward-*"))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func hypervisors(t *testing.T) map[string]Hypervisor {
	t.Helper()
	f, err := FindFirecracker()
	if err != nil {
		t.Fatal(err)
	}
	h, err := FindCloudHypervisor()
	if err != nil {
		t.Fatal(err)
	}
	if f.String() != "Firecracker 1.16.1" || h.String() != "cloud-hypervisor 48.0.0" {
		t.Errorf("found %v and %v", f, h)
	}
	all := map[string]Hypervisor{"firecracker": f, "firecracker-pci": &Firecracker{Path: f.Path, Version: f.Version, PCI: true, Confine: f.Confine}, "cloud-hypervisor": h}
	if os.Geteuid() == 0 {
		j, err := FindJail("nobody")
		if err != nil {
			t.Fatal(err)
		}
		all["jail"] = &Firecracker{Path: f.Path, Version: f.Version, Jail: j}
	}
	return all
}

// TestEnds: what the end of a machine was is told from its console, since the exit
// status says nothing, and nothing of it is left on the host.
func TestEnds(t *testing.T) {
	for does, want := range map[string]string{
		"resets":       "ended without saying why",
		"refuses":      "refuses to start: no policy",
		"crashes":      "the firewall crashed: page fault",
		"says nothing": "ended before its rules were live",
		"is killed":    "signal: killed",
	} {
		t.Run(does, func(t *testing.T) {
			t.Setenv("TMPDIR", t.TempDir())
			standIn(t, does)
			for name, h := range hypervisors(t) {
				var w watched
				line := func(l Line) {
					w.line(l)
					if does == "is killed" && l.Kind == Ready { // confined it cannot do that itself
						killChildren()
					}
				}
				err := Run(t.Context(), h, w.config(t), RunOptions{Restart: Never, OnLine: line})
				want := want
				if name == "jail" && does == "is killed" {
					want = "exit status 137" // of the shell that holds it
				}
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("%s: %v, want %q; console:\n%s", name, err, want, w.console())
				}
				var refused *RefusedError
				if errors.As(err, &refused) != (does == "refuses") {
					t.Errorf("%s: %T", name, err)
				}
				if w.drops != 2 || len(leftovers(t)) != 0 {
					t.Errorf("%s: %d TAP devices given up, left %v", name, w.drops, leftovers(t))
				}
			}
		})
	}
}

// killChildren kills what this process has started, but for jails.
func killChildren() {
	lists, _ := filepath.Glob("/proc/self/task/*/children")
	for _, l := range lists {
		b, _ := os.ReadFile(l)
		for _, pid := range strings.Fields(string(b)) {
			if name, _ := os.ReadFile("/proc/" + pid + "/comm"); string(name) == "sh\n" {
				continue
			}
			if n, err := strconv.Atoi(pid); err == nil {
				syscall.Kill(n, syscall.SIGKILL) //nolint:errcheck // the test fails then
			}
		}
	}
}

// TestHeld: what is held ends with its holder, and gets its SIGTERM.
func TestHeld(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root may make a PID namespace")
	}
	for _, sig := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM} {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		c := held([]string{"/bin/sh", "-c", `trap "echo ended; exit 7" TERM; echo began; while :; do sleep 0.05; done`})
		c.Stdout = w
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		w.Close()
		r.SetReadDeadline(time.Now().Add(20 * time.Second)) //nolint:errcheck // a pipe takes one
		b := make([]byte, 6)
		if _, err := io.ReadFull(r, b); err != nil || string(b) != "began\n" {
			t.Fatalf("%q, %v", b, err)
		}
		c.Process.Signal(sig)      //nolint:errcheck // the test waits for ever then
		rest, err := io.ReadAll(r) // until every process has ended that has the pipe
		if err != nil {
			c.Process.Kill() //nolint:errcheck // it may have ended
			t.Fatal(err)
		}
		err = c.Wait()
		if sig == syscall.SIGTERM && (string(rest) != "ended\n" || c.ProcessState.ExitCode() != 7) {
			t.Errorf("at SIGTERM: %q, %v", rest, err)
		}
		if sig == syscall.SIGKILL && (len(rest) != 0 || !strings.Contains(err.Error(), "killed")) {
			t.Errorf("at SIGKILL: %q, %v", rest, err)
		}
	}
}

// TestRestartsSilentReset: a reset without a word is a crash, which a restart may
// cure.
func TestRestartsSilentReset(t *testing.T) {
	standIn(t, "resets")
	h := hypervisors(t)["firecracker"]
	var w watched
	ctx, cancel := context.WithCancelCause(t.Context())
	enough := errors.New("seen enough")
	starts := 0
	err := Run(ctx, h, w.config(t), RunOptions{Restart: OnCrash, OnLine: func(l Line) {
		if l.Kind == Ready {
			if starts++; starts == 2 {
				cancel(enough)
			}
		}
	}})
	if !errors.Is(err, enough) {
		t.Error(err)
	}
}

// TestStopsInOrder: at the end of the launcher's time Firecracker's guest is asked
// to end, and ended where it does not.
func TestStopsInOrder(t *testing.T) {
	for does, said := range map[string]bool{"stops": true, "is deaf": false} {
		standIn(t, does)
		for name, h := range hypervisors(t) {
			if name == "cloud-hypervisor" {
				continue // it has no keyboard; its process is ended
			}
			var w watched
			ctx, cancel := context.WithCancelCause(t.Context())
			over := errors.New("over")
			err := Run(ctx, h, w.config(t), RunOptions{Restart: OnCrash, OnLine: func(l Line) {
				w.line(l)
				if l.Kind == Ready {
					time.AfterFunc(50*time.Millisecond, func() { cancel(over) }) // the API socket is there by then
				}
			}})
			if !errors.Is(err, over) || strings.Contains(w.console(), "thurward: stopped: ") != said {
				t.Errorf("%s %s: %v; console:\n%s", name, does, err, w.console())
			}
		}
	}
}

// TestWhatHypervisorsGet: the arguments and the configuration arrive.
func TestWhatHypervisorsGet(t *testing.T) {
	standIn(t, "refuses")
	for name, h := range hypervisors(t) {
		var w watched
		Run(t.Context(), h, w.config(t), RunOptions{Restart: Never, OnLine: w.line}) //nolint:errcheck // it refuses
		want := []string{"args thurward.lan=52:54:00:74:68:01 thurward.wan=52:54:00:74:68:02"}
		switch name {
		case "cloud-hypervisor":
			want = append(want, "net tap=t0,mac=52:54:00:74:68:01,", "net tap=t1,mac=52:54:00:74:68:02,")
		default:
			want = append(want, "net lan t0 52:54:00:74:68:01", "net wan t1 52:54:00:74:68:02", "pci "+map[bool]string{false: "false", true: "true"}[name == "firecracker-pci"])
		}
		for _, s := range want {
			if !strings.Contains(w.console(), s) {
				t.Errorf("%s: no %q on the console:\n%s", name, s, w.console())
			}
		}
	}
}

// TestStreamIsPassedOn: the stream of a guest, of a jail too, reaches a receiver
// whose socket only this user may use, and its answers come back.
func TestStreamIsPassedOn(t *testing.T) {
	standIn(t, "tells")
	for name, h := range hypervisors(t) {
		var w watched
		c := w.config(t)
		c.Vsock.Path = filepath.Join(t.TempDir(), "v")
		l, err := net.Listen("unix", c.Vsock.Path+"_9000")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		if err := os.Chmod(c.Vsock.Path+"_9000", 0o600); err != nil {
			t.Fatal(err)
		}
		c.Name = "ci-17"
		got := make(chan string, 1)
		go func() {
			b := make([]byte, 5)
			if r, err := l.Accept(); err == nil && strings.HasPrefix(r.RemoteAddr().String(), "@thurward=ci-17/") {
				io.ReadFull(r, b)       //nolint:errcheck // compared below
				io.WriteString(r, "OK") //nolint:errcheck // compared below
			}
			got <- string(b)
		}()
		if err := Run(t.Context(), h, c, RunOptions{Restart: Never, OnLine: w.line}); err != nil {
			t.Errorf("%s: %v; console:\n%s", name, err, w.console())
		}
		l.Close() // should nobody have connected
		if g := <-got; g != "HELLO" || !strings.Contains(w.console(), `answer "OK"`) {
			t.Errorf("%s: the receiver got %q; console:\n%s", name, g, w.console())
		}
	}
}

// TestNobodyReceives: without a receiver the guest's connection just ends.
func TestNobodyReceives(t *testing.T) {
	standIn(t, "tells")
	h := hypervisors(t)["firecracker"]
	var w watched
	c := w.config(t)
	c.Vsock.Path = filepath.Join(t.TempDir(), "v")
	if err := Run(t.Context(), h, c, RunOptions{Restart: Never, OnLine: w.line}); err != nil || !strings.Contains(w.console(), `answer ""`) {
		t.Errorf("%v; console:\n%s", err, w.console())
	}
}

// TestOtherHypervisorsRefuse: what only QEMU has is refused with a reason.
func TestOtherHypervisorsRefuse(t *testing.T) {
	standIn(t, "refuses")
	for name, h := range hypervisors(t) {
		var w watched
		c := w.config(t)
		c.KVM = false
		if _, err := h.Start(c, w.line); err == nil || !strings.Contains(err.Error(), "needs KVM") {
			t.Errorf("%s without KVM: %v", name, err)
		}
		c.KVM, c.Vsock.CID = true, 5
		if _, err := h.Start(c, w.line); err == nil || !strings.Contains(err.Error(), "not kernel:CID") {
			t.Errorf("%s with the kernel's vsock: %v", name, err)
		}
	}
	for _, k := range []Spec{{Kind: User}, {Kind: Unix, Arg: "/x"}, {Kind: VhostUser, Arg: "/x"}} {
		if _, err := NewTap(k, Network{}); err == nil || !strings.Contains(err.Error(), "only QEMU has it") {
			t.Errorf("%v: %v", k, err)
		}
	}
	for _, as := range []string{"root", "0:0", "5:0", "no such user"} {
		if _, err := FindJail(as); err == nil {
			t.Errorf("a jail of %q", as)
		}
	}
	t.Setenv("PATH", t.TempDir())
	if _, err := FindFirecracker(); err == nil || !strings.Contains(err.Error(), "firecracker is not installed") {
		t.Error(err)
	}
	if _, err := FindCloudHypervisor(); err == nil || !strings.Contains(err.Error(), "cloud-hypervisor is not installed") {
		t.Error(err)
	}
}

// TestOldFirecracker: versions that cannot be used are refused with the one to take.
func TestOldFirecracker(t *testing.T) {
	for _, c := range []struct {
		version string
		pci     bool
		want    string
	}{{"1.8.0", false, "1.9 or newer"}, {"0.25.2", false, "1.9 or newer"}, {"1.9.0", false, ""}, {"1.12.1", true, "1.13 or newer"}, {"1.13.0", true, ""},
		{"1.17.0-dev", true, ""}, {"2.0.0", true, ""}, {"unknown", false, "cannot tell its version"}} {
		err := (&Firecracker{Path: "fc", Version: c.version, PCI: c.pci}).tooOld()
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s, PCI %v: %v", c.version, c.pci, err)
		}
	}
}

// TestPrint: what would be run can be read, and run by hand.
func TestPrint(t *testing.T) {
	standIn(t, "refuses")
	all := hypervisors(t)
	all["qemu"] = &QEMU{Path: "qemu-system-x86_64", Version: Version{7, 2}}
	for name, want := range map[string][]string{
		"firecracker":      {`"host_dev_name": "TAP-lan"`, `"uds_path": "v.sock"`, `"boot_args": "thurward.lan=`, "--config-file DIR/config.json"},
		"firecracker-pci":  {"--enable-pci"},
		"jail":             {"--uid 65534", `"kernel_image_path": "/thurward.img"`, "--config-file /config.json"},
		"cloud-hypervisor": {"tap=mine,mac=52:54:00:74:68:02", "--vsock cid=3,socket=DIR/v.sock", "'thurward.lan="},
		"qemu":             {"-M microvm", "-append thurward.lan="},
	} {
		h := all[name]
		if h == nil {
			continue // no jail without root
		}
		var w watched
		c := w.config(t)
		c.Vsock.Path = "/run/v"
		c.NICs[1].TapName = "mine"
		if name == "qemu" {
			c.NICs, c.Vsock.Path = []NIC{{Role: LAN, MAC: DefaultMAC(LAN), Backend: Unplugged}}, ""
		}
		s, err := h.Print(c)
		if err != nil {
			t.Error(err)
		}
		for _, x := range want {
			if !strings.Contains(s, x) {
				t.Errorf("%s: no %q in\n%s", name, x, s)
			}
		}
	}
}

// TestAPIPut: an answer that is none, and a refusal, are errors.
func TestAPIPut(t *testing.T) {
	if err := apiPut(filepath.Join(t.TempDir(), "none"), "/actions", nil); err == nil {
		t.Error("nobody answered")
	}
	for answer, want := range map[string]string{
		"HTTP/1.1 204 No Content\r\n\r\n":                             "",
		"HTTP/1.1 400 Bad Request\r\nContent-Length: 6\r\n\r\nno way": "400 Bad Request: no way",
		"what?\r\n": "malformed",
	} {
		path := filepath.Join(t.TempDir(), "s")
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			if c, err := l.Accept(); err == nil {
				c.Read(make([]byte, 4096)) //nolint:errcheck // the request
				io.WriteString(c, answer)  //nolint:errcheck // compared below
				c.Close()
			}
		}()
		err = apiPut(path, "/actions", map[string]string{"action_type": "SendCtrlAltDel"})
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: %v", answer, err)
		}
		l.Close()
	}
}
