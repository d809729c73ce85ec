package evasions

import (
	"encoding/binary"
	"slices"

	"github.com/miekg/dns"
)

// Names of the attacker's that lead to addresses inside (DNS rebinding), and
// answers that are not well formed, for clients that cannot bear them.
var namesRelayed = []attack{
	{name: "names/rebinding-lan", trick: "a name that a rule allows answers with an address of the LAN", source: "Jackson et al. 2007 (DNS rebinding)", fate: "refused, unless the name is one of private_names", run: told("10.0.0.4")},
	{name: "names/rebinding-own", trick: "with the firewall's own address", source: "Jackson et al. 2007", fate: "refused", run: told(fwLAN)},
	{name: "names/rebinding-external", trick: "with the firewall's external address", source: "Jackson et al. 2007", fate: "refused", run: told(fwWAN)},
	{name: "names/rebinding-link", trick: "with an address of the WAN's link", source: "Jackson et al. 2007", fate: "refused", run: told(mallory)},
	{name: "names/rebinding-private", trick: "with a private address elsewhere", source: "RFC 1918; Jackson et al. 2007", fate: "refused", run: told("192.168.1.1")},
	{name: "names/rebinding-shared", trick: "with an address that providers share", source: "RFC 6598", fate: "refused", run: told("100.64.0.1")},
	{name: "names/rebinding-link-local", trick: "with 169.254.169.254, the address of clouds' metadata", source: "RFC 3927; CWE-918", fate: "refused", run: told("169.254.169.254")},
	{name: "names/rebinding-loopback", trick: "with 127.0.0.1", source: "RFC 1122 section 3.2.1.3", fate: "refused", run: told("127.0.0.1")},
	{name: "names/rebinding-zero", trick: "with 0.0.0.0, which hosts take for themselves", source: "Oligo 2024 (\"0.0.0.0 day\")", fate: "refused", run: told("0.0.0.0")},
	{name: "names/rebinding-second", trick: "with a public address first and a private one behind it", source: "Jackson et al. 2007", fate: "refused",
		run: func(a *arena, legit bool) bool {
			second := "192.168.1.1"
			if legit {
				second = other
			}
			a.is("good.example", cdn, second)
			return gets(a.ask(alice, "good.example", dns.TypeA), second)
		}},
	{name: "names/rebinding-hint", trick: "with a private address as a hint of an HTTPS record", source: "RFC 9460 section 7.3", fate: "refused",
		run: func(a *arena, legit bool) bool {
			addr := "192.168.1.1"
			if legit {
				addr = cdn
			}
			a.zone["good.example. HTTPS"] = answer{answer: []string{"@ 300 IN HTTPS 1 . ipv4hint=" + addr}}
			r := a.ask(alice, "good.example", dns.TypeHTTPS)
			return r != nil && len(r.Answer) > 0
		}},
	{name: "names/pointer-loop", trick: "an owner's name that is a compression pointer to itself", source: "RFC 1035 section 4.1.4; CVE-2017-9445, RFC 9267", fate: "SERVFAIL", run: malformed(func(at int) []byte { return pointer(at) })},
	{name: "names/pointer-beyond", trick: "an owner's name that points beyond the end", source: "RFC 9267 section 2", fate: "SERVFAIL", run: malformed(func(int) []byte { return pointer(0x3ff0) })},
	{name: "names/pointer-forward", trick: "an owner's name that points forward", source: "RFC 9267 section 2", fate: "SERVFAIL", run: malformed(func(at int) []byte { return pointer(at + 2) })},
	{name: "names/label-beyond", trick: "a label that is longer than the rest of the message", source: "RFC 9267 section 3", fate: "SERVFAIL", run: malformed(func(int) []byte { return []byte{63, 'x'} })},
	{name: "names/label-type", trick: "a label of a type that there is not", source: "RFC 6891 section 5", fate: "SERVFAIL", run: malformed(func(int) []byte { return []byte{0x80, 12} })},
	{name: "names/long-name", trick: "a name of more than 255 bytes", source: "RFC 9267 section 4", fate: "SERVFAIL",
		run: malformed(func(int) []byte {
			return append(slices.Repeat(append([]byte{31}, slices.Repeat([]byte{'x'}, 31)...), 9), 0)
		})},
	{name: "names/alias-pointer-loop", trick: "an alias whose target is a pointer to itself", source: "RFC 9267 section 2", fate: "SERVFAIL",
		run: func(a *arena, legit bool) bool {
			return relays(a, func(b []byte) []byte {
				target := pointer(len(b) + 12)
				if legit {
					target = []byte{1, 'w', 0xc0, 12}
				}
				b = append(b, 0xc0, 12, 0, 5, 0, 1, 0, 0, 1, 44, 0, byte(len(target)))
				return append(b, target...)
			})
		}},
	{name: "names/record-beyond", trick: "a record that says that it is longer than the message", source: "RFC 9267 section 5", fate: "SERVFAIL",
		run: func(a *arena, legit bool) bool {
			return relays(a, func(b []byte) []byte {
				n := byte(200)
				if legit {
					n = 4
				}
				return append(b, 0xc0, 12, 0, 1, 0, 1, 0, 0, 1, 44, 0, n, 11, 22, 33, 80)
			})
		}},
}

func pointer(at int) []byte { return binary.BigEndian.AppendUint16(nil, 0xc000|uint16(at)) }

// told reports whether alice receives an address in the answer for a name that a rule
// allows, or may connect to it.
func told(addr string) func(a *arena, legit bool) bool {
	return func(a *arena, legit bool) bool {
		x := addr
		if legit {
			x = cdn
		}
		a.is("good.example", x)
		r := a.ask(alice, "good.example", dns.TypeA)
		return gets(r, x)
	}
}

func gets(r *dns.Msg, addr string) bool {
	return r != nil && slices.ContainsFunc(r.Answer, func(rr dns.RR) bool {
		x, ok := rr.(*dns.A)
		return ok && x.A.String() == addr
	})
}

// malformed answers with an address whose owner's name is what f makes at an
// offset, and reports whether alice gets it.
func malformed(f func(at int) []byte) func(a *arena, legit bool) bool {
	return func(a *arena, legit bool) bool {
		return relays(a, func(b []byte) []byte {
			owner := pointer(12)
			if !legit {
				owner = f(len(b))
			}
			return append(append(b, owner...), 0, 1, 0, 1, 0, 0, 1, 44, 0, 4, 11, 22, 33, 80)
		})
	}
}

// relays reports whether alice gets an answer with the record that f appends to
// its head and question.
func relays(a *arena, f func(b []byte) []byte) bool {
	a.zone["good.example. A"] = answer{raw: func(q []byte) []byte {
		n := 12 + len("good.example") + 2 + 4
		b := slices.Clone(q[:n])
		b[2], b[3] = 0x81, 0x80
		copy(b[4:], []byte{0, 1, 0, 1, 0, 0, 0, 0})
		return f(b)
	}}
	m := new(dns.Msg)
	m.SetQuestion("good.example.", dns.TypeA)
	b, _ := m.Pack()
	r := a.askRaw(alice, b)
	return len(r) >= 12 && r[3]&15 == dns.RcodeSuccess && r[7] == 1
}
