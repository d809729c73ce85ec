//go:build !dot

package main

import (
	"errors"

	"github.com/thurward/thurward/internal/guest/router"
	"github.com/thurward/thurward/internal/shared/ruleset"
)

// startDoT returns an error for a policy with TLS: this program has none. thurward build
// chooses the program with TLS where needed (ADR 0010).
func startDoT(p *ruleset.Policy, _ *router.Engine) error {
	for i := range p.Upstreams {
		if p.Upstreams[i].TLS != 0 {
			return errors.New("the policy has an upstream with tls, and this program is built without DNS over TLS " +
				"(link the image with build/firewall-dot.elf, as thurward build does by itself)")
		}
	}
	return nil
}
