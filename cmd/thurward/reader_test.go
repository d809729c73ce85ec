package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/thurward/thurward/internal/host/dashboard"
	"github.com/thurward/thurward/internal/host/ingest"
	"github.com/thurward/thurward/internal/host/ingest/guesttest"
	"github.com/thurward/thurward/internal/host/policy"
	"github.com/thurward/thurward/internal/host/policy/compile"
	"github.com/thurward/thurward/internal/host/policy/policytest"
	"github.com/thurward/thurward/internal/host/provenance"
	"github.com/thurward/thurward/internal/host/vmm"
)

// said collects the launcher's messages.
type said struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *said) Write(p []byte) (int, error) { s.mu.Lock(); defer s.mu.Unlock(); return s.b.Write(p) }
func (s *said) has(t string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Contains(s.b.String(), t)
}

// TestReaderGivesWay: run does not read the stream while another process reads it, and
// takes over when that process ends.
func TestReaderGivesWay(t *testing.T) {
	path := filepath.Join(t.TempDir(), "vsock")
	other, err := ingest.Listen("unix:" + ingest.GuestSocket(path))
	if err != nil {
		t.Fatal(err)
	}
	var out said
	l := &launch{vsock: vmm.Vsock{Path: path}, reader: readerAuto, page: "127.0.0.1:0", errOut: &out}
	stop, reads := l.startReader(context.Background())
	defer stop()
	if !reads || l.verdicts(reads) != vmm.StreamVerdicts {
		t.Error("the other process reads it: the events pass through this one")
	}
	if !out.has("another process reads the stream already") {
		t.Fatal(out.b.String())
	}
	other.Close()
	until(t, func() bool { return out.has("watch it with thurward events --socket " + path + "_tail") })
	g := &guesttest.Guest{Boot: "b", WAN: "203.0.113.10/24", Start: time.Now()}
	send, _ := guesttest.Dial(t, ingest.GuestSocket(path))
	send(append([]string{g.Hello(time.Now())}, g.Snapshot()...)...)
	code, text, errs := capture(t, "top", "--once", "--socket", ingest.TailSocket(path))
	if code != 0 || !strings.Contains(text, "203.0.113.10  connected") {
		t.Errorf("exit %d\n%s\n%s", code, text, errs)
	}
	stop()
	if _, err := net.Dial("unix", ingest.GuestSocket(path)); err == nil {
		t.Error("the reader goes on after its end")
	}
}

// TestReaderPageTaken: if its address is in use the page gets another port.
func TestReaderPageTaken(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	var out said
	l := &launch{vsock: vmm.Vsock{Path: filepath.Join(t.TempDir(), "vsock")}, reader: readerAuto, page: taken.Addr().String(), errOut: &out}
	stop, _ := l.startReader(context.Background())
	defer stop()
	until(t, func() bool { return out.has("gets another port") && out.has("page http://127.0.0.1:") })
	for _, l := range []*launch{{vsock: vmm.Vsock{Path: l.vsock.Path}, reader: readerNone}, {reader: readerAuto}} {
		l.errOut = &out
		stop, reads := l.startReader(context.Background()) // does nothing
		stop()
		if v := l.verdicts(reads); v != vmm.NoVerdicts || !out.has("verdicts are not printed") {
			t.Errorf("verdicts by way %d", v)
		}
		l.lan.Kind, l.wan.Kind = vmm.Demo, vmm.Demo
		if v := l.verdicts(reads); v != vmm.ConsoleVerdicts {
			t.Errorf("the demonstration gets its verdicts by way %d", v)
		}
	}
}

func TestReaderFlags(t *testing.T) {
	for _, c := range []struct{ args, want string }{
		{"--reader=always", "want auto or none"}, {"--page=0.0.0.0:80", "loopback"}, {"--page=9464", "--page"},
	} {
		if code, _, errs := capture(t, "run", c.args); code != 2 || !strings.Contains(errs, c.want) {
			t.Errorf("%s: exit %d %s", c.args, code, errs)
		}
	}
}

