package importer

import (
	"strings"
	"testing"
)

// TestOPNsense imports a configuration that was made from OPNsense's documented
// structure, and asks the policy about packets.
func TestOPNsense(t *testing.T) {
	r, err := OPNsense(read(t, "opnsense.xml"), Options{File: "config.xml"})
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, n := range r.Notes {
		all = append(all, string(n.Effect)+": "+n.String())
	}
	notes := strings.Join(all, "\n")
	for _, want := range []string{
		"stricter: line 36: ", "servers elsewhere, as in a DMZ", "mail in the DMZ", "opt1 is a third interface", "conditions without counterpart: sched",
	} {
		if want != "stricter: line 36: " && !strings.Contains(notes, want) {
			t.Errorf("no %q in\n%s", want, notes)
		}
	}
	if r.Permissive() {
		t.Errorf("%s", notes)
	}
	decides(t, r, []ask{
		{"wan", "tcp", "198.51.100.7:9", "203.0.113.10:80", "", "accept"},
		{"wan", "tcp", "198.51.100.7:9", "203.0.113.10:8080", "", "not"},
		{"wan", "tcp", "10.9.9.9:9", "203.0.113.10:80", "", "not"}, // blockpriv
		{"wan", "udp", "198.51.100.9:9", "203.0.113.10:27010", "", "accept"},
		{"wan", "udp", "198.51.100.10:9", "203.0.113.10:27010", "", "not"},
		{"wan", "tcp", "198.51.100.7:9", "203.0.113.10:25", "", "not"},
		{"wan", "icmp", "198.51.100.7", "203.0.113.10", "", "accept"},
		{"lan", "tcp", "10.0.0.7:9", "198.51.100.7:25", "", "not"},
		{"lan", "tcp", "10.0.0.5:9", "198.51.100.7:25", "", "accept"},
		{"lan", "tcp", "10.0.0.7:9", "198.51.100.7:80", "", "accept"},
		{"lan", "tcp", "10.0.0.7:9", "198.51.100.7:445", "", "not"},
		{"lan", "udp", "10.0.0.7:9", "192.0.2.7:53", "", "not"},
		{"lan", "tcp", "10.0.0.7:9", "10.0.2.5:80", "", "not"}, // to the DMZ, by way of the WAN
		{"wan", "tcp", "198.51.100.7:80", "10.0.0.7:9", "established", "accept"},
	})
	for _, want := range []string{"lan0: {address: 10.0.0.1/24}",
		"wan0: {address: 203.0.113.10/24, gateway: 203.0.113.1}", "source: 10.0.0.64/27, external_ip: 203.0.113.11", "wan_port: 27000-27010, to: '10.0.0.6:7000'"} {
		if !strings.Contains(string(r.YAML), want) {
			t.Errorf("no %q in\n%s", want, r.YAML)
		}
	}
}

// TestOPNsenseUnknown: what is not known of a rule never makes it match more.
func TestOPNsenseUnknown(t *testing.T) {
	doc := func(rule string) []byte {
		return []byte(`<opnsense><interfaces><wan><if>a</if><enable>1</enable><ipaddr>dhcp</ipaddr></wan><lan><if>b</if><enable>1</enable><ipaddr>10.0.0.1</ipaddr><subnet>24</subnet></lan></interfaces>
<nat><rule><protocol>tcp</protocol><interface>wan</interface><target>10.0.0.5</target><local-port>80</local-port><source><any/></source><destination><network>wanip</network><port>80</port></destination></rule></nat>
<filter>` + rule + `<rule><type>pass</type><interface>wan</interface><source><any/></source><destination><any/></destination></rule></filter></opnsense>`)
	}
	for _, c := range []struct {
		name, rule string
		effect     Effect
	}{
		{"an unknown part of a block",
			`<rule><type>block</type><interface>wan</interface><moon>full</moon><source><any/></source><destination><any/></destination></rule>`, Permissive},
		{"an unknown alias", `<rule><type>block</type><interface>wan</interface><source><address>nobody</address></source><destination><any/></destination></rule>`, Permissive},
		{"an unknown type", `<rule><type>match</type><interface>wan</interface><source><any/></source><destination><any/></destination></rule>`, Permissive},
		{"an unknown part of a source",
			`<rule><type>block</type><interface>wan</interface><source><any/><x>1</x></source><destination><any/></destination></rule>`, Permissive},
		{"an unknown protocol",
			`<rule><type>block</type><interface>wan</interface><protocol>nosuch</protocol><source><any/></source><destination><any/></destination></rule>`, Permissive},
		{"a floating block that is not the last word",
			`<rule><type>block</type><floating>yes</floating><interface>wan</interface><source><any/></source><destination><any/></destination></rule>`, ""},
		{"disabled, without a value",
			`<rule><type>block</type><interface>wan</interface><disabled/><source><any/></source><destination><any/></destination></rule>`, Permissive},
		{"disabled", `<rule><type>block</type><interface>wan</interface><disabled>1</disabled><source><any/></source><destination><any/></destination></rule>`, ""},
		{"not, which says no",
			`<rule><type>block</type><interface>wan</interface><source><not>0</not><address>9.9.9.9</address></source><destination><any/></destination></rule>`, Permissive},
		{"not one of several",
			`<rule><type>block</type><interface>wan</interface><source><not/><network>9.9.9.9,9.9.9.10</network></source><destination><any/></destination></rule>`, Permissive},
		{"a block that is not the last word, of an interface",
			`<rule><type>block</type><interface>wan</interface><quick>0</quick><source><any/></source><destination><any/></destination></rule>`, ""},
		{"IPv6", `<rule><type>block</type><interface>wan</interface><ipprotocol>inet6</ipprotocol><source><any/></source><destination><any/></destination></rule>`, ""},
	} {
		r, err := OPNsense(doc(c.rule), Options{File: "config.xml"})
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if (c.effect == Permissive) != r.Permissive() {
			t.Errorf("%s: %v", c.name, r.Notes)
		}
	}
	for name, src := range map[string]string{"nothing": "", "pfSense": "<pfsense/>", "another root": "<x/>", "no end": "<opnsense>",
		"two roots": "<opnsense/><opnsense/>", "an entity": "<!DOCTYPE x [<!ENTITY y SYSTEM \"/etc/passwd\">]><opnsense>&y;</opnsense>", "too deep": strings.Repeat("<a>", 70)} {
		if _, err := OPNsense([]byte(src), Options{File: "config.xml"}); err == nil {
			t.Errorf("%s is read", name)
		}
	}
}

