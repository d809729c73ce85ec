// Package thurwardaccess is an extension for the OpenTelemetry Collector that guards
// HTTP servers of other components. As a middleware it refuses requests that are not
// for a name of loopback, so that a web site cannot read them by making its own name
// resolve to loopback (DNS rebinding), and, if it has a token, requests without it.
package thurwardaccess

import (
	"context"
	"crypto/rand"
	"errors"
	"net"
	"net/http"
	"strings"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/extension"
	"go.opentelemetry.io/collector/extension/extensionmiddleware"

	"github.com/thurward/thurward/internal/host/dashboard"
)

// Type is the extension's name in configurations.
var Type = component.MustNewType("thurward_access")

// Config is the extension's part of the collector's configuration.
type Config struct {
	// TokenFile is the file of the token that requests need, made if it does not
	// exist; empty: none.
	TokenFile string `mapstructure:"token_file"`
	// Hosts lists names beside those of loopback for which requests may be, such
	// as that of a container, by which Prometheus in another one connects to it.
	Hosts []string `mapstructure:"hosts"`
}

// Validate checks the configuration.
func (c *Config) Validate() error {
	for _, h := range c.Hosts {
		if h == "" || strings.ContainsAny(h, ":/* ") {
			return errors.New("hosts: want names without ports, as collector")
		}
	}
	return nil
}

// NewFactory makes the extension's factory.
func NewFactory() extension.Factory {
	return extension.NewFactory(Type, func() component.Config { return &Config{} },
		func(_ context.Context, _ extension.Settings, c component.Config) (extension.Extension, error) {
			return &guard{cfg: c.(*Config)}, nil
		}, component.StabilityLevelBeta)
}

// A guard wraps HTTP handlers.
type guard struct {
	cfg    *Config
	access dashboard.Access
}

var _ extensionmiddleware.HTTPServer = (*guard)(nil)

// Start reads the token, or makes one.
func (g *guard) Start(context.Context, component.Host) error {
	if g.cfg.TokenFile == "" {
		g.access = dashboard.Access{Open: true}
		return nil
	}
	t, err := dashboard.TokenFile(g.cfg.TokenFile, rand.Reader)
	g.access = dashboard.Access{Tokens: []string{t}}
	return err
}

// Shutdown does nothing.
func (g *guard) Shutdown(context.Context) error { return nil }

// GetHTTPHandler returns the function that wraps a server's handler.
func (g *guard) GetHTTPHandler(context.Context) (extensionmiddleware.WrapHTTPHandlerFunc, error) {
	return func(_ context.Context, next http.Handler) (http.Handler, error) {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !dashboard.LocalHost(r.Host) && !g.named(r.Host) {
				http.Error(w, "this port answers to the names of this host only", http.StatusForbidden)
				return
			}
			if !g.access.Allows(r) {
				w.Header().Set("WWW-Authenticate", `Bearer realm="thurward"`)
				http.Error(w, "a token is needed: send \"Authorization: Bearer\" with that of "+g.cfg.TokenFile, http.StatusUnauthorized)
				return
			}
			next.ServeHTTP(w, r)
		}), nil
	}, nil
}

func (g *guard) named(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	for _, h := range g.cfg.Hosts {
		if strings.EqualFold(h, host) {
			return true
		}
	}
	return false
}
