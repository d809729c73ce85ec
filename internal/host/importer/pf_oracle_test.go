package importer

import (
	"bytes"
	"cmp"
	"encoding/xml"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/thurward/thurward/internal/host/policy"
	"github.com/thurward/thurward/internal/host/policy/compile"
	reason "github.com/thurward/thurward/internal/shared/verdict"
)

// A pfNode is an element of config.xml. What follows reads it without a line of the importer's: one packet at
// a time goes through the rules in the order in which OPNsense writes them for pf (its FilterRule, ForwardRule,
// Plugin and filter.inc of 2026-08 say which): redirections by sequence, then the filter by priority, where a
// quick rule ends it and otherwise the last that matched counts.
type pfNode struct {
	XMLName xml.Name
	Text    string   `xml:",chardata"`
	Nodes   []pfNode `xml:",any"`
}

func (n *pfNode) at(path ...string) *pfNode {
	for _, p := range path {
		i := slices.IndexFunc(n.Nodes, func(c pfNode) bool { return c.XMLName.Local == p })
		if i < 0 {
			return &pfNode{}
		}
		n = &n.Nodes[i]
	}
	return n
}

func (n *pfNode) is(path ...string) string { return strings.TrimSpace(n.at(path...).Text) }

func (n *pfNode) each(name string) (out []*pfNode) {
	for i := range n.Nodes {
		if n.Nodes[i].XMLName.Local == name {
			out = append(out, &n.Nodes[i])
		}
	}
	return out
}

// pfWorld is a configuration, to be asked about packets.
type pfWorld struct {
	root  pfNode
	lines []pfLine  // of the filter
	rdr   []*pfNode // forwards
}

func (w *pfWorld) rules() *pfNode { return w.root.at("OPNsense", "Firewall", "Filter") }

func (w *pfWorld) net(name string) (p netip.Prefix) {
	i := w.root.at("interfaces", name)
	p, _ = netip.ParsePrefix(i.is("ipaddr") + "/" + i.is("subnet"))
	return p
}

func (w *pfWorld) own(a netip.Addr) bool {
	for _, i := range w.root.at("interfaces").Nodes {
		if i.is("ipaddr") == a.String() {
			return true
		}
	}
	return slices.ContainsFunc(w.root.at("virtualip").each("vip"), func(v *pfNode) bool { return v.is("subnet") == a.String() })
}

// holds reports whether an address is what words name: one of several.
func (w *pfWorld) holds(words string, a netip.Addr) bool {
	for _, word := range strings.FieldsFunc(words, func(r rune) bool { return r == ',' || r == '\n' || r == ' ' }) {
		lo, hi, isRange := strings.Cut(word, "-")
		first, err1 := netip.ParseAddr(lo)
		last, err2 := netip.ParseAddr(hi)
		p, err3 := netip.ParsePrefix(word)
		host, isHost := strings.CutSuffix(word, "ip")
		switch {
		case word == "any", word == "(self)" && w.own(a), err1 == nil && !isRange && first == a, err3 == nil && p.Contains(a),
			isRange && err1 == nil && err2 == nil && !a.Less(first) && !last.Less(a),
			w.net(word).IsValid() && w.net(word).Contains(a), isHost && w.net(host).IsValid() && w.net(host).Addr() == a:
			return true
		}
		for _, al := range w.root.at("OPNsense", "Firewall", "Alias", "aliases").each("alias") {
			if al.is("name") == word && al.is("type") != "port" && w.holds(al.is("content"), a) {
				return true
			}
		}
	}
	return false
}

var pfServices = map[string]string{"https": "443", "http": "80", "ssh": "22"}

// port reports whether a port is what words name.
func (w *pfWorld) port(words string, n int) bool {
	for _, word := range strings.Fields(strings.ReplaceAll(words, ",", " ")) {
		if s := pfServices[word]; s != "" {
			word = s
		}
		lo, hi, isRange := strings.Cut(strings.ReplaceAll(word, ":", "-"), "-")
		a, err := strconv.Atoi(lo)
		b := a
		if isRange {
			b, _ = strconv.Atoi(hi)
		}
		if err == nil && a <= n && n <= b {
			return true
		}
		for _, al := range w.root.at("OPNsense", "Firewall", "Alias", "aliases").each("alias") {
			if al.is("name") == word && al.is("type") == "port" && w.port(al.is("content"), n) {
				return true
			}
		}
	}
	return false
}

// A pfLine is a rule in the form that both kinds have here.
type pfLine struct {
	kind, ifs, proto, src, dst, sport, dport, direction string
	notSrc, notDst, notIf, quick                        bool
	prio, seq                                           int
}

