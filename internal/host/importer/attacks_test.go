package importer

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/thurward/thurward/internal/host/policy"
	"github.com/thurward/thurward/internal/host/policy/compile"
	"github.com/thurward/thurward/internal/host/policy/explain"
)

// An ask is a packet and what the imported policy must do with it.
type ask struct{ from, proto, src, dst, state, want string } // want: accept, or not

// An about is a packet that a note with an effect and a reason is about.
type about struct {
	effect Effect
	why    string
	packet Packet
}

// An attack is a rule set that an importer can get wrong, and packets that show it.
type attack struct {
	name  string
	rules string // of iptables-save
	o     Options
	asks  []ask
	notes []string // parts of notes, each with its effect in front: "stricter: proxy"
	about []about  // packets that notes are about
	not   []string // what no note may say
	yaml  []string // parts of the policy
}

const (
	masquerade = "-A POSTROUTING -s 10.0.0.0/24 -o eth0 -j MASQUERADE\n"
	answers    = "-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n"
)

// tables makes a rule set of the rules of two tables.
func tables(nat, filter string, more ...string) string {
	chains := func(rules string) (s string) {
		for _, l := range strings.Split(rules, "\n") {
			f := strings.Fields(l)
			if len(f) > 1 && hooks[f[1]] == "" && !strings.Contains(s, ":"+f[1]+" ") {
				s += ":" + f[1] + " - [0:0]\n"
			}
		}
		return s
	}
	return strings.Join(more, "") +
		"*nat\n:PREROUTING ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:POSTROUTING ACCEPT [0:0]\n" + chains(nat) + nat +
		"COMMIT\n*filter\n:INPUT DROP [0:0]\n:FORWARD DROP [0:0]\n:OUTPUT ACCEPT [0:0]\n" + chains(filter) + filter +
		"COMMIT\n"
}

var router = Options{LAN: "eth1", WAN: "eth0", LANAddress: netip.MustParsePrefix("10.0.0.1/24"),
	WANAddress: netip.MustParsePrefix("203.0.113.10/24")}

