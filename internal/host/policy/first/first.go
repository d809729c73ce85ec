// Package first writes the first policy of a firewall: addresses in, a rules.yaml out,
// with rules that most networks begin with, and tests of them.
package first

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"text/template"

	"github.com/thurward/thurward/internal/host/policy"
	"github.com/thurward/thurward/internal/host/policy/check"
	"github.com/thurward/thurward/internal/host/policy/compile"
	"github.com/thurward/thurward/internal/host/policy/explain"
)

// Schema is where editors find the JSON Schema of policies: the $id of
// schemas/rules.schema.json.
const Schema = "https://raw.githubusercontent.com/thurward/thurward/main/schemas/rules.schema.json"

// Answers are what a first policy depends on. Addresses are texts as a person gives
// them; what the policy's loader refuses is refused.
type Answers struct {
	LAN, WAN               string   // names of the interfaces, as lan0 and wan0
	LANAddress, WANAddress string   // the firewall's own, with the length of the network, as 10.0.0.1/24
	Gateway                string   // the next router on the WAN
	DNS                    []string // name servers that the firewall asks; none: the hosts ask servers of their own
}

// A Question is one of the answers.
type Question string

// The questions, by the command line's flags.
const (
	LAN        Question = "lan"
	WAN        Question = "wan"
	LANAddress Question = "lan-address"
	WANAddress Question = "wan-address"
	Gateway    Question = "gateway"
	DNS        Question = "dns"
)

// A WrongError says which answer is wrong, and why.
type WrongError struct {
	Question Question
	Reason   string
}

// Error returns the question as a flag, and the reason.
func (e *WrongError) Error() string { return fmt.Sprintf("--%s: %s", e.Question, e.Reason) }

// maxDNS is how many name servers a policy may have.
const maxDNS = 8

// YAML returns the policy for the answers, which has been checked: it is valid, there is
// no warning about it, and its tests hold. A wrong answer is a *WrongError.
func (a *Answers) YAML() ([]byte, error) {
	v, err := a.parse()
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	if err := text.Execute(&b, v); err != nil {
		return nil, err
	}
	p, diags := check.Load("rules.yaml", b.Bytes())
	for _, d := range diags {
		return nil, &WrongError{a.question(d.Path), reason(d)}
	}
	seg, err := compile.Compile(p)
	if err != nil {
		return nil, err
	}
	if failed := explain.Failures(p, explain.RunTests(p, seg)); len(failed) > 0 {
		return nil, errors.New(failed[0].String())
	}
	return b.Bytes(), nil
}

// Wrong returns what is wrong with one answer, given those before it, or nil. Those
// after it need not be there yet.
func (a *Answers) Wrong(q Question) *WrongError {
	b := *a
	// What has not been answered is something that fits.
	switch q {
	case LANAddress:
		b.WANAddress, b.Gateway, b.DNS = "203.0.113.10/24", "203.0.113.1", nil
		if p, err := netip.ParsePrefix(strings.TrimSpace(b.LANAddress)); err == nil && p.Overlaps(netip.MustParsePrefix(b.WANAddress)) {
			b.WANAddress, b.Gateway = "192.0.2.10/24", "192.0.2.1"
		}
	case WANAddress:
		b.Gateway, b.DNS = "", nil
		if p, err := netip.ParsePrefix(strings.TrimSpace(b.WANAddress)); err == nil {
			b.Gateway = neighbour(p).String()
		}
	case Gateway:
		b.DNS = nil
	}
	_, err := b.YAML()
	var w *WrongError
	if errors.As(err, &w) && w.Question == q {
		return w
	}
	return nil
}

// reason is a diagnostic without its place in a file that nobody has seen.
func reason(d policy.Diagnostic) string {
	if d.Hint == "" {
		return d.Message
	}
	return d.Message + " (" + d.Hint + ")"
}

// question returns which answer a path of the document is about.
func (a *Answers) question(path string) Question {
	switch {
	case path == "interfaces": // both networks, or both names, are the same
		return WANAddress
	case path == "interfaces."+a.WAN+".gateway":
		return Gateway
	case strings.HasPrefix(path, "interfaces."+a.WAN+"."):
		return WANAddress
	case strings.HasPrefix(path, "interfaces."+a.LAN+"."):
		return LANAddress
	case strings.HasPrefix(path, "defaults.upstream_dns"):
		return DNS
	}
	return LANAddress
}

