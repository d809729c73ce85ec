package e2e

import (
	"crypto"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// signedZone makes a small zone with DNSSEC, and what a validator trusts.
func signedZone(t testing.TB) (zone, anchor string) {
	t.Helper()
	const origin = "signed.example."
	key := &dns.DNSKEY{Hdr: dns.RR_Header{Name: origin, Rrtype: dns.TypeDNSKEY, Class: dns.ClassINET, Ttl: 300}, Flags: 257, Protocol: 3, Algorithm: dns.ECDSAP256SHA256}
	private, err := key.Generate(256)
	if err != nil {
		t.Fatal(err)
	}
	sets := [][]dns.RR{{key}}
	for _, s := range []string{
		"@ 300 IN SOA ns.@ root.@ 1 3600 600 86400 60", "@ 300 IN NS www.@", "www.@ 300 IN A 198.51.100.80",
		"@ 60 IN NSEC www.@ NS SOA RRSIG NSEC DNSKEY", "www.@ 60 IN NSEC @ A RRSIG NSEC",
	} {
		rr, err := dns.NewRR(strings.ReplaceAll(s, "@", origin))
		if err != nil {
			t.Fatal(err)
		}
		sets = append(sets, []dns.RR{rr})
	}
	for _, set := range sets {
		sig := &dns.RRSIG{Hdr: dns.RR_Header{Ttl: set[0].Header().Ttl}, Algorithm: key.Algorithm, KeyTag: key.KeyTag(), SignerName: origin,
			Inception: uint32(time.Now().Add(-time.Hour).Unix()), Expiration: uint32(time.Now().Add(24 * time.Hour).Unix())}
		if err := sig.Sign(private.(crypto.Signer), set); err != nil {
			t.Fatal(err)
		}
		zone += fmt.Sprintln(set[0]) + fmt.Sprintln(sig)
	}
	return zone, fmt.Sprintf("trust-anchors { %q static-key 257 3 %d %q; };\n", origin, key.Algorithm, key.PublicKey)
}
