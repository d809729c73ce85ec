package pageweb

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/thurward/thurward/internal/host/dashboard"
	"github.com/thurward/thurward/internal/host/ingest"
	"github.com/thurward/thurward/internal/host/ingest/guesttest"
)

// An authority signs certificates.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{}
	a.cert, a.key = a.issue(t, "authority", true)
	return a
}

func (a *authority) issue(t *testing.T, name string, ca bool) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: ca, BasicConstraintsValid: true, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	if ca {
		c.KeyUsage |= x509.KeyUsageCertSign
	}
	parent, by := a.cert, a.key
	if ca {
		parent, by = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, by)
	if err != nil {
		t.Fatal(err)
	}
	if c, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return c, key
}

// pair returns a certificate for a client or a server.
func (a *authority) pair(t *testing.T) tls.Certificate {
	c, key := a.issue(t, "end", false)
	return tls.Certificate{Certificate: [][]byte{c.Raw}, PrivateKey: key, Leaf: c}
}

// write writes a file that only its owner may write.
func write(t *testing.T, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// files writes a server's certificate and key, and its authority's certificate.
func (a *authority) files(t *testing.T, dir string) {
	t.Helper()
	p := a.pair(t)
	key, err := x509.MarshalPKCS8PrivateKey(p.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	block := func(kind string, b []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b}))
	}
	write(t, dir, "cert.pem", block("CERTIFICATE", p.Certificate[0]))
	write(t, dir, "key.pem", block("PRIVATE KEY", key))
	write(t, dir, "ca.pem", block("CERTIFICATE", a.cert.Raw))
}

const (
	certificate = "tls_server_config: { cert_file: cert.pem, key_file: key.pem }\n"
	mutual      = "tls_server_config: { cert_file: cert.pem, key_file: key.pem, client_auth_type: RequireAndVerifyClientCert, client_ca_file: ca.pem }\n"
)

// users is the configuration of one user, whose password is "right".
func users(t *testing.T) string {
	t.Helper()
	h, err := bcrypt.GenerateFromPassword([]byte("right"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("basic_auth_users: { prometheus: %q }\n", h)
}

// serve runs a receiver with a firewall on it, whose page is served by a configuration.
func serve(t *testing.T, file, address string, insecure bool) *dashboard.Receiver {
	t.Helper()
	w, err := Load(file)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "vsock")
	st := &dashboard.Receiver{Guest: "unix:" + ingest.GuestSocket(path), Page: address, Web: w, Insecure: insecure}
	guesttest.Receive(t, st)
	g := &guesttest.Guest{Boot: "aa", WAN: "203.0.113.10/24", Start: time.Now().Add(-time.Hour)}
	send, _ := guesttest.Dial(t, ingest.GuestSocket(path))
	send(g.Hello(time.Now()))
	send(g.Snapshot()...)
	for end := time.Now().Add(20 * time.Second); len(st.Model.Views(time.Now())) == 0 && time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
	}
	return st
}

// A client asks for a path.
type client struct {
	roots      *x509.CertPool
	cert       []tls.Certificate
	user, pass string
	host       string
}

func (c *client) get(url string) (int, string, error) {
	h := &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: c.roots, Certificates: c.cert}}}
	r, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		return 0, "", err
	}
	if c.user != "" {
		r.SetBasicAuth(c.user, c.pass)
	}
	r.Host = c.host
	a, err := h.Do(r)
	if err != nil {
		return 0, "", err
	}
	defer a.Body.Close()
	b, err := io.ReadAll(a.Body)
	return a.StatusCode, string(b), err
}

func (a *authority) roots() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.cert)
	return p
}

// base returns the URL of a page's files.
func base(st *dashboard.Receiver) string { return strings.TrimSuffix(st.MetricsURL(), "metrics") }