var attacks = []attack{
	{
		name: "ct status dnat accept opens no direct access",
		rules: tables("-A PREROUTING -i eth0 -p tcp --dport 8080 -j DNAT --to-destination 10.0.0.5:80\n",
			answers+"-A FORWARD -m conntrack --ctstate DNAT -j ACCEPT\n"),
		o: router,
		asks: []ask{
			{"wan", "tcp", "198.51.100.7:9", "10.0.0.5:80", "", "not"},
			{"wan", "tcp", "198.51.100.7:9", "10.0.0.6:80", "", "not"},
		},
		notes: []string{"stricter: whether destination NAT has translated"},
	},
	{
		name: "and with source translation lets the forward pass",
		rules: tables("-A PREROUTING -i eth0 -p tcp --dport 8080 -j DNAT --to-destination 10.0.0.5:80\n"+masquerade,
			answers+"-A FORWARD -m conntrack --ctstate DNAT -j ACCEPT\n"),
		o: router,
		asks: []ask{
			{"wan", "tcp", "198.51.100.7:9", "10.0.0.5:80", "", "not"},
			{"wan", "tcp", "198.51.100.7:9", "203.0.113.10:8080", "", "accept"},
			{"wan", "tcp", "198.51.100.7:9", "203.0.113.10:80", "", "not"},
		},
	},
	{
		name: "a third leg",
		rules: tables(masquerade,
			answers+"-A FORWARD -i eth1 -o eth2 -j REJECT\n-A FORWARD -i eth1 -o eth0 -j ACCEPT\n"),
		o:     router,
		notes: []string{"MORE PERMISSIVE: eth2 is a third interface"},
	},
	{
		name: "a third leg whose networks are known",
		rules: tables(masquerade,
			answers+"-A FORWARD -i eth1 -o eth2 -j REJECT\n-A FORWARD -i eth1 -o eth0 -j ACCEPT\n"),
		o: with(router, func(o *Options) { o.Others = map[string][]netip.Prefix{"eth2": {netip.MustParsePrefix("10.0.2.0/24")}} }),
		asks: []ask{
			{"lan", "tcp", "10.0.0.5:9", "10.0.2.5:80", "", "not"},
			{"lan", "tcp", "10.0.0.5:9", "10.0.3.5:80", "", "accept"},
		},
		notes: []string{"stricter: eth2 is a third interface"},
	},
	{
		name: "exceptions before a DNAT",
		rules: tables("-A PREROUTING -i eth0 -s 198.51.100.7 -j ACCEPT\n-A PREROUTING -i eth0 -p tcp --dport 81 -j RETURN\n-A PREROUTING -i eth0 -p tcp --dport 80:90 -j DNAT --to-destination 10.0.0.5\n"+masquerade,
			answers+"-A FORWARD -i eth0 -d 10.0.0.5 -j ACCEPT\n"),
		o: router,
		asks: []ask{
			{"wan", "tcp", "198.51.100.7:9", "203.0.113.10:80", "", "not"},
			{"wan", "tcp", "198.51.100.8:9", "203.0.113.10:80", "", "accept"},
			{"wan", "tcp", "198.51.100.8:9", "203.0.113.10:81", "", "not"},
			{"wan", "tcp", "198.51.100.8:9", "203.0.113.10:90", "", "accept"},
		},
	},
	{
		name: "a DNAT without interface is no hairpin where the filter denies it",
		rules: tables("-A PREROUTING -d 203.0.113.10 -p tcp --dport 80 -j DNAT --to-destination 10.0.0.5\n"+masquerade,
			answers+"-A FORWARD -i eth0 -d 10.0.0.5 -j ACCEPT\n-A FORWARD -i eth1 -o eth0 -j ACCEPT\n"),
		o: router,
		asks: []ask{
			{"lan", "tcp", "10.0.0.7:9", "203.0.113.10:80", "", "not"},
			{"wan", "tcp", "198.51.100.7:9", "203.0.113.10:80", "", "accept"},
		},
	},
	{
		name: "and one where it accepts it",
		rules: tables("-A PREROUTING -d 203.0.113.10 -p tcp --dport 80 -j DNAT --to-destination 10.0.0.5\n"+masquerade,
			answers+"-A FORWARD -s 10.0.0.7 -j DROP\n-A FORWARD -d 10.0.0.5 -j ACCEPT\n"),
		o: router,
		asks: []ask{
			{"lan", "tcp", "10.0.0.7:9", "203.0.113.10:80", "", "not"},
			{"lan", "tcp", "10.0.0.8:9", "203.0.113.10:80", "", "accept"},
			{"lan", "tcp", "10.0.0.8:9", "198.51.100.7:80", "", "not"},
		},
	},
	{
		name: "a redirect to a proxy",
		rules: tables("-A PREROUTING -i eth1 -s 10.0.0.9 -p tcp --dport 80 -j ACCEPT\n-A PREROUTING -i eth1 -p tcp --dport 80 -j REDIRECT --to-ports 3128\n"+masquerade,
			answers+"-A FORWARD -i eth1 -j ACCEPT\n"),
		o: router,
		asks: []ask{
			{"lan", "tcp", "10.0.0.7:9", "198.51.100.7:80", "", "not"},
			{"lan", "tcp", "10.0.0.9:9", "198.51.100.7:80", "", "accept"},
			{"lan", "tcp", "10.0.0.7:9", "198.51.100.7:81", "", "accept"},
		},
		notes: []string{"stricter: proxy"},
	},
	{
		name: "nothing is refused for what changes nothing",
		rules: tables("-A PREROUTING -i eth0 -p tcp --dport 80 -j DNAT --to-destination 10.0.0.5\n-A OUTPUT -d 203.0.113.10 -p tcp --dport 80 -j DNAT --to-destination 10.0.0.5\n"+masquerade,
			"-A FORWARD -p tcp -m tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu\n-A FORWARD -p tcp -m tcp ! --tcp-flags FIN,SYN,RST,ACK SYN -m conntrack --ctstate NEW -j DROP\n"+
				"-A FORWARD -p tcp -m tcp --tcp-flags FIN,SYN,RST,PSH,ACK,URG NONE -j DROP\n-A FORWARD -m conntrack --ctstate INVALID -j DROP\n-A FORWARD -m pkttype --pkt-type broadcast -j DROP\n"+
				answers+"-A FORWARD -i eth1 -o eth0 -j ACCEPT\n-A FORWARD -i eth0 -d 10.0.0.5 -j ACCEPT\n",
			"*raw\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -p tcp --dport 21 -j CT --helper ftp\n-A PREROUTING -m rpfilter --invert -j DROP\n-A PREROUTING -i eth0 -s 192.168.0.0/16 -j DROP\nCOMMIT\n",
			"*mangle\n:FORWARD ACCEPT [0:0]\n:POSTROUTING ACCEPT [0:0]\n-A FORWARD -p tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu\n-A POSTROUTING -o eth1 -p udp --dport 68 -j CHECKSUM --checksum-fill\nCOMMIT\n"),
		o: router,
		asks: []ask{
			{"lan", "tcp", "10.0.0.7:9", "198.51.100.7:80", "", "accept"},
			{"wan", "tcp", "198.51.100.7:9", "203.0.113.10:80", "", "accept"},
			{"wan", "tcp", "192.168.3.3:9", "203.0.113.10:80", "", "not"},
		},
		notes: []string{"stricter: connections that others announce (ftp)"},
		not:   []string{"MORE PERMISSIVE"},
	},
	{
		name: "goto",
		rules: tables(masquerade,
			answers+"-A FORWARD -i eth1 -g zone\n-A FORWARD -p tcp --dport 25 -j ACCEPT\n-A FORWARD -j REJECT\n"+
				"-A zone -p tcp --dport 80 -j ACCEPT\n-A zone -p tcp --dport 22 -j RETURN\n-A zone -p tcp --dport 23 -j DROP\n"),
		o: router,
		asks: []ask{
			{"lan", "tcp", "10.0.0.7:9", "198.51.100.7:80", "", "accept"},
			{"lan", "tcp", "10.0.0.7:9", "198.51.100.7:22", "", "not"},
			{"lan", "tcp", "10.0.0.7:9", "198.51.100.7:25", "", "not"}, // after the goto comes the policy
			{"wan", "tcp", "198.51.100.7:9", "10.0.0.7:25", "", "not"},
		},
		not: []string{"MORE PERMISSIVE"},
	},
	{
		name:  "sources wider than the LAN, two maps with one key, a server in the DMZ",
		rules: tables("-A PREROUTING -i eth0 -p tcp --dport 80 -j DNAT --to-destination 10.0.0.5\n-A PREROUTING -i eth0 -p tcp --dport 80 -j DNAT --to-destination 10.0.0.6\n-A PREROUTING -i eth0 -p tcp --dport 25 -j DNAT --to-destination 10.7.0.6\n-A POSTROUTING -s 10.0.0.0/8 -o eth0 -j MASQUERADE\n", answers+"-A FORWARD -i eth0 -j ACCEPT\n"),
		o:     router,
		asks: []ask{
			{"wan", "tcp", "198.51.100.7:9", "203.0.113.10:80", "", "accept"},
			{"wan", "tcp", "198.51.100.7:9", "203.0.113.10:25", "", "not"},
		},
		notes: []string{"stricter: servers elsewhere, as in a DMZ", "no effect: entries before it take all of it"},
		yaml:  []string{"to: '10.0.0.5:80'"},
	},
	{
		name: "DNS of the LAN to the router",
		rules: tables(masquerade,
			answers+"-A INPUT -i eth1 -p udp --dport 53 -j ACCEPT\n-A INPUT -p icmp --icmp-type 8 -j ACCEPT\n-A FORWARD -p udp --dport 53 -j REJECT\n-A FORWARD -i eth1 -j ACCEPT\n"),
		o: with(router, func(o *Options) { o.DNS = []netip.Addr{netip.MustParseAddr("9.9.9.9")} }),
		asks: []ask{
			{"lan", "udp", "10.0.0.7:9", "10.0.0.1:53", "", "accept"},
			{"lan", "tcp", "10.0.0.7:9", "10.0.0.1:53", "", "not"},
			{"lan", "udp", "10.0.0.7:9", "198.51.100.7:53", "", "not"},
			{"lan", "icmp", "10.0.0.7", "10.0.0.1", "", "accept"},
			{"wan", "icmp", "198.51.100.7", "203.0.113.10", "", "accept"},
		},
		yaml: []string{"address: 9.9.9.9"},
	},
	{
		name: "intercepted DNS meets the rules about the router",
		rules: tables("-A PREROUTING -i eth1 -p udp --dport 53 -j REDIRECT --to-ports 53\n"+masquerade,
			answers+"-A INPUT -i eth1 -p udp --dport 53 -j ACCEPT\n-A FORWARD -p udp --dport 53 -j REJECT\n"),
		o:    router,
		asks: []ask{{"lan", "udp", "10.0.0.7:9", "198.51.100.7:53", "", "accept"}},
		yaml: []string{"intercept: true"},
	},
	{
		name:  "a forward of everything: ping is not",
		rules: tables("-A PREROUTING -d 203.0.113.11 -i eth0 -j DNAT --to-destination 10.0.0.5\n-A POSTROUTING -s 10.0.0.5 -o eth0 -j SNAT --to-source 203.0.113.11\n"+masquerade, answers+"-A INPUT -j ACCEPT\n-A FORWARD -i eth0 -j ACCEPT\n"),
		o:     router,
		asks: []ask{
			{"wan", "tcp", "198.51.100.7:9", "203.0.113.11:1234", "", "accept"},
			{"wan", "icmp", "198.51.100.7", "203.0.113.11", "", "not"},
			{"wan", "icmp", "198.51.100.7", "203.0.113.10", "", "accept"},
		},
		notes: []string{"stricter: ping is for the firewall itself"},
		yaml:  []string{"external_ip: 203.0.113.11"},
	},
	{
		name:  "a published port behind addrtype and RETURN",
		rules: tables("-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER\n-A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER\n-A POSTROUTING -s 10.0.0.0/24 ! -o eth1 -j MASQUERADE\n-A DOCKER -i eth1 -j RETURN\n-A DOCKER ! -i eth1 -p tcp --dport 8080 -j DNAT --to-destination 10.0.0.5:80\n", answers+"-A FORWARD -i eth0 -d 10.0.0.5 -p tcp --dport 80 -j ACCEPT\n"),
		o:     router,
		asks: []ask{
			{"wan", "tcp", "198.51.100.7:9", "203.0.113.10:8080", "", "accept"},
			{"lan", "tcp", "10.0.0.7:9", "203.0.113.10:8080", "", "not"},
		},
		not: []string{"MORE PERMISSIVE"},
	},
	{
		name:  "the MSS",
		rules: tables(masquerade, "-A FORWARD -p tcp --tcp-flags SYN,RST SYN -j TCPMSS --set-mss 1400\n"+answers),
		o:     router,
		notes: []string{"differs: the MSS is lowered to what both links carry"},
	},
	{
		name:  "a range of ports that is another",
		rules: tables("-A PREROUTING -i eth0 -p tcp --dport 8000:8002 -j DNAT --to-destination 10.0.0.5:9000-9002\n-A PREROUTING -i eth0 -p tcp --dport 7000:7002 -j DNAT --to-destination 10.0.0.5:7001-7009\n-A PREROUTING -i eth0 -p udp --dport 6000:6002 -j DNAT --to-destination 10.0.0.5:5000-5002/6000\n"+masquerade, answers+"-A FORWARD -i eth0 -j ACCEPT\n"),
		o:     router,
		yaml: []string{"wan_port: 8002, to: '10.0.0.5:9000'", "wan_port: 7001-7002, to: '10.0.0.5:7001'",
			"wan_port: 7000, to: '10.0.0.5:7001'", "wan_port: 6000-6002, to: '10.0.0.5:5000'"},
	},
	{
		name: "second packets of a connection",
		rules: tables(masquerade,
			"-A FORWARD -i eth1 -p tcp -m conntrack --ctstate NEW -j ACCEPT\n-A FORWARD -i eth0 -m conntrack --ctstate ESTABLISHED -j ACCEPT\n"),
		o:     router,
		notes: []string{"MORE PERMISSIVE: what follows the first packet"},
	},
	{
		name: "a drop before translation",
		rules: tables("-A PREROUTING -i eth0 -p tcp --dport 8080 -j DNAT --to-destination 10.0.0.5:80\n"+masquerade,
			answers+"-A FORWARD -i eth0 -j ACCEPT\n", "*mangle\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -i eth0 -p tcp --dport 8080 -j DROP\nCOMMIT\n"),
		o:     router,
		notes: []string{"MORE PERMISSIVE: a destination before it is translated"},
	},
}

