package verdict

// A Hint is further information about a packet beside its verdict. Zero: none.
type Hint uint8

// The hints. The first four are ways by which a flow may resolve names past the firewall's
// DNS proxy.
const (
	_           Hint = iota
	BypassDNS        // port 53 of another server than the proxy
	BypassDoT        // TCP port 853: DNS over TLS (RFC 7858)
	BypassDoQ        // UDP port 853: DNS over QUIC (RFC 9250)
	BypassDoH        // port 443 of a known resolver: DNS over HTTPS (RFC 8484)
	OtherClient      // a rule would accept it if its source had resolved the name, which another client has
	NameExpired      // a rule would accept it if the name, which its source has resolved, had not expired
)

// Bypass returns the way past the DNS proxy as in the event field firewall.dns_bypass, ""
// for other hints.
func (h Hint) Bypass() string {
	switch h {
	case BypassDNS:
		return "dns"
	case BypassDoT:
		return "dot"
	case BypassDoQ:
		return "doq"
	case BypassDoH:
		return "doh"
	}
	return ""
}

// Name returns the hint about the destination's name as in the event field firewall.hint,
// "" for other hints.
func (h Hint) Name() string {
	switch h {
	case OtherClient:
		return "name_resolved_by_other_client"
	case NameExpired:
		return "name_expired"
	}
	return ""
}