// on reports whether an interface is one of those that a rule names.
func (w *pfWorld) on(l *pfLine, dev string) bool {
	if l.ifs == "" {
		return true
	}
	hit := false
	for _, n := range strings.Split(l.ifs, ",") {
		hit = hit || n == dev
		for _, g := range w.root.at("ifgroups").each("ifgroupentry") {
			hit = hit || g.is("ifname") == n && slices.Contains(strings.Split(g.is("members"), ","), dev)
		}
	}
	return hit != l.notIf
}

func (w *pfWorld) matches(l *pfLine, k *oPacket, dev string) bool {
	ported := k.proto != "icmp" && strings.Contains("tcp/udp", l.proto) && l.proto != ""
	return w.on(l, dev) && (l.proto == "" || l.proto == "any" || slices.Contains(strings.Split(l.proto, "/"), k.proto)) &&
		w.holds(cmp.Or(l.src, "any"), k.src) != l.notSrc && w.holds(cmp.Or(l.dst, "any"), k.dst) != l.notDst &&
		(!ported || l.sport == "" || w.port(l.sport, k.sport)) && (!ported || l.dport == "" || w.port(l.dport, k.dport))
}

func yes(s string) bool { return s != "" && s != "0" }

// old reads the ends of a rule of the older form.
func old(e *pfNode) pfLine {
	l := pfLine{kind: e.is("type"), ifs: e.is("interface"), proto: strings.ToLower(e.is("protocol")), direction: cmp.Or(e.is("direction"), "in")}
	for _, end := range []struct {
		name       string
		what, port *string
		not        *bool
	}{{"source", &l.src, &l.sport, &l.notSrc}, {"destination", &l.dst, &l.dport, &l.notDst}} {
		n := e.at(end.name)
		*end.what, *end.port, *end.not = cmp.Or(n.is("network"), n.is("address")), n.is("port"), yes(n.is("not"))
	}
	return l
}

// filter returns all rules of the filter in the order in which pf has them.
func (w *pfWorld) filter() (ls []pfLine) {
	group := func(ifs string) int {
		for _, g := range w.root.at("ifgroups").each("ifgroupentry") {
			if g.is("ifname") == ifs {
				n, _ := strconv.Atoi(g.is("sequence"))
				return 300_000 + n
			}
		}
		return 400_000
	}
	for _, i := range w.root.at("interfaces").Nodes {
		if yes(i.is("blockpriv")) {
			ls = append(ls, pfLine{kind: "block", ifs: i.XMLName.Local, quick: true, direction: "in", prio: 5,
				src: "10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,127.0.0.0/8,100.64.0.0/10,169.254.0.0/16"})
		}
	}
	for _, e := range w.rules().at("rules").each("rule") {
		if !yes(e.is("enabled")) || e.is("ipprotocol") == "inet6" {
			continue
		}
		l := pfLine{kind: e.is("action"), ifs: e.is("interface"), proto: strings.ToLower(e.is("protocol")), src: e.is("source_net"),
			dst: e.is("destination_net"), sport: e.is("source_port"), dport: e.is("destination_port"), notSrc: yes(e.is("source_not")),
			notDst: yes(e.is("destination_not")), notIf: yes(e.is("interfacenot")), quick: yes(e.is("quick")), direction: e.is("direction")}
		l.seq, _ = strconv.Atoi(e.is("sequence"))
		if l.prio = group(l.ifs); l.ifs == "" || strings.Contains(l.ifs, ",") || l.notIf {
			l.prio = 200_000
		}
		ls = append(ls, l)
	}
	for i, e := range w.root.at("filter").each("rule") {
		if yes(e.is("disabled")) || e.is("ipprotocol") == "inet6" {
			continue
		}
		l := old(e)
		l.seq, l.prio, l.quick = 10_000_000+i, group(l.ifs), true
		if yes(e.is("floating")) {
			l.prio, l.quick = 200_000, yes(e.is("quick"))
		}
		ls = append(ls, l)
	}
	for _, e := range w.forwards() {
		if e.is("pass") == "rule" && !yes(e.is("nordr")) {
			l := old(e)
			to, _ := w.led(e, &l, 0)
			l.kind, l.quick, l.prio, l.notDst = "pass", true, 500_000, false
			l.dst, l.dport = to.String(), w.ledPorts(e)
			ls = append(ls, l)
		}
	}
	slices.SortStableFunc(ls, func(a, b pfLine) int { return cmp.Or(a.prio-b.prio, a.seq-b.seq) })
	return ls
}

func (w *pfWorld) forwards() []*pfNode {
	es := w.root.at("nat").each("rule")
	es = slices.DeleteFunc(es, func(e *pfNode) bool { return yes(e.is("disabled")) })
	slices.SortStableFunc(es, func(a, b *pfNode) int {
		x, _ := strconv.Atoi(a.is("sequence"))
		y, _ := strconv.Atoi(b.is("sequence"))
		return x - y
	})
	return es
}

