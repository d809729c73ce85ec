package importer

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
)

// Links is what a router says about its interfaces.
type Links struct {
	Interfaces []Link
	Routes     []Route // without the default routes
	Default    string  // interface of the default route, "" if there is none or several
	Gateway    netip.Addr
}

// A Link is an interface with its IPv4 addresses and their networks' lengths.
type Link struct {
	Name      string
	Addresses []netip.Prefix
}

// A Route is a network that is reached through an interface.
type Route struct {
	Name    string
	Network netip.Prefix
}

// ReadLinks reads what ip -j address and ip -j route print, one after the other in
// any order.
func ReadLinks(src []byte) (*Links, error) {
	l := &Links{}
	d := json.NewDecoder(bytes.NewReader(src))
	defaults := 0
	for {
		var list []struct {
			Ifname   string
			AddrInfo []struct {
				Family, Local string
				Prefixlen     int
			} `json:"addr_info"`
			Dst, Gateway, Dev, Type string
		}
		err := d.Decode(&list)
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("not the output of ip -j address and ip -j route: %w", err)
		}
		for _, x := range list {
			switch {
			case x.Ifname != "" && x.Ifname != "lo":
				i := Link{Name: x.Ifname}
				for _, a := range x.AddrInfo {
					addr, err := netip.ParseAddr(a.Local)
					if a.Family != "inet" || err != nil || !addr.Is4() || a.Prefixlen < 0 || a.Prefixlen > 32 {
						continue
					}
					i.Addresses = append(i.Addresses, netip.PrefixFrom(addr, a.Prefixlen))
				}
				l.Interfaces = append(l.Interfaces, i)
			case x.Dst == "default" || x.Dst == "0.0.0.0/0":
				if defaults++; defaults > 1 && l.Default != x.Dev {
					l.Default = ""
					continue
				}
				l.Default = x.Dev
				if g, err := netip.ParseAddr(x.Gateway); err == nil && g.Is4() {
					l.Gateway = g
				}
			case x.Dst != "" && x.Dev != "":
				p, err := netip.ParsePrefix(x.Dst)
				if a, err2 := netip.ParseAddr(x.Dst); err2 == nil {
					p, err = netip.PrefixFrom(a, a.BitLen()), nil
				}
				if err == nil && p.Addr().Is4() {
					l.Routes = append(l.Routes, Route{x.Dev, p})
				}
			}
		}
	}
	if len(l.Interfaces) == 0 && len(l.Routes) == 0 && l.Default == "" {
		return nil, fmt.Errorf("not the output of ip -j address and ip -j route: no interface and no route in it")
	}
	return l, nil
}

// address returns the first address of an interface.
func (l *Links) address(name string) (netip.Prefix, bool) {
	if l != nil {
		for _, i := range l.Interfaces {
			if i.Name == name && len(i.Addresses) > 0 {
				return i.Addresses[0], true
			}
		}
	}
	return netip.Prefix{}, false
}
