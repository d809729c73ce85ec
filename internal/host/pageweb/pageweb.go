// Package pageweb serves the page by Prometheus' web configuration: TLS, and who may read
// by password or by certificate. The configuration and what reads it are those of
// Prometheus' exporters (github.com/prometheus/exporter-toolkit): who runs Prometheus
// knows them. It is read again for each connection and each request, so that
// certificates and users change without a restart; what has no authentication any more
// is then served to nobody.
package pageweb

import (
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/prometheus/exporter-toolkit/web"
	"go.yaml.in/yaml/v4"
	"golang.org/x/crypto/bcrypt"

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
		CA         string `yaml:"client_ca"`
		CAFile     string `yaml:"client_ca_file"`
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
// certificate that is verified. What only asks for a certificate accepts any, or none; and
// without an authority of its own, crypto/tls verifies by those of the system, from which
// anybody can have a certificate.
func (c *config) authenticates() bool {
	return len(c.Users) > 0 || c.tls() && c.TLS.ClientAuth == "RequireAndVerifyClientCert" && (c.TLS.CA != "" || c.TLS.CAFile != "")
}

// verifies reports whether the certificates of clients are looked at.
func (c *config) verifies() bool {
	return c.TLS.ClientAuth == "RequireAndVerifyClientCert" || c.TLS.ClientAuth == "VerifyClientCertIfGiven"
}

// authority reports what is wrong with the authority of clients' certificates.
func (c *config) authority(file string) error {
	pem := []byte(c.TLS.CA)
	switch {
	case !c.verifies():
		return nil
	case c.TLS.CA == "" && c.TLS.CAFile == "":
		return fmt.Errorf("client_auth_type: %s has no authority: every one that this system trusts could let clients in (want client_ca_file)", c.TLS.ClientAuth)
	case c.TLS.CAFile != "":
		name := c.TLS.CAFile
		if !filepath.IsAbs(name) {
			name = filepath.Join(filepath.Dir(file), name)
		}
		var err error
		if pem, err = limited.ReadFile(name, maxConfig); err != nil {
			return fmt.Errorf("client_ca_file: %w", err)
		}
	}
	if !x509.NewCertPool().AppendCertsFromPEM(pem) {
		return errors.New("the authority of clients' certificates is no certificate (want PEM)")
	}
	return nil
}

// passwords returns an error that names a user whose password is there as it is, or hashed in
// another way: what a page's clients would have to send is not known then, and the file gives
// a password away.
func (c *config) passwords() error {
	for _, user := range slices.Sorted(maps.Keys(c.Users)) {
		if _, err := bcrypt.Cost([]byte(c.Users[user])); err != nil {
			return fmt.Errorf("basic_auth_users: what %q has is no hash by bcrypt (htpasswd -nBC 10 USER prints one)", user)
		}
	}
	return nil
}

// inLine returns an error about a configuration in one line, with where its keys are listed.
// The readers of YAML put each finding into a line of its own, and name types of Go.
func inLine(file string, err error) error {
	text := strings.Join(strings.Fields(err.Error()), " ")
	if before, list, found := strings.Cut(text, " errors: "); found && before == "yaml: unmarshal" || before == "yaml: construct" {
		text = list
	}
	for _, c := range []struct{ from, to string }{
		{`(line \d+: )?cannot construct !!(\w+) .*into .*`, "${1}a mapping of keys is wanted, not a ${2} (prometheus.io/docs has them: HTTPS and authentication)"},
		{`cannot unmarshal !!(\w+) .*into .*`, "a mapping of keys is wanted, not a ${1} (prometheus.io/docs has them: HTTPS and authentication)"},
		{`field (\S+) not found in type \S+`, "there is no key ${1} (prometheus.io/docs has them: HTTPS and authentication)"},
	} {
		text = regexp.MustCompile(c.from).ReplaceAllString(text, c.to)
	}
	return fmt.Errorf("%s: %s", file, text)
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
		err = c.passwords()
	}
	if err == nil {
		err = web.Validate(file)
	}
	if err == nil {
		err = c.authority(file)
	}
	if err != nil {
		return nil, inLine(file, err)
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
