package evasions

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A peer is something else that people use to the same end.
type peer struct {
	name    string
	applies func(family string, at *attack) string // or why the attack does not apply
	// notes say more about an attack that does not simply hold: what the
	// documentation promises. moot are those that get through and gain nothing.
	notes, moot map[string]string
	start       func(t testing.TB) (*wires, func()) // and what makes it forget
	// version says what was measured.
	version func() string
}

func output(name string, args ...string) string {
	b, _ := exec.Command(name, args...).CombinedOutput()
	return strings.TrimSpace(strings.SplitN(string(b), "\n", 2)[0])
}

// nftRules do what the policy says: default deny, connection tracking,
// masquerading, two published services. SERVER is the rule for TLS.
const nftRules = `
table inet fw {
	set named { type ipv4_addr; timeout 5m; }
	chain input {
		type filter hook input priority filter; policy drop;
		ct state vmap { established : accept, related : accept, invalid : drop }
		iifname lo accept
		iifname lan meta l4proto { tcp, udp } th dport 53 accept
		iifname lan icmp type echo-request accept
		INPUT
	}
	chain forward {
		type filter hook forward priority filter; policy drop;
		ct state vmap { established : accept, related : accept, invalid : drop }
		iifname lan oifname wan ip daddr @named tcp dport { PORTS } accept
		iifname lan oifname wan ip daddr 198.51.100.80 tcp dport 80 accept
		iifname lan oifname wan ip daddr 198.51.100.80 udp dport 4000-4999 accept
		iifname lan oifname wan icmp type echo-request accept
		iifname wan oifname lan ip daddr 10.0.0.4 tcp dport 80 ct status dnat accept
		iifname wan oifname lan ip daddr 10.0.0.4 udp dport 9000 ct status dnat accept
	}
	chain prerouting {
		type nat hook prerouting priority dstnat;
		iifname wan ip daddr 203.0.113.10 ip saddr 198.51.100.0/24 tcp dport 8080 dnat ip to 10.0.0.4:80
		iifname wan ip daddr 203.0.113.10 udp dport 9000 dnat ip to 10.0.0.4:9000
		REDIRECT
	}
	chain postrouting {
		type nat hook postrouting priority srcnat;
		oifname wan ip saddr 10.0.0.0/24 masquerade
	}
}
`

const (
	oneName   = "Squid reads one of the names and splices; some server may read the other (Go's refuses such a message)"
	sealed    = "what is encrypted only its ends can read"
	hintless  = "hints of HTTPS and SVCB records open nothing, not even for whom they are"
	forwards  = "what it does not know it passes to the upstream, which refuses it"
	loose     = "nf_conntrack_tcp_loose is 1 by default: a connection may begin in the middle"
	bogons    = "rp_filter alone; which addresses cannot be, the rules would have to say"
	asIs      = "questions go to the upstream as they are, with all that is in them"
	reset     = "before the answer has come conntrack takes any RST, whatever its numbers"
	arpLearns = "Linux believes the last one, as RFC 826 says; permanent neighbours are the remedy"
)

func nftFor(input, redirect, ports string) string {
	return strings.NewReplacer("INPUT", input, "REDIRECT", redirect, "PORTS", ports).Replace(nftRules)
}

// dnsmasqConf puts the addresses of names into the set, and refuses private ones
// (stop-dns-rebind). A name of nftset stands for those below it, too.
const dnsmasqConf = `
no-resolv
no-hosts
no-daemon
user=root
pid-file=
interface=lan
except-interface=lo
bind-interfaces
server=198.51.100.53
stop-dns-rebind
bogus-priv
domain-needed
nftset=/good.example/pages.example/4#inet#fw#named
`

// resolver starts dnsmasq in the router.
func (w *wires) resolver(conf string) *daemon {
	w.t.Helper()
	path := filepath.Join(w.t.(*testing.T).TempDir(), "dnsmasq.conf")
	if err := os.WriteFile(path, []byte(conf), 0o644); err != nil {
		w.t.Fatal(err)
	}
	d := w.daemon("dnsmasq", "-C", path)
	if !w.listens(53, true) {
		d.end()
		w.t.Fatalf("dnsmasq does not start: %s", d.out.String())
	}
	return d
}