// led returns where a forward leads a port.
func (w *pfWorld) led(e *pfNode, l *pfLine, port int) (netip.Addr, int) {
	to, err := netip.ParseAddr(e.is("target"))
	for _, al := range w.root.at("OPNsense", "Firewall", "Alias", "aliases").each("alias") {
		if err != nil && al.is("name") == e.is("target") {
			to, _ = netip.ParseAddr(al.is("content"))
		}
	}
	local := e.is("local-port")
	if local == "" || local == l.dport {
		return to, port
	}
	n, _ := strconv.Atoi(local)
	lo, _, isRange := strings.Cut(strings.ReplaceAll(l.dport, ":", "-"), "-")
	if first, _ := strconv.Atoi(lo); isRange {
		n += port - first
	}
	return to, n
}

// ledPorts returns the ports of a server to which a forward leads.
func (w *pfWorld) ledPorts(e *pfNode) string {
	local, dport := e.is("local-port"), strings.ReplaceAll(e.at("destination").is("port"), ":", "-")
	lo, hi, isRange := strings.Cut(dport, "-")
	n, err := strconv.Atoi(local)
	if !isRange || err != nil {
		return cmp.Or(local, dport)
	}
	a, _ := strconv.Atoi(lo)
	b, _ := strconv.Atoi(hi)
	return fmt.Sprintf("%d-%d", n, n+b-a)
}

// first returns what becomes of the first packet of a connection.
func (w *pfWorld) first(k oPacket) (accepted bool, seen oPacket) {
	dev := map[string]string{"eth1": "lan", "eth0": "wan"}[k.in]
	done, passes := false, false
	if w.rdr == nil {
		w.rdr = w.forwards()
	}
	for _, e := range w.rdr {
		l := old(e)
		here := w.matches(&l, &k, dev)
		if v := e.is("natreflection"); !here && dev == "lan" && (v == "purenat" || v == "enable" || v == "" && !yes(w.root.is("system", "disablenatreflection"))) {
			l.ifs = ""
			here = w.matches(&l, &k, dev)
		}
		if !here {
			continue
		}
		done = true
		if !yes(e.is("nordr")) {
			k.dst, k.dport = w.led(e, &l, k.dport)
			passes = e.is("pass") == "pass"
		}
		break
	}
	for _, e := range w.rules().at("onetoone").each("rule") {
		if !done && yes(e.is("enabled")) && dev == "wan" && e.is("interface") == "wan" && k.dst.String() == e.is("external") {
			k.dst, _ = netip.ParseAddr(e.is("source_net"))
			done = true
		}
	}
	if w.own(k.dst) {
		return false, k
	}
	if passes {
		return true, k
	}
	verdict := "block"
	if w.lines == nil {
		w.lines = w.filter()
	}
	for _, l := range w.lines {
		if l.direction != "out" && w.matches(&l, &k, dev) {
			if verdict = l.kind; l.quick {
				break
			}
		}
	}
	return verdict == "pass", k
}

var (
	pfAddr = regexp.MustCompile(`\b\d+\.\d+\.\d+\.\d+`)
	pfPort = regexp.MustCompile(`>?\b(\d{1,5})\b<?`)
)

// TestOPNsenseFiles imports the stored configurations and compares what becomes of packets made of all that
// they name with what pf would do, as pfWorld works it out: the same, or a note about the packet says so.
func TestOPNsenseFiles(t *testing.T) {
	files, err := filepath.Glob("testdata/opnsense/*/config.xml")
	if err != nil || len(files) < 3 {
		t.Fatalf("%d configurations, %v", len(files), err)
	}
	for _, f := range files {
		name := filepath.Base(filepath.Dir(f))
		t.Run(name, func(t *testing.T) {
			src, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			w := &pfWorld{}
			if err := xml.NewDecoder(bytes.NewReader(src)).Decode(&w.root); err != nil {
				t.Fatal(err)
			}
			o := Options{File: "config.xml", Partial: true}
			if !w.net("wan").IsValid() { // by DHCP: the importer takes what it is told
				o.WANAddress, o.Gateway = netip.MustParsePrefix("203.0.113.10/24"), netip.MustParseAddr("203.0.113.1")
			}
			m := &imported{}
			if m.res, err = OPNsense(src, o); err != nil {
				t.Fatal(err)
			}
			var ds []policy.Diagnostic
			if m.p, ds = policy.Load("imported", m.res.YAML); m.p == nil {
				t.Fatal(ds)
			}
			if m.rs, err = compile.Compile(m.p); err != nil {
				t.Fatal(err)
			}
			same, announced, passed, translated := 0, 0, 0, 0
			for _, k := range pfPackets(w, src) {
				accepted, seen := w.first(k)
				if accepted {
					passed++
					if seen.dst != k.dst {
						translated++
					}
				}
				wrong := m.asPF(w, k, accepted, seen)
				switch {
				case wrong == "":
					same++
				case wrong == "announced":
					announced++
				default:
					t.Errorf("%s: %s %v:%d to %v:%d from %s: pf %v to %v:%d\n%s", wrong, k.proto, k.src, k.sport, k.dst, k.dport, k.in, accepted,
						seen.dst, seen.dport, m.res.YAML)
					return
				}
			}
			t.Logf("%d packets the same, %d announced; pf passes %d, translates %d", same, announced, passed, translated)
			if same < 700 || name == "home-26" && (passed < 300 || translated < 100) {
				t.Errorf("too few packets were compared")
			}
		})
	}
}

