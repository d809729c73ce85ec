package importer

import (
	"bytes"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/thurward/thurward/internal/host/policy"
	"github.com/thurward/thurward/internal/host/policy/compile"
	"github.com/thurward/thurward/internal/host/policy/explain"
)

var update = flag.Bool("update", false, "write what is made of the rule sets beside them")

var sides = Options{LAN: "lan", WAN: "wan"}

// fixtures are recorded outputs: of nft 1.0.6 -j list ruleset for the .nft files
// beside them, and of iptables-save, written by hand.
var fixtures = []struct {
	file       string
	read       func([]byte, Options) (*Result, error)
	o          Options
	permissive bool
}{
	{"office.json", NFT, Options{}, false},
	{"hard.json", NFT, sides, true},
	{"office.iptables", IPTables, Options{}, true},
}

func read(t testing.TB, file string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", file))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestImport compares with the policies beside the rule sets. They hold the
// list of what was not converted, too.
func TestImport(t *testing.T) {
	for _, f := range fixtures {
		f.o.File = f.file
		r, err := f.read(read(t, f.file), f.o)
		if err != nil {
			t.Errorf("%s: %v", f.file, err)
			continue
		}
		want := f.file + ".yaml"
		if *update {
			if err := os.WriteFile(filepath.Join("testdata", want), r.YAML, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if got := read(t, want); !bytes.Equal(got, r.YAML) {
			t.Errorf("%s: got\n%s", f.file, r.YAML)
		}
		if r.Permissive() != f.permissive {
			t.Errorf("%s: permissive %v", f.file, r.Permissive())
		}
		for _, n := range r.Notes {
			if n.Place == "" || n.Text == "" || n.Why == "" || n.Effect == "" {
				t.Errorf("%s: note %+v", f.file, n)
			}
		}
	}
}

// TestImportDecides asks the imported policies about packets whose fate under
// the original rules was worked out by hand.
func TestImportDecides(t *testing.T) {
	for _, c := range []struct {
		file, from, proto, src, dst, state, want string
	}{
		// office.nft: policy drop, answers, rules for the LAN with an exception.
		{"office.json", "lan", "tcp", "10.0.0.5:1", "192.0.2.1:443", "", "accept web-for-all"},
		{"office.json", "lan", "tcp", "10.0.0.66:1", "192.0.2.1:443", "", "deny default-deny"}, // returned before
		{"office.json", "lan", "tcp", "10.0.0.67:1", "192.0.2.1:8050", "", "accept web-for-all"},
		{"office.json", "lan", "udp", "10.0.0.20:1", "192.0.2.1:54", "", "deny default-deny"},
		{"office.json", "lan", "udp", "10.0.0.2:1", "198.51.100.1:54", "", "accept rule-3"},
		{"office.json", "lan", "udp", "10.0.0.2:1", "192.0.2.1:54", "", "deny default-deny"}, // daddr != 192.0.2.0/24
		{"office.json", "lan", "tcp", "10.0.0.200:1", "192.0.2.1:25", "", "reject rule-4"},
		{"office.json", "wan", "tcp", "192.0.2.1:1", "10.0.0.21:443", "established", "accept rule-1"},
		{"office.json", "wan", "udp", "192.0.2.1:5", "198.51.100.9:123", "", "drop rule-7"}, // for the firewall itself
		{"office.json", "lan", "tcp", "10.0.0.6:1", "192.0.2.1:2222", "", "accept rule-9"},
		{"office.json", "lan", "tcp", "10.0.0.6:1", "192.0.2.1:22", "", "deny default-deny"}, // 10.0.0.5 . 22 and 10.0.0.6 . 2222
		// office.iptables.
		{"office.iptables", "lan", "tcp", "192.168.1.5:1", "192.0.2.9:8000", "", "accept web-more"},
		{"office.iptables", "lan", "tcp", "192.168.1.66:1", "192.0.2.9:80", "", "deny rule-3"},
		{"office.iptables", "lan", "tcp", "192.168.1.205:1", "192.0.2.9:80", "", "reject rule-2"},
		{"office.iptables", "lan", "udp", "192.168.1.205:1", "10.1.1.1:53", "", "deny dns-of-the-firewall"},
		{"office.iptables", "lan", "udp", "192.168.1.205:1", "10.1.1.1:54", "", "deny rule-5"},
		{"office.iptables", "lan", "icmp", "192.168.1.5", "203.0.113.7", "", "deny rule-6"}, // after the goto comes the policy,
		{"office.iptables", "wan", "tcp", "203.0.113.7:9", "192.0.2.2:443", "", "accept port-forwards"},
		{"office.iptables", "wan", "tcp", "203.0.113.7:9", "192.0.2.2:2201", "", "deny default-deny"},
		{"office.iptables", "wan", "tcp", "198.51.100.7:9", "192.0.2.2:2201", "", "accept port-forwards-3"},
		// hard.nft: policy accept.
		{"hard.json", "wan", "tcp", "203.0.113.7:9", "198.18.0.9:80", "", "deny rule-6"},
		{"hard.json", "wan", "tcp", "192.0.2.7:9", "198.18.0.9:8081", "", "accept rule-14"},
		{"hard.json", "wan", "udp", "192.0.2.7:9", "198.18.0.9:4500", "", "accept rule-16"},
		{"hard.json", "lan", "tcp", "192.168.5.9:9", "192.0.2.7:9999", "", "accept rule-10"},
	} {
		for _, f := range fixtures {
			if f.file != c.file {
				continue
			}
			f.o.File = f.file
			r, err := f.read(read(t, f.file), f.o)
			if err != nil {
				t.Fatal(err)
			}
			p, ds := policy.Load("imported", r.YAML)
			if p == nil {
				t.Fatal(ds)
			}
			s, err := compile.Compile(p)
			if err != nil {
				t.Fatal(err)
			}
			flow, err := explain.ParseFlow(p,
				explain.FlowWords{From: c.from, Proto: c.proto, Src: c.src, Dst: c.dst, State: c.state})
			if err != nil {
				t.Fatal(err)
			}
			e := explain.Explain(p, s, flow)
			got := e.Verdict
			if e.Rule != nil {
				got += " " + e.Rule.ID
			}
			if got != c.want {
				t.Errorf("%s: %v: %s, want %s", c.file, flow, got, c.want)
			}
		}
	}
}

// TestImportLiveNFT has nft itself write the rule sets out, in a namespace of
// its own: what is made of them is what is made of the recorded output.
func TestImportLiveNFT(t *testing.T) {
	if _, err := exec.LookPath("nft"); err != nil {
		t.Skip("no nft (try: apt-get install nftables)")
	}
	if err := exec.Command("unshare", "-rn", "nft", "list", "ruleset").Run(); err != nil {
		t.Skipf("nft does not work in a network namespace here: %v", err)
	}
	for _, f := range fixtures[:2] {
		name := strings.TrimSuffix(f.file, ".json")
		out, err := exec.Command("unshare", "-rn", "sh", "-c",
			"nft -f testdata/"+name+".nft && nft -j list ruleset").Output()
		if err != nil {
			t.Fatal(err)
		}
		f.o.File = f.file
		r, err := NFT(out, f.o)
		if err != nil {
			t.Fatal(err)
		}
		rules := func(b []byte) string { _, after, _ := strings.Cut(string(b), "\ninterfaces:"); return after }
		if got, want := rules(r.YAML), rules(read(t, f.file+".yaml")); got != want {
			t.Errorf("%s: got\n%s", name, got)
		}
	}
}

// TestImportEffects: what leaving a rule out does is said, rule by rule: nothing
// where what comes below it does the same.
func TestImportEffects(t *testing.T) {
	const head = "*filter\n:FORWARD %s [0:0]\n:c - [0:0]\n"
	for _, c := range []struct {
		rule   string
		effect Effect // "": no note
		why    string
	}{
		{"-A FORWARD -p tcp --sport 20 -j ACCEPT", Stricter, "source port 20"},
		{"-A FORWARD -p tcp --sport 20 -j DROP", Permissive, "source port 20"},
		{"-A FORWARD -m set --match-set x src -j REJECT", Permissive, "-m set"},
		{"-A FORWARD -m set --match-set x src -j REJECT\n-A FORWARD -j DROP", Nothing, "-m set"},
		{"-A FORWARD -m time --timestart 09:00 -j ACCEPT", Stricter, "-m time"},
		{"-A FORWARD -m time --timestart 09:00 -j ACCEPT\n-A FORWARD -j ACCEPT", Nothing, "-m time"},
		{"-A FORWARD -f -j DROP", "", ""},
		{"-A FORWARD -p 47 -j ACCEPT", "", ""},
		{"-A FORWARD -p 47 -j DROP", "", ""},
		{"-A FORWARD -s 10.0.0.0/255.0.255.0 -j DROP", Permissive, "10.0.0.0/255.0.255.0"},
		{"-A FORWARD -s host.example -j ACCEPT", Stricter, "host.example"},
		{"-A FORWARD -p tcp --dport nosuch -j DROP", Permissive, "nosuch"},
		{"-A FORWARD -j QUEUE", Permissive, "QUEUE"},
		{"-A FORWARD -j nosuch", Permissive, "nosuch"},
		{"-A FORWARD -i wg0 -j ACCEPT", Permissive, "third interface"},
		{"-A FORWARD -m conntrack --ctstate INVALID -j DROP", "", ""},
		{"-A FORWARD -m conntrack --ctstate RELATED -j ACCEPT", "", ""},
		{"-A FORWARD -p icmp --icmp-type time-exceeded -j DROP", "", ""},
		{"-A FORWARD -m mark --mark 1 -j c\n-A c -j DROP", Permissive, "-m mark"},
		{"-A FORWARD -m mark --mark 1 -j c\n-A c -j ACCEPT", Stricter, "-m mark"},
		{"-A FORWARD -j ACCEPT \"", Permissive, "quote"},
		{"-I FORWARD -j ACCEPT", Permissive, "not understood"},
		{"-A nowhere -j DROP", Permissive, "chain is not there"},
		{"COMMIT\n*nat\n:POSTROUTING ACCEPT [0:0]\n-A POSTROUTING -o wan -d 198.51.100.1 -j MASQUERADE", Differs,
			"source only"},
		{"COMMIT\n*nat\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -i wan -d 192.0.2.2 -p 47 -j DNAT --to-destination 10.0.0.5", Nothing, "none of it"},
		{"COMMIT\n*nat\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -i wan -d 192.0.2.2 -j DNAT --to-destination 10.0.0.5", Stricter, "ping is for the firewall itself"},
		{"COMMIT\n*nat\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -i lan -p tcp --dport 80 -j REDIRECT --to-ports 3128",
			Stricter, "proxy"},
	} {
		policy := "ACCEPT"
		if strings.Contains(c.rule, "ACCEPT") && !strings.Contains(c.rule, ":0]") {
			policy = "DROP"
		}
		o := sides
		o.LANAddress = netip.MustParsePrefix("10.0.0.1/24")
		if strings.Contains(c.rule, "*nat") && !strings.Contains(c.rule, ":POSTROUTING") {
			c.rule += "\n:POSTROUTING ACCEPT [0:0]\n-A POSTROUTING -o wan -j MASQUERADE"
		}
		r, err := IPTables([]byte(fmt.Sprintf(head, policy)+c.rule+"\nCOMMIT\n"), o)
		if err != nil {
			t.Errorf("%s: %v", c.rule, err)
			continue
		}
		if c.effect == "" && len(r.Notes) > 0 ||
			c.effect != "" && (len(r.Notes) != 1 || r.Notes[0].Effect != c.effect ||
				!strings.Contains(r.Notes[0].Why, c.why)) {
			t.Errorf("%s: notes %v, want one with %q and %q", c.rule, r.Notes, c.why, c.effect)
		}
	}
}

func TestSpans(t *testing.T) {
	s := spans{{10, 20}, {15, 30}, {31, 40}, {50, 60}}.normal()
	if len(s) != 2 || s[0] != (span{10, 40}) || s[1] != (span{50, 60}) {
		t.Errorf("normal: %v", s)
	}
	if n := s.not(65535); len(n) != 3 || n[0] != (span{0, 9}) || n[1] != (span{41, 49}) || n[2] != (span{61, 65535}) {
		t.Errorf("not: %v", n)
	}
	if n := s.not(65535).not(65535); len(n) != 2 || n[0] != s[0] || n[1] != s[1] {
		t.Errorf("not not: %v", n)
	}
	full := spans{{0, ^uint32(0)}}
	if ps := full.prefixes(); len(ps) != 1 || ps[0] != netip.MustParsePrefix("0.0.0.0/0") ||
		len(full.not(^uint32(0))) != 0 {
		t.Errorf("%v", ps)
	}
	if ps := (spans{{0x0a000001, 0x0a000006}}).prefixes(); len(ps) != 4 {
		t.Errorf("%v", ps)
	}
	for _, c := range []struct {
		t     spans
		holds bool
		meets bool
	}{{spans{{10, 40}}, true, true}, {spans{{9, 40}}, false, true}, {spans{{50, 61}}, false, true}, {spans{{41, 49}},
		false, false},
		{spans{{12, 13}, {60, 60}}, true, true}, {spans{}, true, false}, {nil, false, true}} {
		if s.holds(c.t, 65535) != c.holds || s.meets(c.t) != c.meets || c.t.meets(s) != c.meets {
			t.Errorf("%v and %v: holds %v, meets %v", s, c.t, s.holds(c.t, 65535), s.meets(c.t))
		}
	}
	if a := s.and(spans{{35, 55}}); len(a) != 2 || a[0] != (span{35, 40}) || a[1] != (span{50, 55}) {
		t.Errorf("and: %v", a)
	}
}

// result checks what holds for every input: no panic, and either an error or a
// policy that loads.
func result(t *testing.T, r *Result, err error) {
	if err != nil {
		if strings.Contains(err.Error(), "not a valid policy") {
			t.Error(err)
		}
		return
	}
	if p, ds := policy.Load("imported", r.YAML); p == nil {
		t.Fatalf("%v\n%s", ds, r.YAML)
	}
}

// TestImportMangled: rule sets with parts changed, doubled and missing make an
// error or a valid policy.
func TestImportMangled(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	converted := 0
	for range 600 {
		f := fixtures[r.IntN(len(fixtures))]
		b := bytes.Clone(read(t, f.file))
		for range 1 + r.IntN(6) {
			i := r.IntN(len(b))
			j := min(len(b), i+r.IntN(40))
			switch r.IntN(4) {
			case 0:
				b[i] = byte(r.IntN(256))
			case 1:
				b = slices.Delete(b, i, j)
			case 2:
				b = slices.Insert(b, j, b[i:j]...)
			case 3:
				copy(b[r.IntN(len(b)):], b[i:j])
			}
		}
		res, err := f.read(b, Options{File: "mangled", LAN: "lan", WAN: "wan", Partial: true})
		result(t, res, err)
		if err == nil {
			converted++
		}
	}
	if converted < 50 {
		t.Errorf("only %d were converted", converted)
	}
}

// TestRepair: an entry that cannot be in a policy is left out with a note, unless it
// is a rule that denies.
func TestRepair(t *testing.T) {
	for _, c := range []struct {
		path string
		ok   bool
	}{{"nat.dnat[0].to", true}, {"nat.snat[0]", true}, {"rules[0].id", true}, {"rules[1]", false}, {"nat.dnat[7]",
		false}, {"interfaces.lan0", false}} {
		v := &converter{notes: map[noteKey]int{}, seen: map[*rule]bool{},
			dnat: []outDNAT{{rule: &rule{},
				to: netip.MustParseAddr("10.0.0.5")}}, snat: []outSNAT{{}}, rules: []outRule{{action: "accept"}, {action: "deny"}}}
		if ok := v.repair(policy.Diagnostic{Path: c.path, Message: "so"}); ok != c.ok ||
			ok != (len(v.res.Notes) == 1) || ok != (len(v.dnat)+len(v.snat)+len(v.rules) == 3) {
			t.Errorf("%s: %v, %v", c.path, ok, v.res.Notes)
		}
	}
}
