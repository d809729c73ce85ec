package importer

import (
	"slices"
	"strings"
	"testing"
)

const redirectDNS = "-A PREROUTING -i eth1 -p udp --dport 53 -j REDIRECT --to-ports 53\n" +
	"-A PREROUTING -i eth1 -p tcp --dport 53 -j REDIRECT --to-ports 53\n"

// resolved asks four questions of a client of the LAN.
func resolved(direct, elsewhere string) []ask {
	return []ask{
		{"lan", "udp", "10.0.0.7:9", "10.0.0.1:53", "", direct},
		{"lan", "tcp", "10.0.0.7:9", "10.0.0.1:53", "", direct},
		{"lan", "udp", "10.0.0.7:9", "198.51.100.7:53", "", elsewhere},
		{"lan", "tcp", "10.0.0.7:9", "198.51.100.7:53", "", elsewhere},
	}
}

// ownAttacks are about the firewall itself, and about what comes back to its LAN.
var ownAttacks = []attack{
	{
		name: "the input chain denies redirected questions",
		rules: tables(redirectDNS+masquerade, answers+"-A INPUT -i eth1 -m conntrack --ctstate DNAT -j DROP\n"+
			"-A INPUT -i eth1 -p udp --dport 53 -j ACCEPT\n-A INPUT -i eth1 -p tcp --dport 53 -j ACCEPT\n"),
		o:     router,
		asks:  resolved("not", "not"),
		notes: []string{"stricter: questions that are redirected"},
		not:   []string{"MORE PERMISSIVE"},
	},
	{
		name:  "it accepts nothing but redirected questions",
		rules: tables(redirectDNS+masquerade, answers+"-A INPUT -i eth1 -m conntrack --ctstate DNAT -j ACCEPT\n"),
		o:     router,
		asks:  resolved("not", "not"),
		notes: []string{"stricter: questions that are redirected"},
	},
	{
		name: "it accepts both",
		rules: tables(redirectDNS+masquerade, answers+"-A INPUT -i eth1 -m conntrack --ctstate DNAT -j ACCEPT\n"+
			"-A INPUT -i eth1 -p udp --dport 53 -j ACCEPT\n-A INPUT -i eth1 -p tcp --dport 53 -j ACCEPT\n"),
		o:    router,
		asks: resolved("accept", "accept"),
		not:  []string{"questions that are redirected", "MORE PERMISSIVE"},
	},
	{
		name: "a limit above what accepts redirected questions",
		rules: tables(redirectDNS+masquerade, answers+"-A INPUT -p tcp --syn -j flood\n"+
			"-A INPUT -i eth1 -m conntrack --ctstate DNAT -j ACCEPT\n-A INPUT -i eth1 -j ACCEPT\n"+
			"-A flood -m limit --limit 25/sec --limit-burst 50 -j RETURN\n-A flood -j DROP\n"),
		o: router,
		asks: []ask{
			{"lan", "udp", "10.0.0.7:9", "198.51.100.7:53", "", "accept"},
			{"lan", "tcp", "10.0.0.7:9", "198.51.100.7:53", "", "not"},
		},
		notes: []string{"stricter: conditions without counterpart: -m limit; dns of the firewall itself"},
		not:   []string{"there is no destination NAT for it"},
	},
	{
		name: "the source of a hairpin, which a mark translates",
		rules: tables("-A PREROUTING -s 10.0.0.0/24 -d 203.0.113.10 -p tcp --dport 80 -j MARK --set-mark 1\n"+
			"-A PREROUTING -d 203.0.113.10 -p tcp --dport 80 -j DNAT --to-destination 10.0.0.5\n"+
			"-A POSTROUTING -m mark --mark 1 -j MASQUERADE\n"+masquerade, answers+"-A FORWARD -d 10.0.0.5 -j ACCEPT\n"),
		o:     router,
		asks:  []ask{{"lan", "tcp", "10.0.0.7:9", "203.0.113.10:80", "", "accept"}},
		notes: []string{"differs: the source of a hairpin becomes the external address by which it asks"},
	},
	{
		name: "the source of a hairpin, which nothing translates",
		rules: tables("-A PREROUTING -d 203.0.113.10 -p tcp --dport 80 -j DNAT --to-destination 10.0.0.5\n"+masquerade,
			answers+"-A FORWARD -d 10.0.0.5 -j ACCEPT\n"),
		o:     router,
		asks:  []ask{{"lan", "tcp", "10.0.0.7:9", "203.0.113.10:80", "", "accept"}},
		notes: []string{"differs: the source of a hairpin becomes the external address by which it asks, and was kept"},
	},
	{
		name: "the source of a hairpin that becomes the external address, as here",
		rules: tables("-A PREROUTING -d 203.0.113.10 -p tcp --dport 80 -j DNAT --to-destination 10.0.0.5\n"+
			"-A POSTROUTING -s 10.0.0.0/24 -d 10.0.0.5 -j SNAT --to-source 203.0.113.10\n"+masquerade,
			answers+"-A FORWARD -d 10.0.0.5 -j ACCEPT\n"),
		o:    router,
		asks: []ask{{"lan", "tcp", "10.0.0.7:9", "203.0.113.10:80", "", "accept"}},
		not:  []string{"the source of a hairpin"},
	},
	{
		name:  "questions to the router's other addresses, where it is not known that it answers",
		rules: tables(masquerade, answers+"-A INPUT -i eth1 -j ACCEPT\n-A FORWARD -i eth1 -o eth0 -j ACCEPT\n"),
		o:     router,
		asks:  []ask{{"lan", "udp", "10.0.0.7:9", "203.0.113.10:53", "", "not"}},
		about: []about{{"stricter", "whether the router answers", Packet{FromLAN: true, Protocol: 17,
			Src: 0x0a000007, Dst: 0xcb00710a, SrcPort: 9, Port: 53}}},
	},
	{
		name: "a proxy for DNS that one host may pass by",
		rules: tables("-A PREROUTING ! -s 10.0.0.2 -i eth1 -p udp --dport 53 -j REDIRECT --to-ports 53\n"+masquerade,
			answers+"-A INPUT -i eth1 -p udp --dport 53 -j ACCEPT\n-A FORWARD -i eth1 -j ACCEPT\n"),
		o: router,
		about: []about{{"differs", "dns.intercept is for all that the LAN asks", Packet{FromLAN: true, Protocol: 17,
			Src: 0x0a000002, Dst: 0xc6336407, SrcPort: 9, Port: 53}}},
	},
	{
		name: "what is not tracked has no answers",
		rules: tables(masquerade, answers+"-A FORWARD -i eth1 -j ACCEPT\n",
			"*raw\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -s 198.51.100.7 -i eth0 -j NOTRACK\nCOMMIT\n"),
		o: router,
		about: []about{{"MORE PERMISSIVE", "belong to no connection", Packet{Answer: true, Protocol: 6,
			Src: 0xc6336407, Dst: 0xcb00710a, SrcPort: 443, Port: 9}}},
	},
	{
		name: "what is not tracked, and accepted for all that",
		rules: tables(masquerade, "-A FORWARD -j ACCEPT\n",
			"*raw\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -p udp --dport 123 -j NOTRACK\nCOMMIT\n"),
		o:     router,
		notes: []string{"differs: every packet is tracked"},
		not:   []string{"MORE PERMISSIVE"},
	},
	{
		name:  "refusals that the router's own output chain drops",
		rules: outputDrop(noMail + "-A OUTPUT -o eth0 -j ACCEPT\n"),
		o:     router,
		yaml:  []string{"action: deny, direction: egress, protocol: tcp, destination_port: 25"},
	},
	{
		name:  "and those that it lets out",
		rules: outputDrop(noMail + "-A OUTPUT -m conntrack --ctstate RELATED -j ACCEPT\n"),
		o:     router,
		yaml:  []string{"action: reject, direction: egress, protocol: tcp, destination_port: 25"},
	},
	{
		name: "questions and ping that the input chain rejects, where what is forwarded passes",
		rules: tables(masquerade, answers+"-A INPUT -i eth1 -p udp --dport 53 -j ACCEPT\n-A INPUT -i eth1 -j REJECT\n"+
			"-A FORWARD -i eth1 -j ACCEPT\n"),
		o:    router,
		asks: []ask{{"lan", "tcp", "10.0.0.7:9", "10.0.0.1:53", "", "not"}, {"lan", "udp", "10.0.0.7:9", "10.0.0.1:53", "", "accept"}},
		yaml: []string{"name: dns of the firewall, action: reject", "name: ping of the firewall, action: reject"},
	},
	{
		name: "and those that it drops",
		rules: tables(masquerade, answers+"-A INPUT -i eth1 -p udp --dport 53 -j ACCEPT\n-A INPUT -i eth1 -j DROP\n"+
			"-A FORWARD -i eth1 -j ACCEPT\n"),
		o:    router,
		yaml: []string{"name: dns of the firewall, action: deny", "name: ping of the firewall, action: deny"},
	},
}