// values are what the template needs; all of it is an address or a name that has been
// parsed, so that no answer can add to the policy.
type values struct {
	Schema           string
	LAN, WAN         string
	LANAddr, WANAddr netip.Prefix
	LANNet           netip.Prefix
	Hosts            netip.Prefix // those that the rules are about
	Gateway          netip.Addr
	DNS              []netip.Addr
	Host             netip.Addr // one of the LAN
	Web, Stranger    netip.Addr // of the internet
}

// Server returns the address and port of a server of the internet.
func (v *values) Server(port int) netip.AddrPort { return netip.AddrPortFrom(v.Web, uint16(port)) }

func (a *Answers) parse() (*values, error) {
	v := &values{Schema: Schema, LAN: a.LAN, WAN: a.WAN}
	for _, n := range []struct {
		q    Question
		name string
	}{{LAN, a.LAN}, {WAN, a.WAN}} {
		if !isName(n.name, string(n.q)) {
			return nil, &WrongError{n.q, fmt.Sprintf("%q is not a name of such an interface (want %s0 or another that begins with %[2]s, of letters, digits, _, . and -)", n.name, n.q)}
		}
	}
	var err error
	if v.LANAddr, err = prefix(LANAddress, a.LANAddress, "10.0.0.1/24"); err != nil {
		return nil, err
	}
	if v.WANAddr, err = prefix(WANAddress, a.WANAddress, "203.0.113.10/24"); err != nil {
		return nil, err
	}
	if v.Gateway, err = address(Gateway, a.Gateway); err != nil {
		return nil, err
	}
	if len(a.DNS) > maxDNS {
		return nil, &WrongError{DNS, fmt.Sprintf("%d name servers (want %d at most)", len(a.DNS), maxDNS)}
	}
	for _, s := range a.DNS {
		d, err := address(DNS, s)
		if err != nil {
			return nil, err
		}
		v.DNS = append(v.DNS, d)
	}
	v.LANNet = v.LANAddr.Masked()
	v.Hosts = netip.PrefixFrom(v.LANAddr.Addr(), max(v.LANAddr.Bits(), portBits))
	v.Host = neighbour(v.Hosts)
	v.Hosts = v.Hosts.Masked()
	v.Web, v.Stranger = outside(v, 80), outside(v, 66)
	return v, nil
}

// maxName is the largest length in bytes of an interface's name.
const maxName = 63

func isName(s, begin string) bool {
	return len(s) <= maxName && strings.HasPrefix(s, begin) && strings.IndexFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("_.-", r))
	}) < 0
}

func prefix(q Question, s, example string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(strings.TrimSpace(s))
	if err != nil || !p.Addr().Is4() {
		return p, &WrongError{q, fmt.Sprintf("%q is not an IPv4 address with the length of its network (want one as %s)", s, example)}
	}
	if p.Bits() < minBits {
		return p, &WrongError{q, fmt.Sprintf("a network of %v is larger than any (want a length of %d or more)", p, minBits)}
	}
	if !policy.IsHost(p.Addr()) {
		return p, &WrongError{q, fmt.Sprintf("%v cannot be a host's address (RFC 6890)", p.Addr())}
	}
	return p, nil
}

// portBits is the shortest length of a network whose hosts have an external port each.
const portBits = 17

// Part reports whether the rules are about a part of the LAN.
func (v *values) Part() bool { return v.Hosts != v.LANNet }

// minBits is the shortest length of an interface's network: nobody has more than 10/8.
const minBits = 8

func address(q Question, s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(strings.TrimSpace(s))
	if err != nil || !a.Is4() {
		return a, &WrongError{q, fmt.Sprintf("%q is not an IPv4 address (want one as 203.0.113.1)", s)}
	}
	if !policy.IsHost(a) {
		return a, &WrongError{q, fmt.Sprintf("%v cannot be a host's address (RFC 6890)", a)}
	}
	return a, nil
}

// neighbour returns a host of a network beside the firewall.
func neighbour(p netip.Prefix) netip.Addr {
	next := p.Addr().Next()
	if p.Contains(next) && (p.Bits() == 31 || next != policy.Broadcast(p)) {
		return next
	}
	return p.Addr().Prev()
}

