//go:build dot

package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"

	"golang.org/x/crypto/x509roots/fallback/bundle"

	"github.com/thurward/thurward/internal/dataplane"
	"github.com/thurward/thurward/internal/segment"
)

// startDoT starts what speaks TLS to the policy's upstreams. It is called once,
// before the packet loop.
func startDoT(p *segment.Policy, e *dataplane.Engine) error {
	for i := range p.Upstreams {
		u := &p.Upstreams[i]
		if u.TLS == 0 {
			continue
		}
		roots, err := rootCertificates()
		if err != nil {
			return err
		}
		// The exchange itself is not there yet; thurward build refuses such
		// a policy until it is.
		_ = tls.Client(nil, &tls.Config{RootCAs: roots, ServerName: p.Text(u.ServerName), MinVersion: tls.VersionTLS12}).Handshake
		return errors.New("DNS over TLS is not built yet")
	}
	return nil
}

// rootCertificates returns the certificate authorities that Mozilla's root
// program trusts, with the limits that it sets. They are compiled in: the image
// has no files.
func rootCertificates() (*x509.CertPool, error) {
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
	}
	return pool, nil
}
