package install

import (
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

// TestHouse: with the files of docs/install.md, systemd-networkd joins the cards to the
// bridges and gives the computer its address, and a device gets a lease that leads it to the
// firewall that the page's thurward init describes.
func TestHouse(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("not root")
	}
	for _, program := range []string{"unshare", "busybox", "dnsmasq", "/lib/systemd/systemd-networkd"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skip(err)
		}
	}
	out, err := exec.Command("timeout", "120", "unshare", "--net", "--mount", "./house.sh", t.TempDir()).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	page, err := os.ReadFile("../../docs/install.md")
	if err != nil {
		t.Fatal(err)
	}
	section := regexp.MustCompile(`(?s)## Between a modem and a switch\n(.*?)\n## `).FindString(string(page))
	init := regexp.MustCompile(`thurward init --lan-address (\S+)/24 `).FindStringSubmatch(section)
	if init == nil {
		t.Fatal("the page has no thurward init")
	}
	network := init[1][:strings.LastIndex(init[1], ".")+1]
	for _, want := range []string{
		"eth0 is in br-wan\n", "eth1 is in br-lan\n",
		"the computer has " + network + "2/24, the WAN side 0 addresses\n",
		"its router is " + init[1] + "\n",
		"router " + init[1] + ", name server " + init[1] + "\n",
	} {
		if !strings.Contains(string(out), want) {
			t.Errorf("no %q:\n%s", want, out)
		}
	}
	if lease := `a device has ` + regexp.QuoteMeta(network) + `1[0-9][0-9]/24,`; !regexp.MustCompile(lease).Match(out) {
		t.Errorf("no lease:\n%s", out)
	}
}
