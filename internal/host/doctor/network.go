package doctor

import (
	"errors"
	"strings"
	"syscall"
)

func (h *Host) bridges() Finding {
	const name = "bridges"
	var found []string
	for _, i := range h.interfaces() {
		if h.exists("/sys/class/net/" + i + "/bridge") {
			found = append(found, i+" ("+orNone(h.members(i))+")")
		}
	}
	if len(found) == 0 {
		return finding(name, Info, "the package's files in /usr/share/thurward/networkd make two with their TAP devices; docs/install.md", "there is no bridge: --lan and --wan can be demo, user, tap: or sockets")
	}
	return finding(name, OK, "", "bridges, with their members: %s", strings.Join(found, "; "))
}

func (h *Host) taps() Finding {
	var found []string
	for _, i := range h.interfaces() {
		if h.exists("/sys/class/net/" + i + "/tun_flags") {
			found = append(found, i)
		}
	}
	return finding("taps", Info, "", "TAP and TUN devices: %s", orNone(found))
}

// bridgeFilter is about the host's own packet filter, which may see what passes a bridge.
func (h *Host) bridgeFilter() Finding {
	const name = "br_netfilter"
	var on []string
	for _, f := range []string{"iptables", "arptables", "ip6tables"} {
		if strings.TrimSpace(h.read("/proc/sys/net/bridge/bridge-nf-call-"+f)) == "1" {
			on = append(on, f)
		}
	}
	if len(on) == 0 {
		return finding(name, OK, "", "the host does not filter bridged packets")
	}
	return finding(name, Warning, "sysctl net.bridge.bridge-nf-call-"+strings.Join(on, "=0 net.bridge.bridge-nf-call-")+"=0, if nothing else needs it (Docker sets it)",
		"the host's own firewall filters bridged packets (%s) and may drop what passes between a card and the machine", strings.Join(on, ", "))
}

// page is about the address at which run serves its page and metrics.
func (h *Host) page() Finding {
	const name = "page"
	if h.Page == "" {
		return finding(name, Info, "", "no page is served")
	}
	if strings.HasPrefix(h.Page, "unix:") {
		return finding(name, OK, "", "the page is the socket %s", strings.TrimPrefix(h.Page, "unix:"))
	}
	switch err := h.Listen(h.Page); {
	case err == nil:
		return finding(name, OK, "", "%s is free for the page and the metrics", h.Page)
	case errors.Is(err, syscall.EADDRINUSE):
		return finding(name, Info, "thurward run --page 127.0.0.1:PORT chooses another", "%s is in use, perhaps by a firewall that runs: the page gets another port", h.Page)
	default:
		return finding(name, Warning, "thurward run --page none does without", "%s cannot be used: %v", h.Page, err)
	}
}

// stream is about the socket on which the firewall's events are received.
func (h *Host) stream() Finding {
	if h.Dial(h.Tail) == nil {
		return finding("stream", Info, "a second firewall on this host needs --vsock with a path of its own", "%s is served: a firewall or a collector runs", h.Tail)
	}
	return finding("stream", OK, "", "nothing serves %s yet; thurward run will", h.Tail)
}
