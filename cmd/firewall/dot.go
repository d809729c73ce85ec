//go:build dot

package main

import (
	"crypto/x509"
	"errors"
	"net/netip"
	"runtime"
	"strconv"
	"sync"

	"golang.org/x/crypto/x509roots/fallback/bundle"

	"github.com/thurward/thurward/internal/guest/dot/tlspipe"
	"github.com/thurward/thurward/internal/guest/router"
	"github.com/thurward/thurward/internal/shared/ruleset"
)

// startDoT starts a goroutine for each of the policy's upstreams with TLS. It works when
// the packet loop has data for it. startDoT is called once, before the packet loop.
func startDoT(p *ruleset.Policy, e *router.Engine) error {
	links := e.Host().Links()
	if len(links) > 0 && !clockSet() {
		say("note: the time of day is not known, so that certificates cannot be verified: upstreams with tls are not used")
	}
	mozillas := sync.OnceValues(mozilla)
	for _, l := range links {
		u := &p.Upstreams[l.Up]
		roots := mozillas
		if u.CA.Len > 0 {
			der := p.Text(u.CA)
			roots = sync.OnceValues(func() (*x509.CertPool, error) { return authorities(der) })
		}
		name := p.Text(u.ServerName)
		last := ""
		go tlspipe.Run(l.Pipe, tlspipe.Config{Name: name, Roots: roots, Time: timeOfDay, Yield: runtime.Gosched,
			Refused: func(why string) {
				if why != last { // each reason once: the console is slow
					last = why
					say("upstream " + netip.AddrFrom16(u.Address).Unmap().String() + ":" + strconv.Itoa(int(u.Port)) + ": its certificate for " + name + " is refused: " + why)
				}
			}})
	}
	return nil
}

// mozilla returns the certificate authorities of Mozilla's root program, with its
// constraints. They are compiled in: the image has no files.
func mozilla() (*x509.CertPool, error) {
	pool := x509.NewCertPool()
	for r := range bundle.Roots() {
		c, err := x509.ParseCertificate(r.Certificate)
		if err != nil {
			return nil, errors.New("a compiled-in root certificate cannot be read: " + err.Error())
		}
		if r.Constraint == nil {
			pool.AddCert(c)
		} else {
			pool.AddCertWithConstraint(c, r.Constraint)
		}
		runtime.Gosched() // after each, since there are many
	}
	return pool, nil
}

// authorities parses the certificates of an upstream's ca in the policy.
func authorities(der string) (*x509.CertPool, error) {
	cs, err := x509.ParseCertificates([]byte(der))
	if err != nil {
		return nil, errors.New("a certificate of ca in the policy cannot be read: " + err.Error())
	}
	pool := x509.NewCertPool()
	for _, c := range cs {
		pool.AddCert(c)
	}
	return pool, nil
}
