package importer

import (
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const nativeRules = `flush ruleset
define wan = eth0
include "./sets.nft"
table inet fw {
	chain forward {
		type filter hook forward priority filter; policy accept;
		ct state established,related accept
		iif eth1 oif $wan tcp dport { 80, 443 } accept comment "web" # the shop
		ip saddr @bad   drop  # who has misbehaved
		meta mark 7 tcp dport 22 drop comment "no marked ssh"
		drop
	}
}
table ip nat {
	chain post {
		type nat hook postrouting priority srcnat;
		oif eth0 ip saddr 10.0.0.0/24 masquerade
	}
}
`

// TestNative: nft reads its own language in a namespace; rules that are lost are
// shown as their author wrote them, with the line.
func TestNative(t *testing.T) {
	if exec.Command("unshare", "-rn", "nft", "list", "ruleset").Run() != nil &&
		exec.Command("unshare", "-n", "nft", "list", "ruleset").Run() != nil {
		t.Skip("no nft in a network namespace here (try: apt-get install nftables)")
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "router.nft")
	sets := "table inet fw {\n set bad {\n type ipv4_addr; flags timeout;\n }\n}\n"
	if err := os.WriteFile(filepath.Join(dir, "sets.nft"), []byte(sets), 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := NFTAny([]byte(nativeRules), Options{File: file, Partial: true})
	if err != nil {
		t.Fatal(err)
	}
	var notes []string
	for _, n := range r.Notes {
		notes = append(notes, n.String())
	}
	all := strings.Join(notes, "\n")
	for _, want := range []string{
		"line 9 (inet fw forward handle ", "ip saddr @bad   drop  # who has misbehaved", "(no effect)",
		"line 10 (inet fw forward handle ", `meta mark 7 tcp dport 22 drop comment "no marked ssh"`,
	} {
		if !strings.Contains(all, want) {
			t.Errorf("no %q in\n%s", want, all)
		}
	}
	if !strings.Contains(string(r.YAML),
		"{id: web, name: web, action: accept, direction: egress, protocol: tcp, destination_port: [80, 443]}") {
		t.Errorf("%s", r.YAML)
	}
	for name, c := range map[string]struct{ src, want string }{
		"a mistake":      {"table inet x {\n  chain y { bad }\n}\n", "line:2:"},
		"no rule set":    {"hello\n", "nft does not read it"},
		"no such file":   {"include \"./missing.nft\"\n", "missing.nft"},
		"a program's":    {"*filter\nCOMMIT\n", "nft does not read it"},
		"nothing of use": {"table inet x { set y { type nonsense; } }\n", "nft does not read it"},
	} {
		if _, err := NFTAny([]byte(c.src), Options{File: file}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	t.Setenv("PATH", dir)
	if _, err := NFTAny([]byte(nativeRules), Options{File: file}); err == nil ||
		!strings.Contains(err.Error(), "install nftables") {
		t.Errorf("without nft: %v", err)
	}
}

// TestDevices: what may be an interface is found, however it is written.
func TestDevices(t *testing.T) {
	got := devices("define wan = \"eth0\"\niif { eth1, \"br-lan\" } oif != wlan0.3 accept\niifname x drop\niif lo\ndevices = { eth4, $wan };\ntype filter hook ingress device eth5 priority 0\niif \"$(reboot)\"\n")
	if want := []string{"eth0", "eth1", "br-lan", "wlan0.3", "eth4", "wan", "eth5", "reboot"}; !slices.Equal(got,
		want) {
		t.Errorf("%q, want %q", got, want)
	}
}

// TestReadLinks: what ip prints is read; anything else is an error.
func TestReadLinks(t *testing.T) {
	l, err := ReadLinks([]byte(`[{"ifname":"lo","addr_info":[{"family":"inet","local":"127.0.0.1","prefixlen":8}]},{"ifname":"eth0","addr_info":[{"family":"inet","local":"198.51.100.2","prefixlen":24},{"family":"inet6","local":"fe80::1","prefixlen":64}]}]
[{"dst":"default","gateway":"198.51.100.1","dev":"eth0"},{"dst":"10.9.0.0/16","dev":"wg0"},{"dst":"10.8.0.1","dev":"tun0"}]`))
	if err != nil {
		t.Fatal(err)
	}
	if l.Default != "eth0" || l.Gateway != netip.MustParseAddr("198.51.100.1") || len(l.Interfaces) != 1 ||
		len(l.Interfaces[0].Addresses) != 1 || len(l.Routes) != 2 || l.Routes[1].Network.Bits() != 32 {
		t.Errorf("%+v", l)
	}
	if l, err := ReadLinks([]byte(`[{"dst":"default","dev":"eth0"},{"dst":"default","dev":"eth1"}]`)); err == nil &&
		l.Default != "" {
		t.Errorf("two default routes: %+v", l)
	}
	for _, bad := range []string{"", "{}", "[1]", "[]", `[{"ifname":7}]`, "2: eth0: <UP>"} {
		if _, err := ReadLinks([]byte(bad)); err == nil {
			t.Errorf("%q is read", bad)
		}
	}
}

// FuzzNative reads what is read of nft's own language before nft is asked and after: names of devices that can
// be interfaces, and rules as their authors wrote them.
func FuzzNative(f *testing.F) {
	f.Add("table inet fw {\n\tchain forward {\n\t\tip saddr @bad drop # handle 3\n\t}\n}\n", nativeRules)
	f.Add("", "iif { \"a b\", eth1 } oif $x device = lo\n")
	f.Fuzz(func(t *testing.T, listing, src string) {
		if len(listing)+len(src) > 1<<16 {
			t.Skip("long")
		}
		for _, n := range devices(src) {
			if n == "" || len(n) > 15 || strings.ContainsAny(n, "/ \n\"$();") {
				t.Errorf("%q is taken for an interface", n)
			}
		}
		for k, w := range authors(listing, src) {
			if k == "" || strings.Contains(w.text, "\n") ||
				!strings.Contains(src, w.text) && !strings.Contains(listing, w.text) {
				t.Errorf("%q: %q stands nowhere", k, w.text)
			}
		}
	})
}