// TestTell: the page shows the rules of an image that runs in words, and who may reach what
// where its rules.yaml is at hand; another file is not taken for it, and refused if it is named.
func TestTell(t *testing.T) {
	const text = policytest.SmallWorld + `defaults: { default_action: reject }
rules:
  - { id: allow-web, name: "The web", action: accept, direction: egress, destination_port: 443, protocol: tcp }
`
	p, ds := policy.Load("rules.yaml", []byte(text))
	if p == nil {
		t.Fatal(ds)
	}
	rs, err := compile.Compile(p)
	if err != nil {
		t.Fatal(err)
	}
	const rules, tables = `"text":{"id":"allow-web","name":"The web","action":"accept","matches":["egress tcp any -\u003e any :443"]}`, `{"known":true,"tables":[{"from":"lan"`
	for name, c := range map[string]struct {
		files       map[string]string
		named       string
		reach, fail string
	}{
		"no file":           {nil, "", `{"known":false}`, ""},
		"here":              {map[string]string{"rules.yaml": text}, "", tables, ""},
		"another here":      {map[string]string{"rules.yaml": text + "# changed\n"}, "", `{"known":false}`, ""},
		"beside the image":  {map[string]string{"edge.img.yaml": text}, "", tables, ""},
		"in the provenance": {map[string]string{"edge.img.provenance.json": statementOf(text)}, "", tables, ""},
		"other provenance":  {map[string]string{"edge.img.provenance.json": statementOf(text + "#")}, "", `{"known":false}`, ""},
		"named":             {map[string]string{"edge.yaml": text}, "edge.yaml", tables, ""},
		"named, another":    {map[string]string{"edge.yaml": text + "#", "rules.yaml": text}, "edge.yaml", "", "edge.yaml is not the policy that the image was built from"},
		"named, none":       {nil, "edge.yaml", "", "there is no file"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			t.Chdir(dir)
			for f, text := range c.files {
				if err := os.WriteFile(f, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			l := &launch{page: "127.0.0.1:0", policyFile: c.named, errOut: io.Discard}
			if err := l.tell(&vmm.Image{}); err != nil {
				t.Fatal(err)
			}
			if err := l.tell(&vmm.Image{Path: "edge.img", Policy: rs}); c.fail != "" || err != nil {
				if err == nil || c.fail == "" || !strings.Contains(err.Error(), c.fail) {
					t.Errorf("%v, want %q", err, c.fail)
				}
				return
			}
			path := filepath.Join(t.TempDir(), "vsock")
			st := &dashboard.Receiver{Guest: "unix:" + ingest.GuestSocket(path), Page: "unix:" + path + "_page", Policies: &l.policies}
			guesttest.Receive(t, st)
			g := &guesttest.Guest{Boot: "aa", WAN: "203.0.113.10/24", Start: time.Now().Add(-time.Hour)}
			send, _ := guesttest.Dial(t, ingest.GuestSocket(path))
			send(strings.Replace(g.Hello(time.Now()), guesttest.Policy, digestOf(rs), 1))
			send(g.Snapshot()...)
			until(t, func() bool { v := st.Model.Views(time.Now()); return len(v) == 1 && !v[0].Snapshot.IsZero() })
			client := guesttest.OverUnix(path + "_page")
			get := func(what string) string {
				r, err := client.Get("http://localhost/api/v1/" + what + "?firewall=203.0.113.10")
				if err != nil {
					t.Fatal(err)
				}
				defer r.Body.Close()
				b, err := io.ReadAll(r.Body)
				if err != nil {
					t.Fatal(err)
				}
				return string(b)
			}
			if b := get("rules"); !strings.Contains(b, rules) {
				t.Error(b)
			}
			until(t, func() bool { return strings.HasPrefix(get("reach"), c.reach) })
		})
	}
}

// statementOf returns a provenance that has a policy.
func statementOf(policy string) string {
	return fmt.Sprintf(`{"_type":"https://in-toto.io/Statement/v1","predicateType":"https://slsa.dev/provenance/v1","subject":[{"name":"x","digest":{"sha256":"%064x"}}],"predicate":{"buildDefinition":{"buildType":%q,"resolvedDependencies":[{"name":%q,"content":%q}]}}}`,
		1, provenance.BuildType, provenance.NamePolicy, base64.StdEncoding.EncodeToString([]byte(policy)))
}
