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
	dig                    []string // what dig needs to ask it
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

var dnsmasq = upstream{name: "dnsmasq", program: "dnsmasq", install: "dnsmasq-base", start: func(t *testing.T, h *hosts) {
	args := []string{"--keep-in-foreground", "--no-resolv", "--no-hosts", "--conf-file=/dev/null", "--bind-interfaces", "--listen-address=198.51.100.53", "--pid-file=", "--user=root",
		"--local=/test/", "--cname=a.pages.test,host.pages.test"}
	for _, r := range records() {
		args = append(args, fmt.Sprintf("--host-record=%s,%s,%d", r.name, r.addr, r.ttl))
	}
	h.start(t, h.wan, "dnsmasq", args...)
}}

// unbound's answers have what dnsmasq's have not: compression of all names, an
// authority section, its own EDNS, TCP that is kept open, NSID.
var unbound = upstream{name: "unbound", program: "unbound", install: "unbound", start: func(t *testing.T, h *hosts) {
	h.start(t, h.wan, "unbound", "-d", "-c", unboundFile(t, h, "interface: 198.51.100.53"))
}}

// unboundFile writes a configuration of unbound, with what is peculiar to it,
// and returns its name.
func unboundFile(t *testing.T, h *hosts, peculiar string) string {
	conf := `server:
  do-daemonize: no
  username: ""
  chroot: ""
  directory: "/"
  pidfile: ""
  use-syslog: no
  access-control: 0.0.0.0/0 allow
  nsid: ascii_unbound
  do-not-query-localhost: no
  module-config: "iterator"
  local-zone: "test." nodefault
  ` + peculiar + "\n"
	plain := `test. 60 IN SOA ns.test. root.test. 1 3600 600 86400 60
test. 60 IN NS www.example.test.
a.pages.test. 300 IN CNAME host.pages.test.
svc.example.test. 60 IN HTTPS 1 . alpn=h2 ipv4hint=198.51.100.80,198.51.100.81
`
	for _, r := range records() {
		plain += fmt.Sprintf("%s. %d IN A %s\n", r.name, r.ttl, r.addr)
	}
	signed, anchor := signedZone(t)
	dir := t.TempDir()
	for name, text := range map[string]string{"test": plain, "signed.example": signed, "anchor": anchor} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	h.anchor = filepath.Join(dir, "anchor")
	for _, zone := range []string{"test", "signed.example"} {
		conf += fmt.Sprintf("auth-zone:\n  name: %q\n  zonefile: %q\n  for-downstream: yes\n  for-upstream: no\n", zone, filepath.Join(dir, zone))
	}
	file := filepath.Join(dir, "unbound.conf")
	if err := os.WriteFile(file, []byte(conf), 0o644); err != nil {
		t.Fatal(err)
	}
	return file
}

// have skips when a program is not there.
func have(t *testing.T, program, install string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		t.Skipf("%s is not installed (apt-get install %s)", program, install)
	}
}
