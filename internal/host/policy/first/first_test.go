package first

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/thurward/thurward/internal/host/policy/check"
)

func good() Answers {
	return Answers{LAN: "lan0", WAN: "wan0", LANAddress: "10.0.0.1/24", WANAddress: "203.0.113.10/24",
		Gateway: "203.0.113.1", DNS: []string{"9.9.9.9"}}
}

// TestFirstPolicy: what is written is valid without a warning, holds its tests, has the
// answers in it, and names the schema that is in the repository.
func TestFirstPolicy(t *testing.T) {
	for name, change := range map[string]func(*Answers){
		"usual":          func(*Answers) {},
		"no name server": func(a *Answers) { a.DNS = nil },
		"two":            func(a *Answers) { a.DNS = []string{"9.9.9.9", "149.112.112.112"} },
		"names":          func(a *Answers) { a.LAN, a.WAN = "lan-office", "wan_1" },
		"pairs":          func(a *Answers) { a.LANAddress, a.WANAddress, a.Gateway = "10.0.0.1/31", "192.0.2.1/31", "192.0.2.0" },
		"last host":      func(a *Answers) { a.LANAddress = "10.0.0.254/24" },
		"documentation": func(a *Answers) {
			a.LANAddress, a.WANAddress, a.Gateway = "198.51.100.7/24", "192.0.2.7/24", "192.0.2.1"
		},
		"large":  func(a *Answers) { a.LANAddress = "10.255.255.254/8" },
		"half":   func(a *Answers) { a.LANAddress = "172.17.128.1/16" },
		"spaces": func(a *Answers) { a.LANAddress, a.Gateway = " 10.0.0.1/24 ", "\t203.0.113.1" },
	} {
		a := good()
		change(&a)
		y, err := a.YAML()
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		p, diags := check.Load("rules.yaml", y)
		if p == nil || len(diags) > 0 {
			t.Errorf("%s: %v\n%s", name, diags, y)
			continue
		}
		if p.LAN().Prefix.String() != strings.TrimSpace(a.LANAddress) || p.WAN().Prefix.String() != a.WANAddress ||
			p.WAN().Gateway.String() != strings.TrimSpace(a.Gateway) || len(p.DNS.Upstreams) != len(a.DNS) || len(p.Tests) < 6 {
			t.Errorf("%s: the answers are not in it\n%s", name, y)
		}
	}
	b, err := os.ReadFile("../../../../schemas/rules.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	var s struct {
		ID string `json:"$id"`
	}
	if err := json.Unmarshal(b, &s); err != nil || s.ID != Schema {
		t.Errorf("the schema is %q, %v", s.ID, err)
	}
}

// TestWrongAnswers: each is refused, with the answer that is wrong.
func TestWrongAnswers(t *testing.T) {
	for _, c := range []struct {
		want   Question
		change func(*Answers)
	}{
		{LAN, func(a *Answers) { a.LAN = "eth0" }},
		{LAN, func(a *Answers) { a.LAN = "lan0: {}\nrules" }},
		{LAN, func(a *Answers) { a.LAN = "lan" + strings.Repeat("0", 61) }},
		{LANAddress, func(a *Answers) { a.LANAddress = "0.0.0.1/8" }},
		{LANAddress, func(a *Answers) { a.LANAddress = "127.0.0.1/8" }},
		{LANAddress, func(a *Answers) { a.LANAddress = "10.0.0.1/7" }},
		{WAN, func(a *Answers) { a.WAN = "" }},
		{WAN, func(a *Answers) { a.WAN = "wan\x1b[2J" }},
		{LANAddress, func(a *Answers) { a.LANAddress = "10.0.0.0/24" }},
		{LANAddress, func(a *Answers) { a.LANAddress = "10.0.0.1" }},
		{LANAddress, func(a *Answers) { a.LANAddress = "fd00::1/64" }},
		{LANAddress, func(a *Answers) { a.LANAddress = "10.0.0.1/32" }},
		{LANAddress, func(a *Answers) { a.LANAddress = "10.0.0.1/24 }\n  lan1: { address: 10.1.0.1/24" }},
		{WANAddress, func(a *Answers) { a.WANAddress = "203.0.113.255/24" }},
		{WANAddress, func(a *Answers) { a.WANAddress = "10.0.0.9/16"; a.Gateway = "10.0.0.2" }}, // overlaps
		{Gateway, func(a *Answers) { a.Gateway = "198.51.100.1" }},
		{Gateway, func(a *Answers) { a.Gateway = "203.0.113.10" }},
		{Gateway, func(a *Answers) { a.Gateway = "::ffff:203.0.113.1" }},
		{DNS, func(a *Answers) { a.DNS = []string{"dns.example"} }},
		{DNS, func(a *Answers) { a.DNS = []string{""} }},
		{DNS, func(a *Answers) { a.DNS = []string{"224.0.0.1"} }},
		{DNS, func(a *Answers) { a.DNS = make([]string, 1000) }},
	} {
		a := good()
		c.change(&a)
		_, err := a.YAML()
		var w *WrongError
		if !errors.As(err, &w) || w.Question != c.want {
			t.Errorf("%+v: %v, want an error about %s", a, err, c.want)
		}
	}
}