func with(o Options, f func(*Options)) Options {
	f(&o)
	return o
}

// TestAttacks imports rule sets that an importer can get wrong, each with what must
// pass beside what must not.
func TestAttacks(t *testing.T) {
	for _, a := range slices.Concat(attacks, ownAttacks) {
		t.Run(a.name, func(t *testing.T) {
			a.o.File = "attack"
			r, err := IPTables([]byte(a.rules), a.o)
			if err != nil {
				t.Fatal(err)
			}
			var all []string
			for _, n := range r.Notes {
				all = append(all, string(n.Effect)+": "+n.Why)
			}
			text := strings.Join(all, "\n")
			for _, n := range a.notes {
				effect, why, _ := strings.Cut(n, ": ")
				found := false
				for _, m := range r.Notes {
					found = found || string(m.Effect) == effect && strings.Contains(m.Why, why)
				}
				if !found {
					t.Errorf("no note %q in:\n%s", n, text)
				}
			}
			for _, x := range a.about {
				if !slices.ContainsFunc(r.Notes, func(n Note) bool {
					return n.Effect == x.effect && strings.Contains(n.Why, x.why) && n.Packets.Has(x.packet)
				}) {
					t.Errorf("no note %s: %q about %+v in:\n%s", x.effect, x.why, x.packet, text)
				}
			}
			for _, n := range a.not {
				if strings.Contains(text, n) {
					t.Errorf("notes say %q:\n%s", n, text)
				}
			}
			for _, y := range a.yaml {
				if !strings.Contains(string(r.YAML), y) {
					t.Errorf("no %q in\n%s", y, r.YAML)
				}
			}
			decides(t, r, a.asks)
		})
	}
}

