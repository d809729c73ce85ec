package verdict

// A Hint is what is worth knowing about a packet beside its verdict. Zero:
// nothing.
type Hint uint8

// The hints. The first four say by what a flow might resolve names without the
// firewall's DNS proxy.
const (
	_           Hint = iota
	BypassDNS        // port 53 of another server
	BypassDoT        // TCP port 853: DNS over TLS (RFC 7858)
	BypassDoQ        // UDP port 853: DNS over QUIC (RFC 9250)
	BypassDoH        // port 443 of a known resolver: DNS over HTTPS (RFC 8484)
	OtherClient      // a rule would accept it if its source had resolved the name, as another client did
	NameExpired      // a rule would accept it if the name that its source has resolved had not expired
)

// Bypass returns the way around the DNS proxy, as firewall.dns_bypass has it; ""
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

// Name returns what is said about the packet's name, as firewall.hint has it; ""
// for other hints.
func (h Hint) Name() string {
	switch h {
	case OtherClient:
		return "name_resolved_by_other_client"
	case NameExpired:
		return "name_expired"
	}
	return ""
}
