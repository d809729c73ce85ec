package explain

import (
	"cmp"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/thurward/thurward/internal/guest/fqdn"
	"github.com/thurward/thurward/internal/host/policy"
)

// FlowWords describe a flow in words, as the command line has them. Empty is not
// given.
type FlowWords struct {
	From     string // lan or wan
	Proto    string // tcp, udp, icmp, or another as ParseProtocol takes it
	Src, Dst string // an address with or without a port
	FQDN     string // a name, or name:port in place of Dst
	State    string // new or established
	Expired  string // for how long the name has expired
	Ago, TTL string // how long ago the name was resolved, and with which TTL
	Others   bool   // another host has resolved the name, the source has not
}

// ParseFlow makes a flow of words. With a name, Dst may be left out: it stands
// for whichever address the name has, and the port follows the name. Times are
// seconds, or as 90s or 2m. Errors name the flag and what would be right.
func ParseFlow(p *policy.Policy, w FlowWords) (f policy.Flow, err error) {
	bad := func(flag, value, why, want string) (policy.Flow, error) {
		if value == "" {
			return policy.Flow{}, fmt.Errorf("--%s is missing (%s)", flag, want)
		}
		return policy.Flow{}, fmt.Errorf("--%s %q: %s (%s)", flag, value, why, want)
	}
	if w.From != "lan" && w.From != "wan" {
		return bad("from", w.From, "unknown side", "want lan or wan: where the packet enters")
	}
	f = policy.Flow{FromLAN: w.From == "lan", Established: w.State == "established"}
	var ok bool
	if f.Protocol, ok = policy.ParseProtocol(w.Proto); !ok {
		return bad("proto", w.Proto, "unknown protocol", policy.WantProtocol)
	}
	switch {
	case w.State != "" && w.State != "new" && w.State != "established":
		return bad("state", w.State, "unknown state", "want new or established")
	case f.Established && !f.Protocol.Forwarded():
		return bad("state", w.State, "there are no flows of "+f.Protocol.String(), "leave it out")
	}
	const endpoint = `want an address, or one with a port, as 192.0.2.1:443`
	var why string
	if f.Src, why = policy.ParseEndpoint(w.Src); why != "" {
		return bad("src", w.Src, why, endpoint)
	}
	if w.FQDN != "" {
		name, port, hasPort := strings.Cut(w.FQDN, ":")
		if why := noName(name); why != "" {
			return bad("fqdn", w.FQDN, why, "want a name, as example.com, or example.com:443 without --dst")
		}
		if !f.FromLAN {
			return bad("fqdn", w.FQDN, "names are of servers that LAN hosts ask for", "want --from lan")
		}
		f.FQDN = strings.ToLower(strings.TrimSuffix(name, "."))
		if w.Dst == "" {
			r, ok := policy.ParsePorts(port)
			if hasPort && (!ok || r.Lo != r.Hi) {
				return bad("fqdn", w.FQDN, "does not end with a port", "want a port from 1 to 65535")
			}
			f.Dst = netip.AddrPortFrom(p.Elsewhere(), uint16(r.Lo))
		} else if hasPort {
			return bad("fqdn", w.FQDN, "has a port beside --dst", "write the port in --dst")
		}
	}
	if w.Dst != "" || w.FQDN == "" {
		if f.Dst, why = policy.ParseEndpoint(w.Dst); why != "" {
			return bad("dst", w.Dst, why, endpoint)
		}
	}
	switch {
	case !f.Protocol.HasPorts() && (f.Src.Port() != 0 || f.Dst.Port() != 0):
		return bad("proto", w.Proto, "has no ports", "leave them out of --src and --dst")
	case f.Protocol.HasPorts() && f.Dst.Port() == 0:
		return bad("dst", cmp.Or(w.Dst, w.FQDN), "has no port", "want one, as "+cmp.Or(w.Dst, w.FQDN)+":443")
	}
	return f, parseNaming(p, &f, &w)
}

// parseNaming reads how the source of a flow knows its name.
func parseNaming(p *policy.Policy, f *policy.Flow, w *FlowWords) error {
	given := 0
	for _, v := range []string{w.Expired, w.Ago, map[bool]string{true: "yes"}[w.Others]} {
		if v != "" {
			given++
		}
	}
	switch {
	case given == 0 && w.TTL == "":
		return nil
	case f.FQDN == "":
		return fmt.Errorf("--expired, --resolved-ago and --by-other are about a name (want --fqdn)")
	case given > 1:
		return fmt.Errorf("--expired, --resolved-ago and --by-other contradict each other (want one of them)")
	case (w.Ago == "") != (w.TTL == ""):
		return fmt.Errorf("--resolved-ago and --ttl say together until when a name is good (want both)")
	}
	times := [3]time.Duration{}
	for i, v := range [...]struct{ flag, text string }{{"expired", w.Expired}, {"resolved-ago", w.Ago}, {"ttl", w.TTL}} {
		if v.text == "" {
			continue
		}
		d, err := time.ParseDuration(v.text)
		if n, nerr := strconv.ParseUint(v.text, 10, 31); nerr == nil {
			d, err = time.Duration(n)*time.Second, nil
		}
		if err != nil || d < 0 || d >= 1<<31*time.Second || i == 2 && d%time.Second != 0 {
			return fmt.Errorf("--%s %q is no time (want seconds, or as 90s or 2m)", v.flag, v.text)
		}
		times[i] = d
	}
	switch {
	case w.Others:
		f.Naming = policy.NameOthers
	case w.Expired != "":
		f.Naming, f.Ago = policy.NameExpired, times[0]
	default:
		f.Naming, f.Ago = Resolved(p, times[1], times[2])
	}
	return nil
}

// noName says why a text is not the name of a host, "" when it is one.
func noName(s string) string {
	if strings.HasPrefix(s, "*") {
		return "is a wildcard"
	}
	if _, err := netip.ParseAddr(s); err == nil {
		return "is an address"
	}
	if _, ok := fqdn.Encode(s); !ok || s == "" || s == "." {
		return "is no name"
	}
	return ""
}