// pfPackets makes packets of all addresses and ports in a file and those beside them.
func pfPackets(w *pfWorld, src []byte) (ks []oPacket) {
	text := string(src)
	var addrs []netip.Addr
	ports := []int{22, 80, 443, 40000}
	add := func(a netip.Addr) {
		if a.Is4() && !a.IsMulticast() && !a.IsLoopback() && a.As4()[0] != 0 && !slices.Contains(addrs, a) {
			addrs = append(addrs, a)
		}
	}
	for _, m := range pfAddr.FindAllString(text, -1) {
		if a, err := netip.ParseAddr(m); err == nil {
			add(a.Prev())
			add(a)
			add(a.Next())
		}
	}
	add(netip.MustParseAddr("192.0.2.77"))
	add(netip.MustParseAddr("198.51.100.77"))
	for i := range 4 {
		h := w.net("lan").Addr()
		for range 40 + i {
			h = h.Next()
		}
		add(h)
	}
	for _, m := range regexp.MustCompile(`(?s)port>(.*?)</|<content>(.*?)</`).FindAllStringSubmatch(text, -1) {
		for _, n := range pfPort.FindAllStringSubmatch(m[1]+" "+m[2], -1) {
			if p, _ := strconv.Atoi(n[1]); p > 300 || p == 25 || p == 53 || p == 80 {
				for _, q := range []int{p - 1, p, p + 1} {
					if q < 65536 && !slices.Contains(ports, q) {
						ports = append(ports, q)
					}
				}
			}
		}
	}
	lan := w.net("lan")
	for _, src := range addrs {
		for _, dst := range addrs {
			in := "eth0"
			if lan.Contains(src) {
				in = "eth1"
			}
			// The LAN's own network is behind one interface; the WAN sends to the firewall and to the LAN.
			if src == dst || w.own(src) || in == "eth1" && lan.Contains(dst) || in == "eth0" && !w.own(dst) && !lan.Contains(dst) {
				continue
			}
			ks = append(ks, oPacket{in: in, src: src, dst: dst, proto: "icmp", icmp: 8, state: "new"})
			for _, p := range ports {
				if p == 53 && in == "eth1" && w.own(dst) {
					continue
				}
				for _, proto := range []string{"tcp", "udp"} {
					ks = append(ks, oPacket{in: in, src: src, dst: dst, sport: 40000 + len(ks)%20000, dport: p, proto: proto, state: "new"})
				}
			}
		}
	}
	rand.New(rand.NewPCG(1, 26)).Shuffle(len(ks), func(i, j int) { ks[i], ks[j] = ks[j], ks[i] })
	slices.SortStableFunc(ks, func(a, b oPacket) int { // what may be translated first
		in := func(k *oPacket) int {
			return len(k.in) + map[bool]int{true: 0, false: 1}[k.in == "eth0" && w.own(k.dst)]
		}
		return in(&a) - in(&b)
	})
	return ks[:min(len(ks), 12_000)]
}

// asPF compares, and returns what is wrong, or "announced".
func (m *imported) asPF(w *pfWorld, k oPacket, accepted bool, seen oPacket) string {
	got := m.decide(&k)
	switch {
	case w.own(seen.dst): // pf may answer; thurward has ping only
		if got.Accept && !got.Local {
			return "it is forwarded"
		}
		return ""
	case got.Accept && (!accepted || got.Local):
		if !m.announced(Permissive, &k, &seen) {
			return "more permissive"
		}
		return "announced"
	case accepted && !got.Accept:
		if m.hidden(&k) || got.Reason == reason.Martian || got.Reason == reason.HairpinUnsupported {
			return ""
		}
		if !m.announced(Stricter, &k, &seen) {
			return "stricter (" + got.Reason.String() + ")"
		}
		return "announced"
	case accepted && (got.Seen.Dst.Addr() != seen.dst || k.proto != "icmp" && int(got.Seen.Dst.Port()) != seen.dport):
		if !m.announced(Differs, &k, &seen) {
			return fmt.Sprintf("elsewhere (%v)", got.Seen.Dst)
		}
		return "announced"
	}
	return ""
}
