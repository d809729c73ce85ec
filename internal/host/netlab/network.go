package netlab

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"sync"

	netlog "gvisor.dev/gvisor/pkg/log"
)

// The internet behind the router (RFC 5737 documentation addresses).
var (
	internet   = netip.MustParsePrefix("198.51.100.1/24")
	webAddr    = netip.MustParseAddr("198.51.100.80")
	dnsAddr    = netip.MustParseAddr("198.51.100.53")
	webName    = "www.example.com"
	nowhere    = "nowhere.example.com"
	servedPort = []uint16{80, 25, 8080} // 25 and 8080 for what the firewall is to drop
)

// Config has the firewall's addresses.
type Config struct {
	LAN     netip.Prefix // address of the firewall's LAN interface
	WAN     netip.Prefix // address of its WAN interface
	Gateway netip.Addr   // its next hop on the WAN, which becomes the router
}

// DefaultConfig is the topology of the repository's rules.yaml.
func DefaultConfig() Config {
	return Config{
		LAN:     netip.MustParsePrefix("10.0.0.1/24"),
		WAN:     netip.MustParsePrefix("203.0.113.10/24"),
		Gateway: netip.MustParseAddr("203.0.113.1"),
	}
}

// A Network is the hosts on both sides of a firewall. Close it after use.
type Network struct {
	Config
	LANSwitch, WANSwitch *Switch // the firewall's interfaces attach to these

	Alice, Bob *Host // on the LAN; the firewall is their gateway
	Router     *Host // the firewall's gateway
	Web        *Web  // behind the router, named WebName
	DNS        *DNS  // behind the router
	Mallory    *Host // on the WAN, with a route to the LAN through the firewall

	hosts []*Host
}

// WebName is the web server's name; NoName does not exist.
func (n *Network) WebName() string { return webName }

// NoName is a name that the DNS server does not know.
func (n *Network) NoName() string { return nowhere }

// quiet discards what netstack logs about a guest's packets: it would block on a
// standard error that nobody reads.
var quiet = sync.OnceFunc(func() { netlog.SetTarget(&netlog.Writer{Next: io.Discard}) })

// New makes the hosts and starts their servers.
func New(cfg Config) (*Network, error) {
	quiet()
	n := &Network{Config: cfg, LANSwitch: NewSwitch("lan"), WANSwitch: NewSwitch("wan"), Web: &Web{}, DNS: &DNS{}}
	if err := n.build(); err != nil {
		n.Close()
		return nil, err
	}
	return n, nil
}

func (n *Network) build() error {
	far := NewSwitch("internet")
	lan := pick(n.LAN, 2, n.LAN.Addr())
	wan := pick(n.WAN, 1, n.WAN.Addr(), n.Gateway)
	if len(lan) < 2 || len(wan) < 1 {
		return fmt.Errorf("simulated network: %v and %v are too small for its hosts (two on the LAN, one on the WAN)",
			n.LAN, n.WAN)
	}
	if n.WAN.Overlaps(internet) || n.LAN.Overlaps(internet) || n.LAN.Overlaps(n.WAN) {
		return fmt.Errorf("simulated network: %v, %v and %v must not overlap", n.LAN, n.WAN, internet.Masked())
	}
	on := func(net netip.Prefix, a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, net.Bits()) }

	var errs []error
	host := func(name string, sw *Switch, address netip.Prefix) *Host {
		h, err := NewHost(name)
		if err != nil {
			errs = append(errs, err)
			return nil
		}
		n.hosts = append(n.hosts, h)
		errs = append(errs, h.Connect(sw, address))
		return h
	}
	n.Alice = host("alice", n.LANSwitch, on(n.LAN, lan[0]))
	n.Bob = host("bob", n.LANSwitch, on(n.LAN, lan[1]))
	n.Router = host("router", n.WANSwitch, on(n.WAN, n.Gateway))
	n.Mallory = host("mallory", n.WANSwitch, on(n.WAN, wan[0]))
	n.Web.Host = host("web", far, on(internet, webAddr))
	n.DNS.Host = host("dns", far, on(internet, dnsAddr))
	if err := errors.Join(errs...); err != nil {
		return err
	}
	n.DNS.names = map[string]netip.Addr{webName + ".": webAddr}
	return errors.Join(
		n.Router.Connect(far, internet),
		n.Router.Forward(),
		n.Alice.Route(everywhere, n.LAN.Addr()),
		n.Bob.Route(everywhere, n.LAN.Addr()),
		n.Web.Route(everywhere, internet.Addr()),
		n.DNS.Route(everywhere, internet.Addr()),
		n.Mallory.Route(n.LAN.Masked(), n.WAN.Addr()),
		n.Mallory.Route(everywhere, n.Gateway),
		n.serve(),
	)
}

// Close ends all hosts.
func (n *Network) Close() {
	for _, h := range n.hosts {
		h.Close()
	}
}

// pick returns the first count host addresses of a network that are not taken,
// fewer if there are no more.
func pick(network netip.Prefix, count int, taken ...netip.Addr) (free []netip.Addr) {
	a := network.Masked().Addr().Next()
	for ; network.Contains(a) && network.Contains(a.Next()) && len(free) < count; a = a.Next() {
		if !slices.Contains(taken, a) {
			free = append(free, a)
		}
	}
	return free
}