// TestPassword: over TLS, with the right password and nothing else: not a wrong one, none,
// another user's, and not by plain HTTP; also for the page's own files.
func TestPassword(t *testing.T) {
	dir, ca := t.TempDir(), newAuthority(t)
	ca.files(t, dir)
	st := serve(t, write(t, dir, "web.yml", certificate+users(t)), "0.0.0.0:0", false)
	_, port, err := net.SplitHostPort(strings.TrimSuffix(strings.TrimPrefix(base(st), "https://"), "/"))
	if err != nil || strings.Contains(st.PageURL(), "token") || st.AsksItself() {
		t.Fatalf("%v %s", err, st.PageURL())
	}
	url := "https://127.0.0.1:" + port + "/"
	for _, c := range []struct {
		name string
		client
		code int
	}{
		{"right", client{user: "prometheus", pass: "right"}, 200},
		{"by another name", client{user: "prometheus", pass: "right", host: "firewall.example"}, 200},
		{"wrong password", client{user: "prometheus", pass: "wrong"}, 401},
		{"no password", client{user: "prometheus"}, 401},
		{"another user", client{user: "admin", pass: "right"}, 401},
		{"nobody", client{}, 401},
	} {
		c.roots = ca.roots()
		for _, path := range []string{"", "app.js", "api/v1/firewalls", "api/v1/rules?firewall=203.0.113.10", "metrics", "health"} {
			code, body, err := c.get(url + path)
			if code != c.code || err != nil || c.code != 200 && strings.Contains(body, "203.0.113.10") {
				t.Errorf("%s, %s: %d %v %.80q", c.name, path, code, err, body)
			}
		}
	}
	if _, body, err := (&client{roots: ca.roots(), user: "prometheus", pass: "right"}).get(url + "metrics"); err != nil || !strings.Contains(body, `thurward_up{instance="203.0.113.10"} 1`) {
		t.Errorf("%v %.100q", err, body)
	}
	// Plain HTTP gets an answer that says so, and nothing else.
	code, body, err := (&client{user: "prometheus", pass: "right"}).get("http://127.0.0.1:" + port + "/metrics")
	if err != nil || code != 400 || strings.Contains(body, "thurward") {
		t.Errorf("by plain HTTP: %d %v %q", code, err, body)
	}
	// A client that does not know the authority does not send its password.
	if _, _, err := (&client{user: "prometheus", pass: "right"}).get(url + "metrics"); err == nil {
		t.Error("a certificate of nobody's is trusted")
	}
	// TLS 1.1 is not spoken.
	if c, err := tls.Dial("tcp", "127.0.0.1:"+port, &tls.Config{RootCAs: ca.roots(), MaxVersion: tls.VersionTLS11}); err == nil {
		c.Close()
		t.Error("TLS 1.1 is spoken")
	}
}

// TestCertificate: with a certificate of the authority that is named, and with no other.
func TestCertificate(t *testing.T) {
	dir, ca, other := t.TempDir(), newAuthority(t), newAuthority(t)
	ca.files(t, dir)
	st := serve(t, write(t, dir, "web.yml", mutual), "127.0.0.1:0", false)
	url := base(st) + "metrics"
	if code, body, err := (&client{roots: ca.roots(), cert: []tls.Certificate{ca.pair(t)}}).get(url); code != 200 || err != nil || !strings.Contains(body, "thurward_up") {
		t.Errorf("with a certificate: %d %v", code, err)
	}
	for name, c := range map[string]*client{
		"no certificate":      {roots: ca.roots()},
		"another authority's": {roots: ca.roots(), cert: []tls.Certificate{other.pair(t)}},
		"a password instead":  {roots: ca.roots(), user: "prometheus", pass: "right"},
	} {
		if code, body, err := c.get(url); err == nil {
			t.Errorf("%s: %d %.80q", name, code, body)
		}
	}
}

