package importer

import (
	"slices"
	"strings"
)

// interfaces finds out which interface is the LAN and which the WAN.
func (c *converter) interfaces() {
	c.lan, c.wan = c.o.LAN, c.o.WAN
	count := map[string]int{}
	var names []string
	see := func(is []iface, weight int) {
		for _, i := range is {
			for _, n := range i.names {
				if i.not || n == "lo" || strings.Contains(n, "*") {
					continue
				}
				if _, ok := count[n]; !ok {
					names = append(names, n)
				}
				count[n] += weight
			}
		}
	}
	for _, k := range c.set.order {
		ch := c.set.chains[k]
		for _, r := range ch.rules {
			switch r.do.kind {
			case "masquerade", "snat":
				see(r.cond.out, 1000)
			case "dnat":
				see(r.cond.in, 100)
			}
		}
	}
	pick := func(except string) string {
		best := ""
		for _, n := range names {
			if n != except && (best == "" || count[n] > count[best]) {
				best = n
			}
		}
		return best
	}
	if c.wan == "" {
		if c.wan = pick(c.lan); c.wan != "" {
			c.assume("%s is taken for the WAN, since addresses are translated there (--wan names another)", c.wan)
		}
	}
	if c.lan == "" {
		count, names = map[string]int{}, nil
		for _, k := range c.set.order {
			ch := c.set.chains[k]
			if ch.hook == "input" || ch.hook == "output" {
				continue
			}
			for _, r := range ch.rules {
				see(r.cond.in, 1)
				see(r.cond.out, 1)
			}
		}
		if c.lan = pick(c.wan); c.lan != "" {
			c.assume("%s is taken for the LAN, since rules name it most (--lan names another)", c.lan)
		}
		if c.wan == "" && c.lan != "" {
			if c.wan = pick(c.lan); c.wan != "" {
				c.assume("%s is taken for the WAN (--wan names another)", c.wan)
			}
		}
	}
}

// sides returns the sides that an interface condition leaves of lan and wan.
func (c *converter) sides(is []iface) (lan, wan bool) {
	match := func(i iface, name string) bool {
		return name != "" && slices.ContainsFunc(i.names, func(n string) bool {
			if p, ok := strings.CutSuffix(n, "*"); ok {
				return strings.HasPrefix(name, p)
			}
			return n == name
		})
	}
	lan, wan = true, true
	for _, i := range is {
		lan = lan && match(i, c.lan) != i.not
		wan = wan && match(i, c.wan) != i.not
	}
	return lan, wan
}
