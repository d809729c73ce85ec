package doctor

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// healthy returns a host on which nothing is wrong.
func healthy(t *testing.T) *Host {
	h := &Host{Root: t.TempDir(), Page: "127.0.0.1:9464", Tail: "/run/thurward/vsock_tail"}
	for path, text := range map[string]string{
		"/proc/cpuinfo": "processor\t: 0\nflags\t\t: fpu vmx sse2\n",
		"/proc/meminfo": "MemTotal: 8000000 kB\nMemAvailable:    4000000 kB\n",
		"/proc/sys/net/bridge/bridge-nf-call-iptables": "0\n",
		"/sys/class/net/br-lan/bridge/bridge_id":       "",
		"/sys/class/net/br-lan/brif/thw-lan/port_id":   "",
		"/sys/class/net/thw-lan/tun_flags":             "0x1002\n",
		"/dev/vhost-net":                               "",
		"/dev/vhost-vsock":                             "",
	} {
		set(t, h, path, text)
	}
	h.Open = func(string) error { return nil }
	h.Listen = func(string) error { return nil }
	h.Dial = func(string) error { return syscall.ECONNREFUSED }
	h.LookPath = func(p string) (string, error) { return "/usr/bin/" + p, nil }
	h.Hypervisor = func(name string) (string, error) { return name + " 9.9", nil }
	h.Parts = func(name string) string { return "/usr/lib/thurward/" + name }
	return h
}

func set(t *testing.T, h *Host, path, text string) {
	t.Helper()
	p := filepath.Join(h.Root, path)
	if err := errors.Join(os.MkdirAll(filepath.Dir(p), 0o755), os.WriteFile(p, []byte(text), 0o644)); err != nil {
		t.Fatal(err)
	}
}

func named(all []Finding, name string) (f Finding) {
	for _, f := range all {
		if f.Name == name {
			return f
		}
	}
	return f
}

// TestHealthy: where nothing is wrong nothing is to be done, and each finding has a name
// of its own.
func TestHealthy(t *testing.T) {
	all := Examine(healthy(t))
	if w := Worst(all); w != Info { // the TAP devices
		t.Errorf("worst is %s: %+v", w, all)
	}
	seen := map[string]bool{}
	for _, f := range all {
		if seen[f.Name] || f.Text == "" || f.Remedy != "" || f.Status != OK && f.Name != "taps" {
			t.Errorf("%+v", f)
		}
		seen[f.Name] = true
	}
	if len(all) < 15 {
		t.Errorf("%d findings", len(all))
	}
	if f := named(all, "bridges"); !strings.Contains(f.Text, "br-lan (thw-lan)") {
		t.Error(f)
	}
}

