package e2e

import (
	"flag"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"

	"github.com/thurward/thurward/internal/host/image"
	"github.com/thurward/thurward/internal/host/kernelbuild"
	"github.com/thurward/thurward/internal/host/policy/compile"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// scratch holds what is built once per run; TestMain removes it.
var scratch string

// atOnce is how many tests run side by side that may (testing.T.Parallel), where -parallel
// does not say: most of the time a test waits, and there may be fewer processors than that.
const atOnce = 4

func TestMain(m *testing.M) {
	flag.Parse()
	said := false
	flag.Visit(func(f *flag.Flag) { said = said || f.Name == "test.parallel" })
	if !said {
		flag.Set("test.parallel", strconv.Itoa(atOnce)) //nolint:errcheck // it is a number
	}
	dir, err := os.MkdirTemp("", "thurward-e2e")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	scratch = dir
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// parts builds the kernel and the firewall, once.
var parts = sync.OnceValues(func() (in image.Input, err error) {
	kernel := filepath.Join(scratch, "kernel.elf")
	if err := kernelbuild.Kernel(kernel); err != nil {
		return in, err
	}
	if in.Kernel, err = os.ReadFile(kernel); err != nil {
		return in, err
	}
	in.Program, err = firewall("")
	return in, err
})

// dotProgram builds the firewall with DNS over TLS, once.
var dotProgram = sync.OnceValues(func() ([]byte, error) { return firewall("dot") })

// firewall builds the firewall with build tags.
func firewall(tags string) ([]byte, error) {
	program := filepath.Join(scratch, "firewall"+tags+".elf")
	cmd := exec.Command("go", "build", "-tags", tags, "-trimpath", "-buildvcs=false", "-ldflags=-s -w -buildid=", "-o", program, "github.com/thurward/thurward/cmd/firewall")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64")
	if b, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("building the firewall: %w\n%s", err, b)
	}
	return os.ReadFile(program)
}

// defaultImage is the image of the policy of these tests.
var defaultImage = sync.OnceValues(func() (string, error) {
	path := filepath.Join(scratch, "thurward.img")
	return path, link(path, policy())
})

// link writes the image of a policy.
func link(path string, p *ruleset.Policy) error {
	in, err := parts()
	if err != nil {
		return err
	}
	if image.ProgramFor(p) == image.DoT {
		if in.Program, err = dotProgram(); err != nil {
			return err
		}
	}
	if err := compile.Classifier(p); err != nil {
		return err
	}
	in.Policy = compile.Encode(p)
	b, err := image.Link(in)
	if err != nil {
		return err
	}
	return os.WriteFile(path, b, 0o644)
}

// linked returns the path of an image whose policy change has altered.
func linked(t *testing.T, change func(*ruleset.Policy)) string {
	t.Helper()
	p := policy()
	change(p)
	path := filepath.Join(t.TempDir(), "thurward.img")
	if err := link(path, p); err != nil {
		t.Fatal(err)
	}
	return path
}

// testImage returns the path of the image that the tests boot.
func testImage(t testing.TB) string {
	t.Helper()
	path, err := defaultImage()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// policy is the policy of the tests: what the repository's rules.yaml says,
// written as tables, so that these tests stand on the image alone.
func policy() *ruleset.Policy {
	p := &ruleset.Policy{Digest: [32]byte{0xe2, 0xe0}, Settings: ruleset.Settings{
		DefaultAction: ruleset.Deny, MaxFlows: 65536,
		TCPSynSent: 30, TCPSynRecv: 60, TCPEstablished: 3600, TCPFinWait: 60, TCPCloseWait: 60, TCPLastAck: 30, TCPTimeWait: 60, TCPClose: 10,
		UDPUnreplied: 30, UDPIdle: 60, ICMPEcho: 30,
	}}
	text := func(s string) ruleset.Text {
		t := ruleset.Text{Off: uint32(len(p.Strings)), Len: uint32(len(s))}
		p.Strings = append(p.Strings, s...)
		return t
	}
	addr := func(s string) ruleset.Addr { return netip.MustParseAddr(s).As16() }
	all := ruleset.Addr{0: 0xff, 1: 0xff, 2: 0xff, 3: 0xff, 4: 0xff, 5: 0xff, 6: 0xff, 7: 0xff, 8: 0xff, 9: 0xff, 10: 0xff, 11: 0xff, 12: 0xff, 13: 0xff, 14: 0xff}
	p.Interfaces = []ruleset.Interface{
		{Address: addr("10.0.0.1"), Name: text("lan0"), PrefixLen: 24, Role: ruleset.LAN},
		{Address: addr("203.0.113.10"), Gateway: addr("203.0.113.1"), Name: text("wan0"), PrefixLen: 24, Role: ruleset.WAN},
	}
	p.SNAT = []ruleset.SNAT{{Source: addr("10.0.0.0"), SourceMask: all, Interface: 1, PortLo: 1024, PortHi: 65535}}
	rule := func(id string, m ruleset.Match) {
		m.Rule, m.Action = uint32(len(p.Rules)), ruleset.Accept
		p.Rules = append(p.Rules, ruleset.Rule{ID: text(id), Name: text(id), Action: ruleset.Accept})
		if m.PortHi == 0 {
			m.PortHi = 65535
		}
		p.Matches = append(p.Matches, m)
	}
	port := func(n uint16, proto uint8) ruleset.Match {
		return ruleset.Match{Direction: verdict.Egress, Src: addr("10.0.0.0"), SrcMask: all, PortLo: n, PortHi: n, Proto: proto}
	}
	rule("allow-web", port(80, packet.TCP))
	rule("allow-dns", port(53, packet.UDP))
	rule("allow-ping", ruleset.Match{Direction: verdict.Egress, Src: addr("10.0.0.0"), SrcMask: all, Proto: packet.ICMP})
	rule("allow-established", ruleset.Match{Direction: verdict.Ingress, State: ruleset.StateEstablished})
	return p
}