var nftables = peer{
	name: "nftables and dnsmasq",
	applies: func(family string, at *attack) string {
		if family == "hello" {
			return "by address only: what is behind one it does not tell apart"
		}
		return ""
	},
	start: func(t testing.TB) (*wires, func()) {
		need(t, "nft", "dnsmasq", "conntrack", "ss")
		w := newWires(t, 30*time.Millisecond, false)
		w.router(nftFor("", "", "443, 8443"))
		var d *daemon
		t.Cleanup(func() {
			if d != nil {
				d.end()
			}
		})
		return w, func() {
			if d != nil {
				d.end()
			}
			if out, err := w.in("nft", "flush set inet fw named").CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			w.reset()
			d = w.resolver(dnsmasqConf)
		}
	},
	notes: map[string]string{
		"names/binding-of-other":         hintless,
		"names/svcb-of-other":            hintless,
		"names/binding-in-a":             hintless,
		"names/binding-additional":       hintless,
		"names/of-other-client":          "a set is for all clients; dnsmasq's manual promises nothing else",
		"names/forged-case":              "dnsmasq 2.90 tells answers by port and identifier, not by the case of letters",
		"names/two-labels":               "nftset takes a domain with all that is below it, as the manual says",
		"names/apex":                     "nftset takes a domain with all that is below it, as the manual says",
		"names/expired":                  "an element lives as long as the set says (here 5 minutes), not as the answer says",
		"names/huge-ttl":                 "an element lives as long as the set says (here 5 minutes), not as the answer says",
		"names/rebinding-shared":         "stop-dns-rebind does not have 100.64.0.0/10 in version 2.90",
		"names/rebinding-hint":           "stop-dns-rebind is about A and AAAA records",
		"names/asked-tail":               asIs,
		"names/asked-answers":            asIs,
		"names/asked-option":             asIs,
		"tcp/half-open-reset":            reset,
		"tcp/half-open-reset-ack":        reset,
		"addresses/ping-zero-net":        bogons,
		"addresses/ping-reserved":        bogons,
		"arp/own-mac-request":            arpLearns,
		"tcp/ack-scan":                   loose,
		"tcp/middle":                     loose,
		"addresses/reserved-source":      bogons,
		"addresses/link-local-source":    bogons,
		"addresses/metadata":             bogons,
		"icmp/blind-error":               "conntrack does not look at the quoted sequence number: the end must (RFC 5927)",
		"icmp/blind-mtu":                 "conntrack does not look at the quoted sequence number: the end must (RFC 5927)",
		"icmp/source-quench":             "conntrack takes a source quench as related",
		"arp/gateway-request":            arpLearns,
		"arp/gateway-announcement":       arpLearns,
		"arp/gateway-announcement-reply": arpLearns,
		"arp/gateway-first":              arpLearns,
		"arp/host-request":               arpLearns,
		"arp/multicast-sender":           arpLearns,
		"arp/lan-address-on-wan":         "arp_ignore is 0 by default: an address is the host's, not the link's",
		"shares/queries":                 "dns-forward-max is 150, for all clients together",
		"shares/restart":                 "dns-forward-max is 150; what waits for a neighbour is bounded",
		"shares/dns-connections":         "20 TCP connections, for all clients together",
	},
	moot: map[string]string{
		"names/transfer":         forwards,
		"names/update":           forwards,
		"names/notify":           forwards,
		"names/two-questions":    forwards,
		"names/asked-pointer":    forwards,
		"names/asked-opt-twice":  forwards,
		"names/asked-opt-owner":  forwards,
		"names/asked-opt-beyond": forwards,
		"names/asked-stateful":   forwards,
		"names/asked-inverse":    forwards,
		"names/address-of-eight": "the first four bytes are the address that was answered, and bound",
		"addresses/priority-tag": "Linux takes tags of VLAN 0 off, and judges what is in the frame",
		"tcp/port-zero":          "what has port 0 is translated like any other",
		"tcp/blind-data-old":     "old data passes, which the end has long had",
		"tcp/old-segment":        "old data passes, which the end has long had",
		"fragments/tiny":         "put together and judged whole",
		"fragments/teardrop":     "what lies inside another fragment is dropped alone; what leaves is unambiguous",
		"fragments/icmp-error":   "put together and judged whole",
		"icmp/quoted-checksum":   "the end must look",
	},
	version: func() string {
		v := output("dnsmasq", "--version")
		v, _, _ = strings.Cut(strings.TrimPrefix(v, "Dnsmasq version "), " ")
		return fmt.Sprintf("%s, dnsmasq v%s, Linux %s", output("nft", "--version"), v, output("uname", "-r"))
	},
}