// TestFaults: each fault is found by its check, with a remedy, and no other check finds
// anything.
func TestFaults(t *testing.T) {
	denied := func(what string, err error) func(string) error {
		return func(path string) error {
			if strings.HasSuffix(path, what) {
				return &fs.PathError{Op: "open", Path: path, Err: err}
			}
			return nil
		}
	}
	missing := func(name, text string) func(*Host) {
		return func(h *Host) {
			was := h.Hypervisor
			h.Hypervisor = func(n string) (string, error) {
				if n == name {
					return "", errors.New(text)
				}
				return was(n)
			}
		}
	}
	for _, c := range []struct {
		name, want string
		status     Status
		fault      func(*Host)
		also       string // another check that the fault shows in
	}{
		{"kvm", "there is no /dev/kvm", Warning, func(h *Host) { h.Open = denied("kvm", syscall.ENOENT) }, "accelerator"},
		{"kvm", "permission denied", Warning, func(h *Host) { h.Open = denied("kvm", syscall.EACCES) }, "accelerator"},
		{"accelerator", "neither vmx nor svm", Info, func(h *Host) { set(t, h, "/proc/cpuinfo", "flags : fpu svmx\n") }, ""},
		{"accelerator", "in software", Warning, func(h *Host) {
			h.Probe = func() (bool, string, error) { return true, "a probe boot took 9 ms; emulates ring 0 in software", nil }
		}, ""},
		{"accelerator", "TCG: too slow", Warning, func(h *Host) { h.Probe = func() (bool, string, error) { return false, "too slow", nil } }, ""},
		{"accelerator", "does not boot", Error, func(h *Host) { h.Probe = func() (bool, string, error) { return false, "", errors.New("x") } }, ""},
		{"tun", "no /dev/net/tun", Warning, func(h *Host) { h.Open = denied("net/tun", syscall.ENOENT) }, ""},
		{"tun", "permission denied", Warning, func(h *Host) { h.Open = denied("net/tun", syscall.EACCES) }, ""},
		{"vhost-net", "no /dev/vhost-net", Info, func(h *Host) { os.Remove(h.Root + "/dev/vhost-net") }, ""},
		{"vhost-vsock", "no /dev/vhost-vsock", Info, func(h *Host) { os.Remove(h.Root + "/dev/vhost-vsock") }, ""},
		{"memory", "100 MB available", Warning, func(h *Host) { set(t, h, "/proc/meminfo", "MemAvailable: 102400 kB\n") }, ""},
		{"bridges", "there is no bridge", Info, func(h *Host) { os.RemoveAll(h.Root + "/sys/class/net/br-lan") }, ""},
		{"br_netfilter", "filters bridged packets (iptables, ip6tables)", Warning, func(h *Host) {
			set(t, h, "/proc/sys/net/bridge/bridge-nf-call-iptables", "1\n")
			set(t, h, "/proc/sys/net/bridge/bridge-nf-call-ip6tables", "1\n")
		}, ""},
		{"page", "in use", Info, func(h *Host) {
			h.Listen = func(string) error { return &os.SyscallError{Syscall: "bind", Err: syscall.EADDRINUSE} }
		}, ""},
		{"page", "cannot be used", Warning, func(h *Host) { h.Listen = func(string) error { return syscall.EADDRNOTAVAIL } }, ""},
		{"stream", "is served", Info, func(h *Host) { h.Dial = func(string) error { return nil } }, ""},
		{"cosign", "not installed", Info, func(h *Host) {
			h.LookPath = func(p string) (string, error) {
				if p == "cosign" {
					return "", fs.ErrNotExist
				}
				return p, nil
			}
		}, ""},
		{"parts", "not find firewall.elf", Warning, func(h *Host) {
			h.Parts = func(n string) string { return strings.TrimPrefix(n, "firewall.elf") }
		}, ""},
		{"parts", "no firewall-dot.elf", Info, func(h *Host) {
			h.Parts = func(n string) string { return strings.TrimPrefix(n, "firewall-dot.elf") }
		}, ""},
		{"qemu", "not installed", Info, missing("qemu", "qemu is not installed"), ""},
		{"qemu", "5.2 or newer", Warning, missing("qemu", "version 4.0; 5.2 or newer is needed"), ""},
	} {
		h := healthy(t)
		c.fault(h)
		for _, f := range Examine(h) {
			switch f.Name {
			case c.name:
				if f.Status != c.status || !strings.Contains(f.Text, c.want) || f.Remedy == "" && f.Name != "taps" {
					t.Errorf("%s: %+v, want %s, %q and a remedy", c.name, f, c.status, c.want)
				}
			case c.also, "taps":
			default:
				if f.Status != OK {
					t.Errorf("with %s (%s): %+v", c.name, c.want, f)
				}
			}
		}
	}
}

// TestNoHypervisor: without any of them no firewall can run.
func TestNoHypervisor(t *testing.T) {
	h := healthy(t)
	h.Hypervisor = func(n string) (string, error) { return "", fmt.Errorf("%s is not installed", n) }
	all := Examine(h)
	if Worst(all) != Error || named(all, "qemu").Status != Error || named(all, "firecracker").Status != Info {
		t.Errorf("%+v", all)
	}
}

// TestOddHosts: files of the kernel's that are missing, of another form, or long, and
// names without end, neither stop a check nor make it print without bound.
func TestOddHosts(t *testing.T) {
	h := healthy(t)
	h.Root = t.TempDir() // nothing there
	for _, f := range Examine(h) {
		if f.Status == Error {
			t.Errorf("%+v", f)
		}
	}
	for _, text := range []string{"", ":", "flags", "MemAvailable:", "MemAvailable: x kB", "MemAvailable: 99999999999999999999999 kB", strings.Repeat("a\n", 3<<20)} {
		set(t, h, "/proc/cpuinfo", text)
		set(t, h, "/proc/meminfo", text)
		if f := named(Examine(h), "memory"); f.Status != Info {
			t.Errorf("%.40q: %+v", text, f)
		}
	}
	for i := range 500 {
		set(t, h, fmt.Sprintf("/sys/class/net/br-%d-\x1b[2J/bridge/x", i), "")
	}
	f := named(Examine(h), "bridges")
	if len(f.Text) > maxText+3 {
		t.Errorf("%d bytes", len(f.Text))
	}
	if b, err := json.Marshal(f); err != nil || strings.Contains(string(b), "\x1b") {
		t.Errorf("%s, %v", b, err)
	}
}

// TestThisHost: the checks work on the host of the test.
func TestThisHost(t *testing.T) {
	h := This()
	h.Parts = func(string) string { return "" }
	h.Tail = filepath.Join(t.TempDir(), "none")
	all := Examine(h)
	if f := named(all, "stream"); f.Status != OK {
		t.Errorf("%+v", f)
	}
	if f := named(all, "memory"); f.Status == Info {
		t.Errorf("%+v", f)
	}
	for _, f := range all {
		t.Log(f)
	}
}