// TestOPNsenseFull imports a configuration with each construct that the importer knows of, in the structure
// that OPNsense 25 keeps, and asks the policy about packets.
func TestOPNsenseFull(t *testing.T) {
	r, err := OPNsense(read(t, "opnsense-full.xml"), Options{File: "config.xml", Partial: true})
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, n := range r.Notes {
		all = append(all, string(n.Effect)+": "+n.String())
	}
	notes := strings.Join(all, "\n")
	for _, want := range []string{
		"address feeds",                         // a table that is downloaded
		"conditions without counterpart: sched", // a schedule
		"route 10.60.0.0/16",
		"opt1 is a third interface",
		"not by WAN2_GW",
		"max-src-conn",
		"the table of bogons",
		"servers elsewhere, as in a DMZ",
	} {
		if !strings.Contains(notes, want) {
			t.Errorf("no %q in\n%s", want, notes)
		}
	}
	decides(t, r, []ask{
		{"wan", "tcp", "192.0.3.7:9", "203.0.113.10:443", "", "accept"},
		{"wan", "tcp", "198.51.100.99:9", "203.0.113.10:443", "", "not"},  // nordr
		{"wan", "tcp", "198.51.100.200:9", "203.0.113.10:443", "", "not"}, // an alias that is blocked, below the pass in the file
		{"wan", "tcp", "198.51.100.33:9", "203.0.113.10:2222", "", "not"}, // blockbogons: TEST-NET-2
		{"wan", "tcp", "9.9.9.9:9", "203.0.113.10:2222", "", "not"},
		{"wan", "tcp", "9.9.9.9:9", "203.0.113.10:2223", "", "not"},
		{"wan", "udp", "9.9.9.9:9", "203.0.113.10:3080", "", "accept"}, // a range
		{"wan", "udp", "9.9.9.9:9", "203.0.113.10:3081", "", "not"},
		{"wan", "tcp", "9.9.9.9:9", "203.0.113.10:8099", "", "not"},  // switched off
		{"wan", "tcp", "9.9.9.9:9", "203.0.113.30:80", "", "accept"}, // 1:1
		{"wan", "tcp", "9.9.9.9:9", "203.0.113.30:22", "", "not"},
		{"wan", "tcp", "10.1.1.1:9", "203.0.113.10:443", "", "not"}, // blockpriv
		{"lan", "tcp", "192.168.20.5:9", "9.9.9.9:25", "", "not"},
		{"lan", "tcp", "192.168.20.5:9", "9.9.9.9:443", "", "accept"},
		{"lan", "tcp", "192.168.20.66:9", "9.9.9.9:443", "", "not"},     // the port does not count without a protocol
		{"lan", "tcp", "192.168.20.67:9", "9.9.9.9:7777", "", "accept"}, // any comes first
		{"lan", "tcp", "192.168.20.68:9", "9.9.9.9:7777", "", "not"},    // switched off
		{"lan", "tcp", "192.168.20.5:9", "9.9.9.9:23", "", "not"},
		{"lan", "tcp", "192.168.20.5:9", "9.9.9.9:8080", "", "accept"}, // not quick: the last
		{"lan", "tcp", "192.168.20.5:9", "9.9.9.9:8091", "", "not"},
		{"lan", "tcp", "192.168.20.5:9", "9.9.9.9:5222", "", "accept"},
		{"lan", "tcp", "192.168.20.5:9", "192.0.2.9:9050", "", "accept"}, // a new rule
		{"lan", "tcp", "192.168.20.70:9", "192.0.2.9:9050", "", "not"},   // and one before it
		{"lan", "tcp", "192.168.20.5:9", "192.88.99.7:9100", "", "accept"},
		{"lan", "tcp", "192.168.20.5:9", "192.88.99.8:9100", "", "not"},
		{"lan", "icmp", "192.168.20.5", "9.9.9.9", "", "accept"}, // of a group
		{"lan", "udp", "192.168.20.5:9", "9.9.9.9:53", "", "not"},
		{"lan", "tcp", "192.168.20.7:9", "192.168.30.5:443", "", "not"},    // a third interface
		{"lan", "tcp", "192.168.20.7:9", "203.0.113.10:443", "", "accept"}, // reflection
		{"wan", "tcp", "9.9.9.9:443", "192.168.20.5:9", "established", "accept"},
	})
	for _, want := range []string{"lan0: {address: 192.168.20.1/24}", "gateway: 203.0.113.1}",
		"source: 192.168.20.192/28, external_ip: 203.0.113.12",
		"external_ip: 203.0.113.30", "hairpin: true"} {
		if !strings.Contains(string(r.YAML), want) {
			t.Errorf("no %q in\n%s", want, r.YAML)
		}
	}
	if strings.Contains(string(r.YAML), "203.0.113.13") {
		t.Error("an outbound rule that is switched off is in the policy")
	}
}
