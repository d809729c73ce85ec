package e2e

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"

	"github.com/thurward/thurward/internal/host/ingest"
	"github.com/thurward/thurward/internal/host/vmm"
)

// inNamespace runs f on a thread that is in a network namespace, and goes with it.
func inNamespace(ns string, f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlock: the thread must not be reused
		fd, err := os.Open("/run/netns/" + ns)
		if err == nil {
			defer fd.Close()
			if err = unix.Setns(int(fd.Fd()), unix.CLONE_NEWNET); err == nil {
				err = f()
			}
		}
		done <- err
	}()
	return <-done
}

// A farm is two sandboxes of examples/sandbox, on a host of their own: a namespace that is
// also all of the internet that they have.
type farm struct {
	t      *testing.T
	host   string // namespace
	prefix string
	env    []string
	listen net.Listener // TLS at 198.51.100.80:443, for any name

	mu    sync.Mutex
	said  map[string][]string // events, by the name of the sandbox
	asked map[string]int      // names, at the upstream
}

// script runs sandboxes.sh on the farm's host.
func (f *farm) script(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	c := exec.CommandContext(ctx, "nsenter", append([]string{"--net=/run/netns/" + f.host, "../../examples/sandbox/sandboxes.sh"}, args...)...)
	c.Env = append(os.Environ(), f.env...)
	out, err := c.CombinedOutput()
	return string(out), err
}

// newFarm makes a farm; id tells it from others of this process.
func newFarm(t *testing.T, id string) *farm {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root may make network namespaces")
	}
	for _, p := range []string{"ip", "nft", "nsenter", "curl", "dig"} {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("%s is not installed", p)
		}
	}
	bin, err := launcher()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := parts(); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	img := filepath.Join(dir, "sandbox.img")
	build := exec.Command(bin, "build", "-f", "../../examples/sandbox/rules.yaml", "-o", img,
		"--kernel", filepath.Join(scratch, "kernel.elf"), "--program", filepath.Join(scratch, "firewall.elf"))
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	id += fmt.Sprint(os.Getpid() % 100000)
	f := &farm{t: t, host: "thwf" + id, prefix: "f" + id, said: map[string][]string{}, asked: map[string]int{}}
	f.env = []string{"THURWARD=" + bin, "IMAGE=" + img, "PREFIX=" + f.prefix, "STATE=" + filepath.Join(dir, "state"), "VSOCK=" + filepath.Join(dir, "vsock")}
	if _, err := vmm.FindFirecracker(); err != nil || vmm.KVMError() != nil {
		f.env = append(f.env, "VMM=qemu", "RUN_FLAGS=--accel tcg")
	}
	if out, err := exec.Command("ip", "netns", "add", f.host).CombinedOutput(); err != nil {
		t.Skipf("network namespaces may not be made here: %s", out)
	}
	t.Cleanup(func() { exec.Command("ip", "netns", "del", f.host).Run() }) //nolint:errcheck // a leftover
	for _, a := range []string{"addr add 9.9.9.9/32 dev lo", "addr add 198.51.100.80/32 dev lo", "link set dev lo up"} {
		if out, err := exec.Command("ip", append([]string{"-n", f.host}, strings.Fields(a)...)...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	f.serve()
	f.receive(filepath.Join(dir, "vsock"))
	return f
}

// serve makes the internet: a name server that has one address for all names, and a server.
func (f *farm) serve() {
	var udp net.PacketConn
	err := inNamespace(f.host, func() (err error) {
		if udp, err = net.ListenPacket("udp", "9.9.9.9:53"); err == nil {
			f.listen, err = net.Listen("tcp", ":443")
		}
		return err
	})
	if err != nil {
		f.t.Fatal(err)
	}
	d := &dns.Server{PacketConn: udp, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		f.mu.Lock()
		f.asked[strings.ToLower(q.Question[0].Name)]++
		f.mu.Unlock()
		m := new(dns.Msg).SetReply(q)
		if q.Question[0].Qtype == dns.TypeA {
			m.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 60}, A: net.IPv4(198, 51, 100, 80)}}
		}
		w.WriteMsg(m) //nolint:errcheck // it is asked again
	})}
	go d.ActivateAndServe() //nolint:errcheck // until the end
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, "hello at %s", r.TLS.ServerName) }))
	s.Listener.Close()
	s.Listener = f.listen
	s.TLS, s.Config.ErrorLog = &tls.Config{}, log.New(io.Discard, "", 0)
	s.StartTLS()
	f.t.Cleanup(func() { s.Close(); d.Shutdown() }) //nolint:errcheck // the end
}

// receive is the one receiver of all sandboxes.
func (f *farm) receive(path string) {
	l, err := ingest.Listen("unix:" + ingest.GuestSocket(path))
	if err != nil {
		f.t.Fatal(err)
	}
	h := &ingest.Handler{Item: func(s *ingest.Source, it ingest.Item) {
		f.mu.Lock()
		defer f.mu.Unlock()
		name := s.Hello.Name()
		if it.Kind == ingest.EventKind {
			f.said[name] = append(f.said[name], fmt.Sprintf("%s %s:%v", it.Event.Str("event.action"), it.Event.Str("destination.ip"), it.Event["destination.port"]))
		} else if f.said[name] == nil {
			f.said[name] = []string{}
		}
	}}
	ctx, cancel := context.WithCancel(context.Background())
	go h.Serve(ctx, l) //nolint:errcheck // until the end
	f.t.Cleanup(cancel)
}

