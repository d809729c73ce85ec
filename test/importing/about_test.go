package importing

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"

	"github.com/thurward/thurward/internal/host/importer"
)

// corpus is where the rule sets are.
const corpus = "../../internal/host/importer/testdata/real"

// An about is what about.yaml says of a rule set: who made it and how, and the network that it
// was made for.
type about struct {
	Software   string           `yaml:"software"` // the name and version of what made it
	Made       string           `yaml:"made"`     // how
	Source     string           `yaml:"source"`   // where a structure is from that was written by hand
	Interfaces []aboutInterface `yaml:"interfaces"`
	Routes     []string         `yaml:"routes"`    // as ip route add takes them
	ReversePat string           `yaml:"rp_filter"` // as the software sets it; "": 0
	LAN        string           `yaml:"lan"`       // the interface that becomes lan0
	WAN        string           `yaml:"wan"`       // and wan0
	Gateway    netip.Addr       `yaml:"gateway"`   // on the WAN
	Hosts      []netip.Addr     `yaml:"hosts"`     // addresses that matter and that no rule names
	name, dir  string
}

type aboutInterface struct {
	Name      string         `yaml:"name"`
	Addresses []netip.Prefix `yaml:"addresses"`
}

// read returns the rule sets of the corpus in order of their names.
func read(t *testing.T) (as []*about) {
	t.Helper()
	dirs, err := filepath.Glob(filepath.Join(corpus, "*", "about.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(dirs)
	for _, f := range dirs {
		src, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		a := &about{dir: filepath.Dir(f), name: filepath.Base(filepath.Dir(f))}
		d := yaml.NewDecoder(strings.NewReader(string(src)))
		d.KnownFields(true)
		if err := d.Decode(a); err != nil {
			t.Fatalf("%s: %v", f, err)
		}
		if err := a.check(); err != "" {
			t.Fatalf("%s: %s", f, err)
		}
		as = append(as, a)
	}
	return as
}

func (a *about) check() string {
	switch {
	case a.Software == "" || a.Made == "":
		return "it does not say what made it, and how"
	case a.index(a.LAN) < 0 || a.index(a.WAN) < 0 || a.LAN == a.WAN:
		return "lan and wan are not two of its interfaces"
	case !a.Gateway.Is4():
		return "no gateway"
	case exists(filepath.Join(a.dir, "rules.nft")) == exists(filepath.Join(a.dir, "rules.v4")):
		return "want rules.nft or rules.v4 beside it"
	}
	for _, n := range a.Interfaces {
		if len(n.Addresses) == 0 {
			return n.Name + " has no address"
		}
	}
	return ""
}

// format is what the rules are written in.
func (a *about) format() string {
	if exists(filepath.Join(a.dir, "rules.v4")) {
		return "iptables"
	}
	return "nft"
}

func (a *about) rules() string {
	if a.format() == "iptables" {
		return filepath.Join(a.dir, "rules.v4")
	}
	return filepath.Join(a.dir, "rules.nft")
}

func (a *about) reversePath() string {
	if a.ReversePat == "" {
		return "0"
	}
	return a.ReversePat
}

// index returns the number of an interface, -1 if there is none of that name.
func (a *about) index(name string) int {
	return slices.IndexFunc(a.Interfaces, func(n aboutInterface) bool { return n.Name == name })
}

// own reports whether an address is the firewall's.
func (a *about) own(ip netip.Addr) bool {
	return slices.ContainsFunc(a.Interfaces, func(n aboutInterface) bool {
		return slices.ContainsFunc(n.Addresses, func(p netip.Prefix) bool { return p.Addr() == ip })
	})
}

// behind returns the number of the interface behind which an address is: its network, a route's,
// or the WAN's.
func (a *about) behind(ip netip.Addr) int {
	best, bits := a.index(a.WAN), -1
	for i, n := range a.Interfaces {
		for _, p := range n.Addresses {
			if p.Contains(ip) && p.Bits() > bits {
				best, bits = i, p.Bits()
			}
		}
	}
	for _, r := range a.Routes {
		f := strings.Fields(r)
		p, err := netip.ParsePrefix(f[0])
		if err != nil || !p.Contains(ip) || p.Bits() <= bits {
			continue
		}
		for j := range f {
			if f[j] == "dev" && j+1 < len(f) {
				best, bits = a.index(f[j+1]), p.Bits()
			} else if f[j] == "via" && j+1 < len(f) {
				if via, err := netip.ParseAddr(f[j+1]); err == nil && via != ip {
					best, bits = a.behind(via), p.Bits()
				}
			}
		}
	}
	return best
}

// broadcast reports whether an address is a network's own or its broadcast address, multicast,
// or one that no host has.
func (a *about) broadcast(ip netip.Addr) bool {
	if !ip.Is4() || ip.IsMulticast() || ip.IsLoopback() || ip.IsUnspecified() || ip.As4()[0] >= 224 ||
		ip.As4()[0] == 0 {
		return true
	}
	for _, n := range a.Interfaces {
		for _, p := range n.Addresses {
			if p.Bits() < 31 && p.Contains(ip) && (ip == p.Masked().Addr() || !p.Contains(ip.Next())) {
				return true
			}
		}
	}
	return false
}

// options are what a person who knows the network tells the importer.
func (a *about) options() importer.Options {
	links := &importer.Links{Default: a.WAN, Gateway: a.Gateway}
	for _, i := range a.Interfaces {
		links.Interfaces = append(links.Interfaces, importer.Link{Name: i.Name, Addresses: i.Addresses})
	}
	return importer.Options{File: filepath.Base(a.rules()), LAN: a.LAN, WAN: a.WAN,
		LANAddress: a.Interfaces[a.index(a.LAN)].Addresses[0],
		WANAddress: a.Interfaces[a.index(a.WAN)].Addresses[0], Gateway: a.Gateway, Links: links}
}
