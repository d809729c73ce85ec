package netlab

import (
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	netlog "gvisor.dev/gvisor/pkg/log"
)

// The internet behind the router (RFC 5737 documentation addresses).
var (
	internet   = netip.MustParsePrefix("198.51.100.1/24")
	webAddr    = netip.MustParseAddr("198.51.100.80")
	dnsAddr    = netip.MustParseAddr("198.51.100.53")
	webName    = "www.example.com"
	nowhere    = "nowhere.example.com"
	servedPort = []uint16{80, 25, 8080} // 25 and 8080 are there to show that a firewall stands before them
)

// Config says where the firewall stands.
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

// A World is the hosts around a firewall. Close it after use.
type World struct {
	Config
	LANSwitch, WANSwitch *Switch // the firewall is to be attached to these

	Alice, Bob *Host // on the LAN; the firewall is their gateway
	Router     *Host // the firewall's gateway
	Web        *Web  // behind the router, named WebName
	DNS        *DNS  // behind the router
	Mallory    *Host // on the WAN, with a route to the LAN through the firewall

	hosts []*Host
}

// WebName is the web server's name; NoName does not exist.
func (w *World) WebName() string { return webName }

// NoName is a name that the DNS server does not know.
func (w *World) NoName() string { return nowhere }

// quiet keeps what netstack has to say about a guest's packets off this process's
// standard error, for which it would wait.
var quiet = sync.OnceFunc(func() { netlog.SetTarget(&netlog.Writer{Next: io.Discard}) })

// New makes the world and starts its servers.
func New(cfg Config) (*World, error) {
	quiet()
	w := &World{Config: cfg, LANSwitch: NewSwitch("lan"), WANSwitch: NewSwitch("wan"), Web: &Web{}, DNS: &DNS{}}
	if err := w.build(); err != nil {
		w.Close()
		return nil, err
	}
	return w, nil
}

func (w *World) build() error {
	far := NewSwitch("internet")
	lan := pick(w.LAN, 2, w.LAN.Addr())
	wan := pick(w.WAN, 1, w.WAN.Addr(), w.Gateway)
	if len(lan) < 2 || len(wan) < 1 {
		return fmt.Errorf("simulated world: the networks %v and %v are too small for its hosts (two on the LAN, one on the WAN)", w.LAN, w.WAN)
	}
	if w.WAN.Overlaps(internet) || w.LAN.Overlaps(internet) || w.LAN.Overlaps(w.WAN) {
		return fmt.Errorf("simulated world: the networks %v, %v and %v must not overlap", w.LAN, w.WAN, internet.Masked())
	}
	on := func(net netip.Prefix, a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, net.Bits()) }

	var errs []error
	host := func(name string, sw *Switch, address netip.Prefix) *Host {
		h, err := NewHost(name)
		if err != nil {
			errs = append(errs, err)
			return nil
		}
		w.hosts = append(w.hosts, h)
		errs = append(errs, h.Connect(sw, address))
		return h
	}
	w.Alice = host("alice", w.LANSwitch, on(w.LAN, lan[0]))
	w.Bob = host("bob", w.LANSwitch, on(w.LAN, lan[1]))
	w.Router = host("router", w.WANSwitch, on(w.WAN, w.Gateway))
	w.Mallory = host("mallory", w.WANSwitch, on(w.WAN, wan[0]))
	w.Web.Host = host("web", far, on(internet, webAddr))
	w.DNS.Host = host("dns", far, on(internet, dnsAddr))
	if err := errors.Join(errs...); err != nil {
		return err
	}
	w.DNS.names = map[string]netip.Addr{webName + ".": webAddr}
	return errors.Join(
		w.Router.Connect(far, internet),
		w.Router.Forward(),
		w.Alice.Route(everywhere, w.LAN.Addr()),
		w.Bob.Route(everywhere, w.LAN.Addr()),
		w.Web.Route(everywhere, internet.Addr()),
		w.DNS.Route(everywhere, internet.Addr()),
		w.Mallory.Route(w.LAN.Masked(), w.WAN.Addr()),
		w.Mallory.Route(everywhere, w.Gateway),
		w.serve(),
	)
}

// What a guest can make the servers hold.
const (
	maxServed      = 256 // connections of one server's port at a time
	serverPatience = 30 * time.Second
)

// bounded returns a listener that closes connections beyond maxServed at once.
func bounded(l net.Listener) net.Listener { return &bounds{l, make(chan struct{}, maxServed)} }

type bounds struct {
	net.Listener
	slots chan struct{}
}

// Accept waits for a connection for which there is room.
func (b *bounds) Accept() (net.Conn, error) {
	for {
		c, err := b.Listener.Accept()
		if err != nil {
			return nil, err
		}
		select {
		case b.slots <- struct{}{}:
			return &held{Conn: c, free: sync.OnceFunc(func() { <-b.slots })}, nil
		default:
			c.Close()
		}
	}
}

// A held connection gives its place back when it is closed.
type held struct {
	net.Conn
	free func()
}

// Close ends the connection.
func (h *held) Close() error {
	h.free()
	return h.Conn.Close()
}

// serve starts the servers. They end when their hosts do.
func (w *World) serve() error {
	for _, port := range servedPort {
		l, err := w.Web.ListenTCP(port)
		if err != nil {
			return err
		}
		srv := &http.Server{Handler: w.Web, ReadHeaderTimeout: serverPatience, IdleTimeout: serverPatience, MaxHeaderBytes: 16 << 10, ErrorLog: log.New(io.Discard, "", 0)}
		go srv.Serve(bounded(l)) //nolint:errcheck // ends with the listener
	}
	c, err := w.DNS.ListenUDP(dnsPort)
	if err != nil {
		return err
	}
	go w.DNS.serve(c)
	// Someone is at home on the LAN: that nobody outside can tell is the
	// firewall's doing.
	for _, h := range []*Host{w.Alice, w.Bob} {
		l, err := h.ListenTCP(22)
		if err != nil {
			return err
		}
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				c.Close()
			}
		}()
	}
	return nil
}

// Close ends all hosts.
func (w *World) Close() {
	for _, h := range w.hosts {
		h.Close()
	}
}

// pick returns the first n host addresses of a network that are not taken,
// fewer when there are no more.
func pick(network netip.Prefix, n int, taken ...netip.Addr) (free []netip.Addr) {
	for a := network.Masked().Addr().Next(); network.Contains(a) && network.Contains(a.Next()) && len(free) < n; a = a.Next() {
		used := false
		for _, t := range taken {
			used = used || t == a
		}
		if !used {
			free = append(free, a)
		}
	}
	return free
}
