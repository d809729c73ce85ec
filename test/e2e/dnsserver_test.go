package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// An upstream is a name server for the tests, at 198.51.100.53 in the namespace
// of the WAN, which needs no other server. They all know the same names.
type upstream struct {
	name, program, install string
	start                  func(t *testing.T, h *hosts)
}

// records are the addresses that upstreams tell: name, address, TTL.
func records() (r []struct {
	name, addr string
	ttl        int
}) {
	add := func(name, addr string, ttl int) {
		r = append(r, struct {
			name, addr string
			ttl        int
		}{name, addr, ttl})
	}
	add("www.example.test", "198.51.100.80", 300)
	add("other.test", "198.51.100.81", 300)
	add("host.pages.test", "198.51.100.80", 2)
	for i := range 85 { // more than 1232 bytes, less than a packet
		add("big.test", fmt.Sprintf("192.0.2.%d", i+1), 300)
	}
	for i := range 400 {
		add("huge.test", fmt.Sprintf("192.0.%d.%d", 3+i/200, i%200+1), 300)
	}
	return r
}

var dnsmasq = upstream{"dnsmasq", "dnsmasq", "dnsmasq-base", func(t *testing.T, h *hosts) {
	args := []string{"--keep-in-foreground", "--no-resolv", "--no-hosts", "--conf-file=/dev/null", "--bind-interfaces", "--listen-address=198.51.100.53", "--pid-file=", "--user=root",
		"--local=/test/", "--cname=a.pages.test,host.pages.test"}
	for _, r := range records() {
		args = append(args, fmt.Sprintf("--host-record=%s,%s,%d", r.name, r.addr, r.ttl))
	}
	h.start(t, h.wan, "dnsmasq", args...)
}}

// unbound's answers have what dnsmasq's have not: compression of all names, an
// authority section, its own EDNS, TCP that is kept open, NSID.
var unbound = upstream{"unbound", "unbound", "unbound", func(t *testing.T, h *hosts) {
	conf := `server:
  do-daemonize: no
  username: ""
  chroot: ""
  directory: "/"
  pidfile: ""
  use-syslog: no
  interface: 198.51.100.53
  access-control: 0.0.0.0/0 allow
  nsid: ascii_unbound
  do-not-query-localhost: no
  module-config: "iterator"
  local-zone: "test." static
  local-data: "test. 60 IN SOA ns.test. root.test. 1 2 3 4 60"
  local-data: "a.pages.test. 300 IN CNAME host.pages.test."
  local-data: "_https.example.test. 60 IN TYPE65 \\# 15 0001 00 0004 0008 c6336450 c6336451"
`
	for _, r := range records() {
		conf += fmt.Sprintf("  local-data: %q\n", fmt.Sprintf("%s. %d IN A %s", r.name, r.ttl, r.addr))
	}
	file := filepath.Join(t.TempDir(), "unbound.conf")
	if err := os.WriteFile(file, []byte(conf), 0o644); err != nil {
		t.Fatal(err)
	}
	h.start(t, h.wan, "unbound", "-d", "-c", file)
}}

// have skips when a program is not there.
func have(t *testing.T, program, install string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		t.Skipf("%s is not installed (apt-get install %s)", program, install)
	}
}