func (f *farm) await(what string, cond func() bool) {
	f.t.Helper()
	for end := time.Now().Add(limit); ; time.Sleep(50 * time.Millisecond) {
		f.mu.Lock()
		ok := cond()
		f.mu.Unlock()
		if ok {
			return
		}
		if time.Now().After(end) {
			list, _ := f.script("list")
			f.t.Fatalf("no %s; %s", what, list)
		}
	}
}

// TestSandboxes: each of two sandboxes reaches by name what its policy allows and nothing
// else, neither another way nor the other sandbox nor the host; what was refused is told
// by the sandbox's name at one receiver; and nothing is left at the end.
func TestSandboxes(t *testing.T) {
	t.Parallel()
	t.Run("boot", func(t *testing.T) { sandboxes(t, newFarm(t, "b")) })
	t.Run("snapshot", func(t *testing.T) {
		if _, err := vmm.FindFirecracker(); err != nil {
			t.Skip(err)
		}
		if err := vmm.KVMError(); err != nil {
			t.Skip(err)
		}
		f := newFarm(t, "s")
		f.env = append(f.env, "SNAPSHOT="+filepath.Join(t.TempDir(), "saved"))
		sandboxes(t, f)
	})
}

// sandboxes is TestSandboxes with a way to start them.
func sandboxes(t *testing.T, f *farm) {
	t.Helper()
	t.Cleanup(func() {
		if out, err := f.script("down"); err != nil {
			t.Errorf("down: %v: %s", err, out)
		}
		if left, _ := filepath.Glob("/run/netns/" + f.prefix + "*"); len(left) != 0 {
			t.Errorf("left: %q", left)
		}
	})
	if out, err := f.script("up", "2"); err != nil {
		t.Fatalf("up: %v: %s", err, out)
	}
	names := []string{f.prefix + "-1", f.prefix + "-2"}
	f.await("streams", func() bool { return f.said[names[0]] != nil && f.said[names[1]] != nil })
	curl := func(sandbox string, args ...string) (string, error) {
		return f.script(append([]string{"enter", sandbox, "curl", "-sSk", "--max-time", "3"}, args...)...)
	}
	for _, sandbox := range []string{"1", "2"} {
		for _, name := range []string{"github.com", "raw.githubusercontent.com", "pypi.org", "api.example.com"} {
			if out, err := curl(sandbox, "--retry", "3", "https://"+name+"/"); err != nil || out != "hello at "+name {
				t.Errorf("sandbox %s, %s: %v: %s", sandbox, name, err, out)
			}
		}
		for what, args := range map[string][]string{
			"a name that is not allowed":         {"https://paste.example.net/"},
			"an allowed address by another name": {"--resolve", "paste.example.net:443:198.51.100.80", "https://paste.example.net/"},
			"an allowed address without a name":  {"https://198.51.100.80/"},
			"the host":                           {"https://100.64.0.1/"},
			"its own namespace":                  {"https://192.0.2.1/"},
			"the other":                          {"https://100.64.0." + map[string]string{"1": "4", "2": "3"}[sandbox] + "/"},
			"an allowed name without TLS":        {"http://github.com:443/"},
			"the firewall":                       {"https://10.0.0.1/"},
		} {
			if out, err := curl(sandbox, args...); err == nil {
				t.Errorf("sandbox %s reaches %s: %s", sandbox, what, out)
			}
		}
	}
	// Another server's answers are the firewall's, and other names do not leave at all.
	if out, err := f.script("enter", "1", "dig", "+short", "+time=3", "@198.51.100.53", "pypi.org"); err != nil || strings.TrimSpace(out) != "198.51.100.80" {
		t.Errorf("dig: %v: %s", err, out)
	}
	if out, err := f.script("enter", "2", "dig", "+time=3", "secret.paste.example.net"); err != nil || strings.Contains(out, "198.51.100.80") {
		t.Errorf("dig: %v: %s", err, out)
	}
	f.mu.Lock()
	for name := range f.asked {
		if strings.Contains(name, "paste") {
			t.Errorf("%s was asked for upstream", name)
		}
	}
	f.mu.Unlock()
	// What one does is told under its name.
	if out, err := curl("2", "https://198.51.100.99:4444/"); err == nil {
		t.Errorf("an address: %s", out)
	}
	had := func(name string) bool {
		for _, s := range f.said[name] {
			if strings.Contains(s, "198.51.100.99:4444") {
				return true
			}
		}
		return false
	}
	f.await("event", func() bool { return had(names[1]) })
	if had(names[0]) {
		t.Error("it is told of the other sandbox, too")
	}
	if out, err := f.script("up", "1"); err == nil || !strings.Contains(out, "is there already") {
		t.Errorf("a second time: %v: %s", err, out)
	}
	var exit *exec.ExitError
	if out, err := f.script("sideways"); !errors.As(err, &exit) || exit.ExitCode() != 2 || !strings.Contains(out, "sandboxes.sh up N") {
		t.Errorf("%v: %s", err, out)
	}
}
