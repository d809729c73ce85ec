package image

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/thurward/thurward/internal/host/policy/compile"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/ruleset/rulesettest"
)

// tlsPolicy is the segment of a policy with one upstream.
func tlsPolicy(tls uint8) (*ruleset.Policy, []byte) {
	p := &ruleset.Policy{Interfaces: rulesettest.Interfaces(), Settings: ruleset.Settings{DefaultAction: ruleset.Deny, MaxFlows: 1024}}
	p.Strings = []byte("dns.example")
	p.Upstreams = []ruleset.Upstream{{Address: p.Interfaces[0].Address, Port: 853, TLS: tls, ServerName: ruleset.Text{Len: uint32(tls) * uint32(len(p.Strings))}}}
	return p, compile.Encode(p)
}

func TestProgramFor(t *testing.T) {
	for tls, want := range []string{Plain, DoT} {
		if p, _ := tlsPolicy(uint8(tls)); ProgramFor(p) != want {
			t.Errorf("upstream with TLS %d: %s, want %s", tls, ProgramFor(p), want)
		}
	}
}

// TestLinkRefusesProgramWithoutTLS: a policy with an upstream over TLS is not
// linked with a program without TLS, which is known also of a program without symbols.
func TestLinkRefusesProgramWithoutTLS(t *testing.T) {
	in, err := inputs()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	src := filepath.Join(dir, "main.go")
	if err := os.WriteFile(src, []byte("package main\nfunc main() {}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	build := func(tags string) []byte {
		out := filepath.Join(dir, "p")
		cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w -buildid=", "-tags", tags, "-o", out, src)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64", "GOFLAGS=")
		if b, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, b)
		}
		b, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for _, c := range []struct {
		tags string
		tls  uint8
		want string
	}{
		{"", 0, ""}, {"dot", 0, ""}, {"dot", 1, ""}, {"osusergo,dot", 1, ""},
		{"", 1, "built without DNS over TLS"}, {"nodot", 1, "built without DNS over TLS"},
	} {
		in.Program = build(c.tags)
		_, in.Policy = tlsPolicy(c.tls)
		_, err := Link(in)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("tags %q, TLS %d: error %v, want %q", c.tags, c.tls, err, c.want)
		}
	}
}