// TestLostAuthentication: a configuration that is changed so that it asks nobody any more
// serves nobody; one that changes its password asks for the new one.
func TestLostAuthentication(t *testing.T) {
	dir, ca := t.TempDir(), newAuthority(t)
	ca.files(t, dir)
	st := serve(t, write(t, dir, "web.yml", certificate+users(t)), "127.0.0.1:0", false)
	c := &client{roots: ca.roots(), user: "prometheus", pass: "right"}
	expect := func(what string, want int) {
		t.Helper()
		if code, body, err := c.get(base(st) + "metrics"); code != want || err != nil || want != 200 && strings.Contains(body, "thurward_up") {
			t.Errorf("%s: %d %v %.80q", what, code, err, body)
		}
	}
	expect("at first", 200)
	for _, lost := range []string{certificate, certificate + "basic_auth_users: {}\n", strings.Replace(mutual, "RequireAndVerifyClientCert", "VerifyClientCertIfGiven", 1)} {
		write(t, dir, "web.yml", lost)
		expect(lost, 503)
	}
	h, err := bcrypt.GenerateFromPassword([]byte("new"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	write(t, dir, "web.yml", certificate+fmt.Sprintf("basic_auth_users: { prometheus: %q }\n", h))
	expect("with the old password", 401)
	c.pass = "new"
	expect("with the new one", 200)
}

// TestRefused: what would be open to other hosts is refused, with what is missing; on
// loopback and on a socket it is not.
func TestRefused(t *testing.T) {
	dir, ca := t.TempDir(), newAuthority(t)
	ca.files(t, dir)
	load := func(text string) *dashboard.Web {
		w, err := Load(write(t, dir, "web.yml", text))
		if err != nil {
			t.Fatal(err)
		}
		return w
	}
	asks := strings.Replace(mutual, "RequireAndVerifyClientCert", "RequestClientCert", 1)
	asks = strings.Replace(asks, ", client_ca_file: ca.pem", "", 1)
	anyCert := strings.Replace(asks, "RequestClientCert", "RequireAnyClientCert", 1)
	for _, c := range []struct {
		address  string
		web      *dashboard.Web
		insecure bool
		want     string
	}{
		{"0.0.0.0:9464", nil, false, "needs TLS|other hosts need TLS"},
		{"192.0.2.1:9464", load(certificate), false, "asks nobody"},
		{"192.0.2.1:9464", load(asks), false, "asks nobody"},
		{"192.0.2.1:9464", load(anyCert), false, "asks nobody"},
		{":9464", load(users(t)), false, "no certificate"},
		{"[::]:9464", load(certificate + users(t)), false, ""},
		{"192.0.2.1:9464", load(mutual), false, ""},
		{"firewall.example:9464", load(mutual), false, ""},
		{"0.0.0.0:9464", nil, true, ""},
		{"0.0.0.0:port", load(mutual), false, "is no port"},
		{"nowhere", load(mutual), true, "missing port"},
		{"127.0.0.1:9464", nil, false, ""},
		{"127.0.0.1:9464", load(users(t)), false, ""},
		{"unix:/run/page", nil, false, ""},
	} {
		err := dashboard.CheckPageFor(c.address, c.web, c.insecure)
		if c.want == "" && err != nil {
			t.Errorf("%+v: %v", c, err)
		}
		found := false
		for _, w := range strings.Split(c.want, "|") {
			found = found || err != nil && strings.Contains(err.Error(), w)
		}
		if c.want != "" && !found {
			t.Errorf("%+v: %v, want %s", c, err, c.want)
		}
	}
	st := &dashboard.Receiver{Guest: "unix:" + filepath.Join(dir, "g"), Page: "0.0.0.0:0"}
	if err := st.Open(); err == nil || !strings.Contains(err.Error(), "by a web configuration") {
		t.Errorf("open: %v", err)
	}
	// Told explicitly, the token is still needed.
	st = serve(t, write(t, dir, "web.yml", certificate), "127.0.0.1:0", true)
	token := st.PageURL()[strings.Index(st.PageURL(), "=")+1:]
	if code, _, err := (&client{roots: ca.roots()}).get(base(st) + "metrics"); code != 401 || err != nil || len(token) < 16 || !st.AsksItself() {
		t.Errorf("with TLS only: %d %v %s", code, err, st.PageURL())
	}
}

// TestInsecure: told explicitly, a page without a web configuration is for other hosts, by
// plain HTTP and whatever name, and its data still needs the token.
func TestInsecure(t *testing.T) {
	path := filepath.Join(t.TempDir(), "vsock")
	st := &dashboard.Receiver{Guest: "unix:" + ingest.GuestSocket(path), Page: "0.0.0.0:0", Insecure: true}
	guesttest.Receive(t, st)
	at, token, ok := strings.Cut(st.PageURL(), "#token=")
	_, port, err := net.SplitHostPort(strings.TrimSuffix(strings.TrimPrefix(at, "http://"), "/"))
	if !ok || err != nil || !st.AsksItself() {
		t.Fatalf("%s %v", st.PageURL(), err)
	}
	for want, header := range map[int]string{200: "Bearer " + token, 401: "Bearer " + token[1:]} {
		r, err := http.NewRequest(http.MethodGet, "http://127.0.0.1:"+port+"/metrics", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Host = "firewall.example"
		r.Header.Set("Authorization", header)
		a, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		a.Body.Close()
		if a.StatusCode != want {
			t.Errorf("%d, want %d", a.StatusCode, want)
		}
	}
}

// TestBadConfigurations: what cannot be served is said at once, with the file's name.
func TestBadConfigurations(t *testing.T) {
	dir, ca := t.TempDir(), newAuthority(t)
	ca.files(t, dir)
	for text, want := range map[string]string{
		"tls_server_config: { cert_file: nothing.pem, key_file: key.pem }": "nothing.pem",
		"tls_server_config: { cert_file: cert.pem }":                       "missing one of",
		"basic_auth_users: { b: plain }":                                   `what "b" has is no hash by bcrypt (htpasswd -nBC 10 USER`,
		"basic_auth_users: { a: $1$md5$of4z7Qx, b: plain }":                `what "a" has is no hash`,
		"tls_server_config: [1]":                                           "line 1: a mapping of keys is wanted, not a seq",
		"text":                                                             "web.yml: line 1: a mapping of keys is wanted, not a str",
		"tls_sever_config: { cert_file: cert.pem }":                        "web.yml: line 1: there is no key tls_sever_config (",
		strings.Replace(mutual, ", client_ca_file: ca.pem", "", 1):         "has no authority: every one that this system trusts",
		strings.Replace(certificate, " }", ", client_auth_type: VerifyClientCertIfGiven }", 1) + users(t): "has no authority",
		strings.Replace(mutual, "client_ca_file: ca.pem", "client_ca_file: key.pem", 1):                   "is no certificate",
		strings.Replace(mutual, "client_ca_file: ca.pem", "client_ca_file: none.pem", 1):                  "none.pem",
		"tls_server_config: { cert_file: cert.pem, key_file: ca.pem }":                                    "web.yml",
		certificate + "basic_auth_users: { a: " + strings.Repeat("x", 1<<20) + "}":                        "web.yml",
	} {
		if _, err := Load(write(t, dir, "web.yml", text)); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%.60s: %v, want %s", text, err, want)
		}
	}
	// Taken away while it is served, it is no authentication any more.
	c, err := read(write(t, dir, "web.yml", strings.Replace(mutual, ", client_ca_file: ca.pem", "", 1)))
	if err != nil || !c.tls() || c.authenticates() {
		t.Errorf("without an authority: %+v, %v", c, err)
	}
	if c, err = read(write(t, dir, "web.yml", mutual)); err != nil || !c.authenticates() {
		t.Errorf("with one: %+v, %v", c, err)
	}
	if _, err := Load(filepath.Join(dir, "none")); err == nil {
		t.Error("a file that is not there")
	}
	file := write(t, dir, "web.yml", mutual)
	if err := os.Chmod(file, 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(file); err == nil || !strings.Contains(err.Error(), "written by others") {
		t.Errorf("that others can write: %v", err)
	}
}

// TestPasswordInBrowser: a real browser shows the page to one who knows the password.
func TestPasswordInBrowser(t *testing.T) {
	chromium, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("chromium is missing (apt-get install chromium)")
	}
	dir, ca := t.TempDir(), newAuthority(t)
	ca.files(t, dir)
	st := serve(t, write(t, dir, "web.yml", certificate+users(t)), "127.0.0.1:0", false)
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	// The browser's time is virtual, and runs ahead of an answer on a busy machine: the page with the
	// right password gets more of it until it is there.
	page := func(pass, budget string) string {
		cmd := exec.CommandContext(ctx, chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--user-data-dir="+t.TempDir(),
			"--ignore-certificate-errors", "--virtual-time-budget="+budget, "--dump-dom", strings.Replace(base(st), "https://", "https://prometheus:"+pass+"@", 1))
		cmd.WaitDelay = 5 * time.Second
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		return string(out)
	}
	const there = "203.0.113.10 is connected"
	out := ""
	for _, budget := range []string{"4000", "20000", "100000", "500000"} {
		if out = page("right", budget); strings.Contains(out, there) {
			break
		}
	}
	if !strings.Contains(out, there) {
		t.Errorf("with the right password:\n%s", out)
	}
	if out := page("wrong", "20000"); strings.Contains(out, there) {
		t.Errorf("with the wrong password:\n%s", out)
	}
}
