// Package pageweb serves the page by Prometheus' web configuration: TLS, and who may read
// by password or by certificate. The configuration and what reads it are those of
// Prometheus' exporters (github.com/prometheus/exporter-toolkit): who runs Prometheus
// knows them. It is read again for each connection and each request, so that
// certificates and users change without a restart; what has no authentication any more
// is then served to nobody.
package pageweb

import (
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"

	"github.com/prometheus/exporter-toolkit/web"
	"go.yaml.in/yaml/v4"

	"github.com/thurward/thurward/internal/host/dashboard"
	"github.com/thurward/thurward/internal/host/limited"
)

// maxConfig is the largest configuration, in bytes.
const maxConfig = 1 << 20

// A config is what of a web configuration says who is served.
type config struct {
	TLS struct {
		Cert       string `yaml:"cert"`
		CertFile   string `yaml:"cert_file"`
		ClientAuth string `yaml:"client_auth_type"`
	} `yaml:"tls_server_config"`
	Users map[string]string `yaml:"basic_auth_users"`
}

func read(file string) (c config, err error) {
	b, err := limited.ReadFile(file, maxConfig)
	if err != nil {
		return c, err
	}
	return c, yaml.Unmarshal(b, &c)
}

// tls reports whether connections are encrypted.
func (c *config) tls() bool { return c.TLS.Cert != "" || c.TLS.CertFile != "" }

// authenticates reports whether clients must show who they are: a password, or a
// certificate that is verified. What only asks for a certificate accepts any, or none.
func (c *config) authenticates() bool {
	return len(c.Users) > 0 || c.tls() && c.TLS.ClientAuth == "RequireAndVerifyClientCert"
}

// Load reads a web configuration, and what it names.
func Load(file string) (*dashboard.Web, error) {
	fi, err := os.Stat(file)
	if err != nil {
		return nil, err
	}
	if fi.Mode().Perm()&0o002 != 0 {
		return nil, fmt.Errorf("%s can be written by others (mode %04o); make it 0600, or 0640", file, fi.Mode().Perm())
	}
	c, err := read(file)
	if err == nil {
		err = web.Validate(file)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	w := &dashboard.Web{TLS: c.tls(), Authenticates: c.authenticates()}
	w.Serve = func(l net.Listener, s *http.Server) error {
		flags := &web.FlagConfig{WebConfigFile: &file}
		if w.Authenticates {
			s.Handler = still(file, s.Handler)
		}
		return web.Serve(l, s, flags, slog.New(slog.DiscardHandler))
	}
	return w, nil
}

// still serves h as long as the configuration asks clients who they are, and to none that
// came before it did.
func still(file string, h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := read(file)
		if err != nil || len(c.Users) == 0 && !(c.authenticates() && r.TLS != nil && len(r.TLS.VerifiedChains) > 0) {
			http.Error(w, "the web configuration has no authentication any more", http.StatusServiceUnavailable)
			return
		}
		h.ServeHTTP(w, r)
	})
}