const noMail = answers + "-A FORWARD -i eth1 -p tcp --dport 25 -j REJECT\n-A FORWARD -i eth1 -j ACCEPT\n"

// outputDrop is a filter whose output chain drops what its rules do not accept.
func outputDrop(filter string) string {
	return strings.Replace(tables(masquerade, filter), ":FORWARD DROP [0:0]\n:OUTPUT ACCEPT",
		":FORWARD DROP [0:0]\n:OUTPUT DROP", 1)
}

// TestTwoTables: a table that is there twice would replace the first, as of ip6tables-save's output behind that
// of iptables-save.
func TestTwoTables(t *testing.T) {
	once := tables(masquerade, answers)
	for name, c := range map[string]struct{ rules, want string }{
		"the table twice": {once + "*filter\n:FORWARD ACCEPT [0:0]\nCOMMIT\n", ":13: the table filter a second time"},
		"IPv6":            {"# Generated by ip6tables-save v1.8.9 on Mon\n" + once, ":1: the output of ip6tables-save"},
		"IPv4":            {"# Generated by iptables-save v1.8.9 on Mon\n" + once, ""},
	} {
		_, err := IPTables([]byte(c.rules), router)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

// TestLines: rules with one reason are listed under it, each as its author wrote it.
func TestLines(t *testing.T) {
	var notes []Note
	for _, place := range []string{"line 3", "line 5", "line 9"} {
		notes = append(notes,
			Note{Place: place, Text: "-A " + place, Comment: "so", Why: "there is no such thing", Effect: Stricter,
				Traffic: "tcp"})
	}
	notes = append(notes, Note{Place: "line 7", Text: "-A x", Why: "another", Effect: Nothing})
	want := []string{"3 rules: there is no such thing (stricter):", "    line 3: -A line 3 (so) (tcp)",
		"    line 5: -A line 5 (so) (tcp)",
		"    line 9: -A line 9 (so) (tcp)", "line 7: -A x: another (no effect)"}
	if got := Lines(notes); !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	if got := Lines(notes[2:]); len(got) != 2 || got[0] != notes[2].String() {
		t.Errorf("%q", got)
	}
}