// TestWrong: an answer is judged by itself and those before it.
func TestWrong(t *testing.T) {
	a := Answers{LAN: "lan0", WAN: "wan0", LANAddress: "203.0.113.1/24"}
	if w := a.Wrong(LANAddress); w != nil {
		t.Error(w)
	}
	a.WANAddress = "203.0.113.200/25"
	if w := a.Wrong(WANAddress); w == nil || !strings.Contains(w.Reason, "overlap") {
		t.Error(w)
	}
	a.WANAddress = "192.0.2.9/24"
	if w := a.Wrong(WANAddress); w != nil {
		t.Error(w)
	}
	a.Gateway = "192.0.3.1"
	if w := a.Wrong(Gateway); w == nil || !strings.Contains(w.Reason, "not in the interface's network") {
		t.Error(w)
	}
	a.Gateway, a.DNS = "192.0.2.1", []string{"x"}
	if w := a.Wrong(Gateway); w != nil {
		t.Error(w)
	}
	if w := a.Wrong(DNS); w == nil {
		t.Error("a wrong name server is right")
	}
}

// TestAnyAddresses: with whatever addresses, the policy is right or refused; it is never
// one whose own tests fail.
func TestAnyAddresses(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		addr := func(name string) netip.Addr {
			return netip.AddrFrom4([4]byte(rapid.SliceOfN(rapid.Byte(), 4, 4).Draw(t, name)))
		}
		wan := netip.PrefixFrom(addr("wan"), rapid.IntRange(7, 32).Draw(t, "wan bits"))
		a := good()
		a.LANAddress = fmt.Sprintf("%v/%d", addr("lan"), rapid.IntRange(7, 32).Draw(t, "lan bits"))
		a.WANAddress, a.Gateway = wan.String(), neighbour(wan).String()
		_, err := a.YAML()
		var w *WrongError
		if err != nil && !errors.As(err, &w) {
			t.Fatalf("%+v: %v", a, err)
		}
	})
}

// FuzzAnswers: no text of an answer adds anything to a policy.
func FuzzAnswers(f *testing.F) {
	f.Add("lan0", "10.0.0.1/24", "203.0.113.10/24", "203.0.113.1", "9.9.9.9")
	f.Add("lan0: {}\n", "10.0.0.1/24 }", "203.0.113.10/24 # ", "203.0.113.1, mtu: 1", "9.9.9.9]")
	f.Fuzz(func(t *testing.T, lan, la, wa, gw, dns string) {
		a := Answers{LAN: lan, WAN: "wan0", LANAddress: la, WANAddress: wa, Gateway: gw, DNS: []string{dns}}
		y, err := a.YAML()
		if err != nil {
			return
		}
		if p, diags := check.Load("x", y); p == nil || len(diags) > 0 || len(p.Rules) != 5 || len(p.Interfaces) != 2 {
			t.Errorf("%q", y)
		}
	})
}