// decides asks an imported policy about packets.
func decides(t *testing.T, r *Result, asks []ask) {
	t.Helper()
	p, ds := policy.Load("imported", r.YAML)
	if p == nil {
		t.Fatalf("%v\n%s", ds, r.YAML)
	}
	s, err := compile.Compile(p)
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range asks {
		w := explain.FlowWords{From: k.from, Proto: k.proto, Src: k.src, Dst: k.dst, State: k.state}
		f, err := explain.ParseFlow(p, w)
		if err != nil {
			t.Fatal(err)
		}
		if o := explain.Decide(p, s, f); o.Accept != (k.want == "accept") {
			t.Errorf("%v: accepted %v (%v %s), want %s\n%s", f, o.Accept, o.Reason, o.Note, k.want, r.YAML)
		}
	}
}

// TestInterfaces: what is known of interfaces is said with its reason; where it is
// not certain nothing is taken.
func TestInterfaces(t *testing.T) {
	const swapped = "*nat\n:POSTROUTING ACCEPT [0:0]\n-A POSTROUTING -o eth1 -j MASQUERADE\nCOMMIT\n*filter\n:FORWARD DROP [0:0]\n-A FORWARD -i eth0 -o eth1 -j ACCEPT\nCOMMIT\n"
	links := &Links{Default: "eth1", Gateway: netip.MustParseAddr("198.51.100.1"),
		Interfaces: []Link{{"eth0", []netip.Prefix{netip.MustParsePrefix("192.168.1.1/24")}},
			{"eth1", []netip.Prefix{netip.MustParsePrefix("198.51.100.2/24")}}}}
	third := *links
	third.Interfaces = append(slices.Clone(links.Interfaces),
		Link{"eth2", []netip.Prefix{netip.MustParsePrefix("10.2.0.1/24")}})
	reflection := strings.Replace(swapped, "COMMIT",
		"-A POSTROUTING -s 10.2.0.0/24 -d 10.2.0.80/32 -o eth2 -j SNAT --to-source 10.2.0.1\nCOMMIT", 1)
	for _, c := range []struct {
		name, rules string
		o           Options
		say         string // an assumption, or the error
		lan, wan    string // as comments of the policy
	}{
		{"names that are swapped", swapped, Options{}, "eth1 is taken for the WAN: sources are translated there",
			"# eth0", "# eth1"},
		{"in a chain that is jumped to",
			strings.Replace(swapped, "-A POSTROUTING -o eth1 -j MASQUERADE",
				":z - [0:0]\n-A POSTROUTING -o eth1 -j z\n-A z -j MASQUERADE", 1), Options{}, "eth1 is taken for the WAN", "# eth0", "# eth1"},
		{"a reflection behind a third", reflection,
			Options{Links: &third}, "it is not certain which interface is the LAN (eth1 is the WAN)", "", ""},
		{"by the default route", "*filter\n:FORWARD DROP [0:0]\n-A FORWARD -i eth0 -o eth1 -j ACCEPT\nCOMMIT\n",
			Options{Links: links}, "the default route leads there", "192.168.1.1/24} # eth0", "address: 198.51.100.2/24, gateway: 198.51.100.1} # eth1"},
		{"everywhere but there",
			"*nat\n:POSTROUTING ACCEPT [0:0]\n-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE\nCOMMIT\n", Options{}, "docker0 is taken for the LAN: sources are translated everywhere but there", "172.17.0.1/16} # docker0", "wan0"},
		{"not certain", "*filter\n:FORWARD DROP [0:0]\n-A FORWARD -i eth0 -o eth1 -j ACCEPT\nCOMMIT\n", Options{},
			"not certain which interface is the LAN and which the WAN: rules name eth0, eth1", "", ""},
		{"three, of which none is known",
			"*nat\n:POSTROUTING ACCEPT [0:0]\n-A POSTROUTING -o eth0 -j MASQUERADE\nCOMMIT\n*filter\n:FORWARD DROP [0:0]\n-A FORWARD -i eth1 -o eth2 -j ACCEPT\nCOMMIT\n", Options{}, "not certain which interface is the LAN (eth0 is the WAN)", "", ""},
		{"two ways out", "*nat\n:POSTROUTING ACCEPT [0:0]\n-A POSTROUTING -o eth0 -j MASQUERADE\n-A POSTROUTING -o eth2 -j MASQUERADE\nCOMMIT\n*filter\n:FORWARD DROP [0:0]\n-A FORWARD -i eth1 -j ACCEPT\nCOMMIT\n", Options{}, "not certain which interface is the LAN and which the WAN", "", ""},
		{"by network", "*nat\n:POSTROUTING ACCEPT [0:0]\n-A POSTROUTING -s 10.0.0.0/24 -o eth0 -j MASQUERADE\nCOMMIT\n*filter\n:FORWARD DROP [0:0]\n-A FORWARD -i eth2 -s 10.0.0.0/24 -j ACCEPT\n-A FORWARD -i eth1 -s 10.5.0.0/24 -j ACCEPT\nCOMMIT\n", Options{}, "eth2 is taken for the LAN: 10.0.0.0/24, whose sources are translated, is behind it", "# eth2", "# eth0"},
	} {
		c.o.File = "rules"
		r, err := IPTables([]byte(c.rules), c.o)
		if c.lan == "" {
			if err == nil || !strings.Contains(err.Error(), c.say) {
				t.Errorf("%s: %v", c.name, err)
			}
			c.o.Partial = true
			r, err = IPTables([]byte(c.rules), c.o)
			if err != nil || !strings.Contains(strings.Join(r.Assumptions, "\n"), "A GUESS") {
				t.Errorf("%s: guessed: %v, %+v", c.name, err, r)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if !strings.Contains(strings.Join(r.Assumptions, "\n"), c.say) || !strings.Contains(string(r.YAML), c.lan) ||
			!strings.Contains(string(r.YAML), c.wan) {
			t.Errorf("%s: want %q, %q, %q in\n%s", c.name, c.say, c.lan, c.wan, r.YAML)
		}
	}
}
