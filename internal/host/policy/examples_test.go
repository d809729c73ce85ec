package policy_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/thurward/thurward/internal/host/policy/check"
	"github.com/thurward/thurward/internal/host/policy/compile"
	"github.com/thurward/thurward/internal/host/policy/explain"
)

// generated are the examples that programs write: go test ./internal/host/policy
// -run TestExamples -update makes them anew.
var generated = map[string]func() string{"lab.yaml": labExample, "generated.yaml": largeExample}

// TestExamples: the policies that the repository ships have no errors and no
// warnings, and what their tests say holds.
func TestExamples(t *testing.T) {
	for name, make := range generated {
		file := "../../../examples/" + name
		if *update {
			if err := os.WriteFile(file, []byte(make()), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if b, err := os.ReadFile(file); err != nil || string(b) != make() {
			t.Errorf("%s is not what its generator makes (%v); go test ./internal/host/policy -run TestExamples -update", name, err)
		}
	}
	files, _ := filepath.Glob("../../../examples/*.yaml")
	rules := map[string]int{}
	for _, f := range append(files, "../../../rules.yaml") {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		p, ds := check.Load(f, b)
		if filepath.Base(f) == "generated.yaml" && len(ds) == 1 && ds[0].Code == "small-pool" {
			ds = nil // its network is 10.0.0.0/8, so that ten thousand rules have sources of their own
		}
		if p == nil || len(ds) > 0 {
			t.Errorf("%v", ds)
			continue
		}
		rules[filepath.Base(f)] = len(p.Rules)
		s, err := compile.Compile(p)
		if err != nil {
			t.Fatal(err)
		}
		if len(p.Tests) < 5 {
			t.Errorf("%s: %d tests are too few to show how they are written", f, len(p.Tests))
		}
		for _, d := range explain.Failures(p, explain.RunTests(p, s)) {
			t.Error(d)
		}
	}
	if len(rules) != 6 || rules["lab.yaml"] != 200 || rules["generated.yaml"] != 10000 {
		t.Errorf("%v", rules)
	}
}

const generatedNote = `# Written by a program: go test ./internal/host/policy -run TestExamples -update
# %s

`

// labExample is a laboratory with forty teams, each with its own rules.
func labExample() string {
	var b strings.Builder
	fmt.Fprintf(&b, generatedNote, "A laboratory of 40 teams, each with a network, a service and partners of its own.")
	b.WriteString(`interfaces:
  lan0: { address: 10.64.0.1/16 }
  wan0: { address: 198.51.100.2/24, gateway: 198.51.100.1 }

defaults:
  default_action: deny
  max_flows: 262144
  max_flows_per_source: 8192
  fragments: reassemble
  upstream_dns: 9.9.9.9

nat:
  snat:
    - { out_interface: wan0, source: 10.64.0.0/16, external_ip: [198.51.100.2, 198.51.100.3, 198.51.100.4] }
  dnat:
`)
	for t := range 40 {
		fmt.Fprintf(&b, "    - { wan_ip: 198.51.100.%d, wan_port: 443, to: \"10.64.%d.10:443\", proto: tcp }\n", 10+t, 4*t)
	}
	b.WriteString(`
rules:
  - { id: allow-dns, action: accept, direction: egress, destination: 10.64.0.1, destination_port: 53, protocol: [udp, tcp] }
`)
	for t := range 40 {
		net := fmt.Sprintf("10.64.%d.0/22", 4*t)
		host := fmt.Sprintf("10.64.%d.10", 4*t)
		n := fmt.Sprintf("%02d", t)
		fmt.Fprintf(&b, "  # team %s\n", n)
		fmt.Fprintf(&b, "  - { id: team%s-service, action: accept, direction: ingress, destination: %s, destination_port: 443, protocol: tcp }\n", n, host)
		fmt.Fprintf(&b, "  - { id: team%s-partner, action: accept, direction: egress, source: %s, destination: 192.0.2.%d/30, destination_port: [22, 443, %d], protocol: tcp }\n", n, net, 4*t, 5000+t)
		fmt.Fprintf(&b, "  - { id: team%s-store, action: accept, direction: egress, source: %s, destination_fqdn: [team%s.store.example, \"*.team%s.example\"], destination_port: 443, protocol: tcp }\n", n, net, n, n)
		if t%2 == 0 {
			fmt.Fprintf(&b, "  - { id: team%s-quiet, action: reject, direction: egress, source: 10.64.%d.128/25, destination_port: [80, 443], protocol: tcp }\n", n, 4*t+3)
		} else {
			fmt.Fprintf(&b, "  - { id: team%s-media, action: accept, direction: egress, source: %s, destination_port: %d-%d, protocol: udp }\n", n, net, 20000+100*t, 20099+100*t)
		}
		if t < 36 {
			fmt.Fprintf(&b, "  - { id: team%s-web, action: accept, direction: egress, source: %s, destination_port: [80, 443], protocol: tcp }\n", n, net)
		}
	}
	b.WriteString(`  - { id: ping, action: accept, direction: egress, protocol: icmp }
  - { id: answers-out, action: accept, direction: egress, state: established }
  - { id: allow-established, action: accept, direction: ingress, state: established }

tests:
  - { name: "a service", from: wan, proto: tcp, src: 203.0.113.9, dst: "198.51.100.17:443", expect: accept, expect_rule: team07-service }
  - { name: "only its port", from: wan, proto: tcp, src: 203.0.113.9, dst: "198.51.100.17:22", expect: deny, expect_rule: default }
  - { name: "a partner", from: lan, proto: tcp, src: 10.64.29.5, dst: "192.0.2.29:5007", expect: accept, expect_rule: team07-partner }
  - { name: "another team's partner", from: lan, proto: tcp, src: 10.64.33.5, dst: "192.0.2.29:5007", expect: deny, expect_rule: default }
  - { name: "a store by name", from: lan, proto: tcp, src: 10.64.150.5, fqdn: "bucket.team37.example:443", expect: accept, expect_rule: team37-store, expect_snat: 198.51.100.3 }
  - { name: "no web for teams without", from: lan, proto: tcp, src: 10.64.150.5, dst: "203.0.113.80:443", expect: deny, expect_rule: default }
  - { name: "the quiet part", from: lan, proto: tcp, src: 10.64.43.200, dst: "203.0.113.80:443", expect: reject, expect_rule: team10-quiet }
`)
	return b.String()
}

// largeExample has ten thousand rules: what a fleet's controller might write.
func largeExample() string {
	var b strings.Builder
	fmt.Fprintf(&b, generatedNote, "Ten thousand rules, as a fleet's controller might write them.")
	b.WriteString(`interfaces:
  lan0: { address: 10.0.0.1/8 }
  wan0: { address: 203.0.113.10/24, gateway: 203.0.113.1 }

defaults:
  default_action: deny
  max_flows: 1048576

nat:
  snat:
    - { out_interface: wan0, source: 10.0.0.0/8, masquerade: true }

rules:
`)
	for i := range 9998 {
		fmt.Fprintf(&b, "  - { id: r%04d, action: %s, direction: egress, source: 10.%d.%d.0/24, destination: 198.%d.%d.%d, destination_port: %d, protocol: %s }\n",
			i, []string{"accept", "accept", "deny", "accept"}[i%4], 1+i/250, i%250, 18+i%2, i/7%256, i%256, 1024+i*7%50000, []string{"tcp", "udp"}[i/3%2])
	}
	b.WriteString(`  - { id: ping, action: accept, direction: egress, protocol: icmp }
  - { id: allow-established, action: accept, direction: ingress, state: established }

tests:
`)
	for _, i := range []int{0, 1, 2, 5000, 9995, 9996, 9997} {
		fmt.Fprintf(&b, "  - { name: \"rule %d\", from: lan, proto: %s, src: 10.%d.%d.9, dst: \"198.%d.%d.%d:%d\", expect: %s, expect_rule: r%04d }\n",
			i, []string{"tcp", "udp"}[i/3%2], 1+i/250, i%250, 18+i%2, i/7%256, i%256, 1024+i*7%50000, []string{"accept", "accept", "deny", "accept"}[i%4], i)
	}
	b.WriteString("  - { name: \"nothing else\", from: lan, proto: tcp, src: 10.200.0.9, dst: \"198.18.0.1:80\", expect: deny, expect_rule: default }\n")
	return b.String()
}

// TestTenThousandRulesInASecond: reading, checking and compiling ten thousand
// rules takes less than a second of one core. What counts is the processor's
// time, and the best of three at most, since others may use the machine.
func TestTenThousandRulesInASecond(t *testing.T) {
	src := []byte(largeExample())
	best := time.Hour
	for range 3 {
		start := processorTime(t)
		p, ds := check.Load("generated.yaml", src)
		if p == nil {
			t.Fatal(ds)
		}
		if s, err := compile.Compile(p); err != nil || len(s.Rules) != 10000 {
			t.Fatal(err)
		}
		if best = min(best, processorTime(t)-start); best < time.Second {
			break
		}
	}
	t.Logf("10,000 rules: %v", best)
	if limit := time.Second; best > limit {
		t.Errorf("loading, checking and compiling 10,000 rules takes %v, want under %v", best, limit)
	}
}

func processorTime(t *testing.T) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func BenchmarkLoadAndCompile(b *testing.B) {
	for _, name := range []string{"home", "lab", "generated"} {
		src, err := os.ReadFile("../../../examples/" + name + ".yaml")
		if err != nil {
			b.Fatal(err)
		}
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(src)))
			b.ReportAllocs()
			for range b.N {
				p, ds := check.Load(name, src)
				if p == nil {
					b.Fatal(ds)
				}
				if _, err := compile.Compile(p); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// TestDocumentedPolicies: the whole policies in the documentation are valid, and
// their tests hold.
func TestDocumentedPolicies(t *testing.T) {
	n := 0
	for _, f := range []string{"../../../README.md", "../../../docs/policy.md"} {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, block := range strings.Split(string(b), "```yaml\n")[1:] {
			src, _, _ := strings.Cut(block, "```")
			if !strings.HasPrefix(src, "interfaces:") {
				continue
			}
			n++
			p, ds := check.Load(f, []byte(src))
			if len(ds) > 0 {
				t.Error(ds)
			}
			if p == nil {
				continue
			}
			s, err := compile.Compile(p)
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range explain.Failures(p, explain.RunTests(p, s)) {
				t.Error(d)
			}
		}
	}
	if n < 2 {
		t.Errorf("%d policies", n)
	}
}
