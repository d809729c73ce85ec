package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/thurward/thurward/internal/host/vmm"
)

// TestConfined: the image boots, forwards and tells on hypervisors that have no rights, as
// the kernel says of them.
func TestConfined(t *testing.T) {
	eachAlone(t, func(t *testing.T, kvm bool) {
		q, err := vmm.FindQEMU()
		if err != nil {
			t.Skip(err)
		}
		confinedOn(t, q, q.Confine, kvm, true)
	})
	onOthers(t, func(t *testing.T, h vmm.Hypervisor) {
		switch h := h.(type) {
		case *vmm.Firecracker:
			if h.Jail != nil {
				t.Skip("the jailer has its own way")
			}
			confinedOn(t, h, h.Confine, true, false)
		case *vmm.CloudHypervisor:
			confinedOn(t, h, h.Confine, true, false)
		}
	})
}

// confinedOn looks at a hypervisor that runs the image, and at what it carries.
func confinedOn(t *testing.T, h vmm.Hypervisor, c *vmm.Confinement, kvm, ownNet bool) {
	if c.Spaces != nil {
		t.Skip(c.Spaces)
	}
	l, r := watchedOn(t, h, kvm, nil)
	kids := children(os.Getpid())
	if len(kids) != 1 {
		t.Fatalf("children %v, want %v alone", kids, h)
	}
	proc := fmt.Sprintf("/proc/%d/", kids[0])
	file := func(name string) string {
		b, err := os.ReadFile(proc + name)
		if err != nil {
			t.Error(err)
		}
		return string(b)
	}
	status, limits := file("status"), file("limits")
	for _, want := range []string{
		fmt.Sprintf(`Uid:\s%[1]d\s%[1]d\s%[1]d\s%[1]d`, c.User.UID), fmt.Sprintf(`Gid:\s%[1]d\s%[1]d\s%[1]d\s%[1]d`, c.User.GID),
		`Cap(Eff|Prm|Inh|Amb):\s0{16}`, `CapBnd:\s0{16}`, `NoNewPrivs:\s1`, `Seccomp:\s2`, `NSpid:\s\d+\s1`,
	} {
		if !regexp.MustCompile(want).MatchString(status) {
			t.Errorf("no %s in\n%s", want, status)
		}
	}
	// This package's filter, and the hypervisor's own of at least one thread.
	own := false
	for _, s := range glob(t, proc+"task/*/status") {
		b, _ := os.ReadFile(s) // a thread may end
		own = own || regexp.MustCompile(`Seccomp_filters:\s[2-9]`).Match(b)
	}
	if !own {
		t.Error("it has no filter of its own")
	}
	if os.Geteuid() == 0 && c.User.UID == 0 {
		t.Error("it is root")
	}
	for _, want := range []string{`core file size\s+1\s+1`, `open files\s+256\s+256`, `locked memory\s+0\s+0`} {
		if !regexp.MustCompile(want).MatchString(limits) {
			t.Errorf("no %s in\n%s", want, limits)
		}
	}
	for _, ns := range []string{"mnt", "pid", "ipc", "uts", "net"} {
		ours, _ := os.Readlink("/proc/self/ns/" + ns)
		theirs, err := os.Readlink(proc + "ns/" + ns)
		if err == nil && (ours != theirs) != (ns != "net" || ownNet) {
			t.Errorf("%s: %s, and ours is %s", ns, theirs, ours)
		}
	}
	for m := range strings.Lines(file("mountinfo")) {
		f := strings.Fields(m)
		writable := strings.HasPrefix(f[5], "rw")
		if at := f[4]; writable && at != "/run" && !strings.HasPrefix(at, "/dev/") || at == "/proc" || at == "/home" || at == "/etc" {
			t.Errorf("mounted: %s", m)
		}
	}
	for _, fd := range glob(t, proc+"fd/*") {
		switch to, err := os.Readlink(fd); {
		case err != nil, strings.HasPrefix(to, "socket:"), strings.HasPrefix(to, "pipe:"), strings.HasPrefix(to, "anon_inode:"),
			strings.HasPrefix(to, "/memfd:"), strings.HasPrefix(to, "/dev/"), strings.HasPrefix(to, "/run/"), to == "/thurward.img":
		default:
			t.Errorf("%s is %s", fd, to)
		}
	}
	traffic(t, l)
	r.awaitEvents(1, map[string]any{"event.action": "drop", "destination.port": 25.0})
}

func glob(t *testing.T, pattern string) []string {
	t.Helper()
	found, err := filepath.Glob(pattern)
	if err != nil || len(found) == 0 {
		t.Errorf("%s: %v", pattern, err)
	}
	return found
}
