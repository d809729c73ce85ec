package evasions

import (
	"strings"
	"testing"
	"time"
)

// someProxy is any filter by name that can be put beside a router, as those of
// sandboxes are: a program that the flag -proxy starts in the router's namespace.
//
//   - It takes at port 3130 what alice and bob send to port 443 of whatever
//     address, and finds that by SO_ORIGINAL_DST.
//   - With -proxy-dns it answers DNS on 10.0.0.1:53, asks 198.51.100.53:53, and
//     puts what it opens at port 8443 into the set "opened" of the table "inet
//     fw", as client . address . port, with a timeout. Without, dnsmasq resolves
//     all names.
//
// It is to allow good.example and *.pages.example, at both ports, to both.
var someProxy = peer{
	applies: func(family string, at *attack) string {
		switch {
		case at.squid, *proxyDNS && family == "names":
			return ""
		case family == "hello":
			return "it is about what else the policy allows"
		}
		return "the kernel's"
	},
	start: func(t testing.TB) (*wires, func()) {
		need(t, "nft", "dnsmasq", "conntrack", "ss")
		w := newWires(t, 60*time.Millisecond, false)
		rules := nftFor("iifname lan tcp dport 3130 ct status dnat accept", "iifname lan tcp dport 443 redirect to :3130", "1")
		rules = strings.Replace(rules, "\tset named", "\tset opened { type ipv4_addr . ipv4_addr . inet_service; flags timeout; }\n\tset named", 1)
		rules = strings.Replace(rules, "ip daddr @named tcp dport { 1 }", "ip saddr . ip daddr . tcp dport @opened", 1)
		w.router(rules)
		var running []*daemon
		end := func() {
			for _, d := range running {
				d.end()
			}
			running = nil
		}
		t.Cleanup(end)
		return w, func() {
			end()
			if out, err := w.in("nft", "flush set inet fw opened").CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			w.reset()
			if !*proxyDNS {
				running = append(running, w.resolver(strings.Replace(dnsmasqConf, "nftset=", "#", 1)))
			}
			d := w.daemon("sh", "-c", "exec "+*proxyCommand)
			running = append(running, d)
			if !w.listens(3130, false) || *proxyDNS && !w.listens(53, true) {
				d.end()
				t.Fatalf("%s does not start: %s", *proxyCommand, d.out.String())
			}
		}
	},
	version: func() string { return *proxyName },
}