// outside returns an address for documentation (RFC 5737) with the given last byte that
// is on neither network.
func outside(v *values, last byte) netip.Addr {
	for _, n := range [][3]byte{{198, 51, 100}, {203, 0, 113}, {192, 0, 2}} {
		a := netip.AddrFrom4([4]byte{n[0], n[1], n[2], last})
		if !v.LANNet.Contains(a) && !v.WANAddr.Masked().Contains(a) {
			return a
		}
	}
	return netip.AddrFrom4([4]byte{8, 8, 8, last})
}

// text is the policy. Its tests are about what its rules say; a person who changes one
// is asked to change the other.
var text = template.Must(template.New("rules.yaml").Parse(`# yaml-language-server: $schema={{.Schema}}
# The firewall's policy. thurward check validates it, thurward test runs its tests, and
# thurward build compiles it into an image.

interfaces:
  {{.LAN}}: { address: {{.LANAddr}} }
  {{.WAN}}: { address: {{.WANAddr}}, gateway: {{.Gateway}} }

defaults:
  default_action: deny # what no rule matches is dropped
{{- if .DNS}}
  upstream_dns: [{{range $i, $d := .DNS}}{{if $i}}, {{end}}{{$d}}{{end}}] # the firewall answers the LAN's questions, and asks these
{{- end}}

nat:
  snat: # hosts of the LAN share the firewall's address on the WAN
{{- if .Part}}
    # Of {{.LANNet}} these: more than its ports would be shared by all. More external addresses
    # (external_ip) make room for others.
{{- end}}
    - { out_interface: {{.WAN}}, source: {{.Hosts}}, masquerade: true }

rules: # the first that matches decides
{{- if .DNS}}
  - { id: allow-dns, name: "Names, from the firewall", action: accept, direction: egress, source: {{.Hosts}}, destination: {{.LANAddr.Addr}}, destination_port: 53, protocol: [udp, tcp] }
{{- else}}
  - { id: allow-dns, name: "Names", action: accept, direction: egress, source: {{.Hosts}}, destination_port: 53, protocol: [udp, tcp] }
{{- end}}
  - { id: allow-web, name: "Web", action: accept, direction: egress, source: {{.Hosts}}, destination_port: [80, 443], protocol: tcp }
  - { id: allow-time, name: "Time of day", action: accept, direction: egress, source: {{.Hosts}}, destination_port: 123, protocol: udp }
  - { id: allow-ping, name: "Ping", action: accept, direction: egress, source: {{.Hosts}}, protocol: icmp }
  - { id: allow-established, name: "Answers to all of these", action: accept, direction: ingress, state: established }

# What must hold, whoever edits the rules: no image is built when one fails.
tests:
  - { name: "the web", from: lan, proto: tcp, src: {{.Host}}, dst: "{{.Server 443}}", expect: accept, expect_rule: allow-web, expect_snat: {{.WANAddr.Addr}} }
{{- if .DNS}}
  - { name: "names", from: lan, proto: udp, src: {{.Host}}, dst: "{{.LANAddr.Addr}}:53", expect: accept, expect_rule: allow-dns, expect_snat: none }
  - { name: "other name servers", from: lan, proto: udp, src: {{.Host}}, dst: "{{.Server 53}}", expect: deny, expect_rule: default }
{{- else}}
  - { name: "names", from: lan, proto: udp, src: {{.Host}}, dst: "{{.Server 53}}", expect: accept, expect_rule: allow-dns }
{{- end}}
  - { name: "answers", from: wan, proto: tcp, src: "{{.Server 443}}", dst: "{{.Host}}:40000", state: established, expect: accept }
  - { name: "nothing else goes out", from: lan, proto: tcp, src: {{.Host}}, dst: "{{.Server 25}}", expect: deny, expect_rule: default }
  - { name: "nobody comes in", from: wan, proto: tcp, src: {{.Stranger}}, dst: "{{.Host}}:22", expect: deny, expect_rule: default }
  - { name: "nor to the firewall", from: wan, proto: tcp, src: {{.Stranger}}, dst: "{{.WANAddr.Addr}}:22", expect: deny, expect_rule: default }
`))
