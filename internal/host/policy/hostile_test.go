package policy_test

import (
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/thurward/thurward/internal/host/policy/check"
)

// repeat returns s over and over, n bytes in all.
func repeat(s string, n int) string { return strings.Repeat(s, n/len(s)) }

// numbered returns format with 0, 1, 2 and so on, n bytes in all.
func numbered(format string, n int) string {
	var b strings.Builder
	for i := 0; b.Len() < n; i++ {
		fmt.Fprintf(&b, format, i)
	}
	return b.String()
}

const head = "interfaces:\n  lan0: { address: 10.0.0.1/8 }\n  wan0: { address: 203.0.113.10/24, gateway: 203.0.113.1 }\ndefaults: { default_action: deny }\n"

// hostile are documents of about n bytes that parsers have stumbled over.
var hostile = map[string]func(n int) string{
	"brackets":    func(n int) string { return repeat("[", n) },
	"braces":      func(n int) string { return repeat("{a: ", n) },
	"dashes":      func(n int) string { return repeat("- ", n) },
	"questions":   func(n int) string { return repeat("? ", n) },
	"anchors":     func(n int) string { return repeat("&a ", n) },
	"tags":        func(n int) string { return repeat("!a ", n) },
	"keys":        func(n int) string { return numbered("k%d: 1\n", n) },
	"flow keys":   func(n int) string { return "{" + numbered("k%d: 1,", n) + "}" },
	"open list":   func(n int) string { return "[" + repeat("a,", n) },
	"open quote":  func(n int) string { return `"` + repeat("a\\\n", n) },
	"list":        func(n int) string { return repeat("- a\n", n) },
	"comments":    func(n int) string { return repeat("#a\n", n) },
	"documents":   func(n int) string { return repeat("--- a\n", n) },
	"folded":      func(n int) string { return "a: >\n" + repeat("  b\n", n) },
	"merges":      func(n int) string { return "a: &a {x: 1}\n" + repeat("<<: *a\n", n) },
	"word":        func(n int) string { return repeat("a", n) },
	"tabs":        func(n int) string { return repeat("\t", n) },
	"wrong rules": func(n int) string { return head + "rules:\n" + repeat("  - { x: 1 }\n", n) },
	"same rule":   func(n int) string { return head + "rules:\n  - &r { id: a, action: deny }\n" + repeat("  - *r\n", n) },
	"rules":       func(n int) string { return head + "rules:\n" + numbered("  - { id: r%d, action: deny }\n", n) },
	"overlaps": func(n int) string {
		return head + "rules:\n" + numbered("  - { id: r%d, action: accept, protocol: tcp, destination_port: [1-9, 5-20] }\n", n)
	},
	"groups": func(n int) string {
		return head + "rules: []\ngroups: { addresses: {\n" + numbered("  g%[1]d: [ $g%[1]d ],\n", n) + "}}\n"
	},
	"chain": func(n int) string { return head + "rules: []\ngroups: { ports: {\n" + chain(n) + "}}\n" },
	"forwarded": func(n int) string {
		return head + "rules: []\nnat: { dnat: [\n" + numbered("  { wan_ip: 203.0.113.10, wan_port: 80, to: \"10.0.0.5:%d\", proto: tcp },\n", n) + "]}\n"
	},
	"tests": func(n int) string {
		return head + "rules: []\ntests:\n" + repeat("  - { from: lan, proto: tcp, src: 10.0.0.2, dst: \"1.1.1.1:80\", expect: deny }\n", n)
	},
	"nested groups": func(n int) string {
		return head + "groups: { addresses: {\n g: [" + numbered("10.0.0.%d,", n/3) + "]\n}}\nrules:\n" + numbered("  - { id: r%d, action: deny, source: $g }\n", n/2)
	},
}

func chain(n int) string {
	var b strings.Builder
	for i := 0; b.Len() < n; i++ {
		fmt.Fprintf(&b, "  g%d: [ $g%d ],\n", i, i+1)
	}
	return b.String()
}

// TestHostileDocuments: memory grows with the size of the document and not with
// its square, whatever it holds. Nothing hangs, for time grows with memory.
func TestHostileDocuments(t *testing.T) {
	for name, doc := range hostile {
		t.Run(name, func(t *testing.T) {
			used := func(n int) uint64 {
				src := []byte(doc(n))
				var before, after runtime.MemStats
				runtime.ReadMemStats(&before)
				check.Load("hostile.yaml", src)
				runtime.ReadMemStats(&after)
				return after.TotalAlloc - before.TotalAlloc
			}
			small, large := used(8<<10), used(48<<10)
			if large > 3*6*small+1<<22 || large > 2000*(48<<10) {
				t.Errorf("8 kB take %d kB of memory in all, 48 kB take %d kB", small>>10, large>>10)
			}
		})
	}
}

// TestExpansionIsBounded: what is short and stands for very much is refused.
func TestExpansionIsBounded(t *testing.T) {
	bomb := "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
	groups := "groups:\n  addresses:\n    a0: [1.0.0.0/8, 2.0.0.0/8, 3.0.0.0/8, 4.0.0.0/8]\n"
	for i := 1; i < 40; i++ {
		bomb += fmt.Sprintf("a%d: &a%d [%s]\n", i, i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d, ", i-1), 10), ", "))
		groups += fmt.Sprintf("    a%d: [%s]\n", i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("$a%d, ", i-1), 10), ", "))
	}
	many := func(n int, format string) string { return strings.TrimSuffix(strings.Repeat(format+", ", n), ", ") }
	var addrs, ports []string
	for i := range 1100 {
		addrs, ports = append(addrs, fmt.Sprintf("1.%d.%d.0/24", i/256, i%256)), append(ports, fmt.Sprint(i+1))
	}
	product := head + "rules:\n  - { id: a, action: deny, protocol: [tcp, udp], source: [" + strings.Join(addrs, ", ") + "], destination_port: [" + strings.Join(ports, ", ") + "] }\n"
	for name, c := range map[string]struct{ src, want string }{
		"aliases":   {bomb, "grows beyond all bounds"},
		"itself":    {"a: &a [*a]\n", "stands for something that it is part of"},
		"groups":    {head + groups + "rules: []\n", ""}, // unique values: no growth
		"product":   {product, "combinations"},
		"depth":     {strings.Repeat("[", 100) + strings.Repeat("]", 100), "inside each other"},
		"addresses": {head + "nat: { snat: [ { out_interface: wan0, external_ip: [" + many(300, "198.51.100.1") + "] } ] }\nrules: []\n", "twice"},
	} {
		t.Run(name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			p, ds := check.Load("bomb.yaml", []byte(c.src))
			runtime.ReadMemStats(&after)
			if (p == nil) != (c.want != "") || !strings.Contains(fmt.Sprint(ds), c.want) {
				t.Errorf("%v", ds)
			}
			if n := after.TotalAlloc - before.TotalAlloc; n > 100<<20 {
				t.Errorf("%d MB of memory in all", n>>20)
			}
		})
	}
}
