package main

import (
	"strings"
	"testing"
)

func TestImport(t *testing.T) {
	const dir = "../../internal/host/importer/testdata/"
	easy := write(t, "fw.rules", "*filter\n:FORWARD DROP [0:0]\n-A FORWARD -i eth1 -o eth0 -p tcp --dport 443 -j ACCEPT\nCOMMIT\n")
	for _, c := range []struct {
		args           []string
		code           int
		stdout, stderr string
	}{
		{[]string{"nft", dir + "office.json"}, 0, "web-for-all", "not carried: inet fw forward handle 21"},
		{[]string{"nft", dir + "hard.json"}, 1, "", "no policy was printed; --partial prints it"},
		{[]string{"nft", dir + "hard.json", "--partial"}, 0, "# not carried: ", "WARNING: rules that deny traffic could not be carried"},
		{[]string{"iptables", easy}, 0, "direction: egress", "eth1 is taken for the LAN"},
		{[]string{"iptables", easy, "--lan", "eth0", "--wan", "eth1", "--lan-address", "192.168.1.1/24", "--wan-address", "198.51.100.2/30", "--gateway", "198.51.100.1"}, 0,
			"  lan0: {address: 192.168.1.1/24} # eth0\n  wan0: {address: 198.51.100.2/30, gateway: 198.51.100.1} # eth1\n", ""},
		{[]string{"iptables", easy, "--lan-address", "192.168.1.0/24", "--wan-address", "198.51.100.2/30"}, 1, "", "the result is not a valid policy"},
		{[]string{"iptables", easy, "--lan-address", "fe80::1/64"}, 2, "", "as 10.0.0.1/24"},
		{[]string{"iptables", easy, "--gateway", "x"}, 2, "", "want an address"},
		{[]string{"iptables", easy, "--lan", "a", "--wan", "a"}, 2, "", "another interface"},
		{[]string{"iptables", dir + "office.json"}, 1, "", "not the output of iptables-save"},
		{[]string{"nft", easy}, 1, "", "not the output of nft -j list ruleset"},
		{[]string{"nft"}, 2, "", "want one file"},
		{[]string{"pf", easy}, 2, "", "want nft or iptables"},
		{nil, 2, "", "want nft or iptables"},
		{[]string{"nft", "/nowhere"}, 1, "", "/nowhere"},
	} {
		code, out, errs := capture(t, append([]string{"import"}, c.args...)...)
		if code != c.code || !strings.Contains(out, c.stdout) || !strings.Contains(errs, c.stderr) {
			t.Errorf("%v: exit %d, want %d\nstdout: %s\nstderr: %s", c.args, code, c.code, out, errs)
		}
		if code != 0 && out != "" {
			t.Errorf("%v: a policy all the same:\n%s", c.args, out)
		}
	}
	// What comes out passes check.
	_, out, _ := capture(t, "import", "nft", dir+"office.json")
	if code, out, errs := capture(t, "check", "-f", write(t, "rules.yaml", out)); code != 0 {
		t.Errorf("check: exit %d\n%s%s", code, out, errs)
	}
}