// squidConf peeks at the first message and splices what may pass, as Squid's
// documentation of peek and splice shows it.
const squidConf = `
http_port 10.0.0.1:3128
https_port 10.0.0.1:3130 intercept ssl-bump tls-cert=DIR/ca.pem generate-host-certificates=off
acl localnet src 10.0.0.0/24
acl step1 at_step SslBump1
acl allowed ssl::server_name good.example .pages.example
ssl_bump peek step1
ssl_bump splice allowed
ssl_bump terminate all
http_access allow localnet
http_access deny all
dns_nameservers 10.0.0.1
cache deny all
pid_filename DIR/squid.pid
access_log none
cache_log DIR/cache.log
coredump_dir DIR
cache_effective_user proxy
shutdown_lifetime 0 seconds
sslcrtd_program /usr/lib/squid/security_file_certgen -s DIR/ssl_db -M 4MB
sslcrtd_children 1
pinger_enable off
netdb_filename none
`

var squid = peer{
	name: "Squid, peek and splice",
	applies: func(_ string, at *attack) string {
		if !at.squid {
			return "not its task: the kernel's, or the resolver's"
		}
		return ""
	},
	notes: map[string]string{
		"hello/rst-data":              "the RST ends the connection at the proxy, which is the next hop: the twin cannot go on",
		"hello/two-names":             oneName,
		"hello/two-extensions-turned": oneName,
		"hello/bad-length":            oneName,
		"hello/nul":                   "spliced as it is; what a server makes of the zero byte is the server's",
		"hello/ticket":                sealed,
		"hello/fronting":              sealed,
	},
	start: func(t testing.TB) (*wires, func()) {
		need(t, "nft", "dnsmasq", "conntrack", "ss", "squid", "openssl")
		w := newWires(t, 100*time.Millisecond, false)
		w.router(nftFor("iifname lan tcp dport 3130 ct status dnat accept", "iifname lan tcp dport 443 redirect to :3130", "8443"))
		dir := t.TempDir()
		os.Chmod(dir, 0o755)               //nolint:errcheck // Squid says so if it cannot read it
		os.Chmod(filepath.Dir(dir), 0o755) //nolint:errcheck // as above
		for _, c := range []string{
			"openssl req -new -newkey rsa:2048 -days 30 -nodes -x509 -subj /CN=evasions -keyout DIR/ca.pem -out DIR/cert.pem",
			"cat DIR/cert.pem >> DIR/ca.pem",
			"/usr/lib/squid/security_file_certgen -c -s DIR/ssl_db -M 4MB",
			"chown -R proxy DIR"} {
			if out, err := exec.Command("sh", "-c", strings.ReplaceAll(c, "DIR", dir)).CombinedOutput(); err != nil {
				t.Fatalf("%s: %v: %s", c, err, out)
			}
		}
		conf := filepath.Join(dir, "squid.conf")
		if err := os.WriteFile(conf, []byte(strings.ReplaceAll(squidConf, "DIR", dir)), 0o644); err != nil {
			t.Fatal(err)
		}
		q := w.daemon("squid", "-N", "-f", conf)
		t.Cleanup(q.end)
		if !w.listens(3130, false) {
			log, _ := os.ReadFile(filepath.Join(dir, "cache.log"))
			t.Fatalf("Squid does not start: %s%s", q.out.String(), log)
		}
		var d *daemon
		t.Cleanup(func() {
			if d != nil {
				d.end()
			}
		})
		return w, func() {
			if d != nil {
				d.end()
			}
			w.reset()
			d = w.resolver(dnsmasqConf)
		}
	},
	version: func() string { return output("squid", "--version") },
}

func need(t testing.TB, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("%s is not installed (scripts/need.sh evasions installs it)", p)
		}
	}
}
