package dashboard

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// An OpenPage is a page whose address is taken, with who may read it.
type OpenPage struct {
	listener net.Listener
	web      *Web
	access   Access
	session  string // its token; "": none
}

// Open takes the address of a page. web serves it; nil: plain HTTP. Without a web that
// authenticates the address must be loopback's, unless insecure says otherwise. Where web
// does not authenticate, clients show the session's token or that of the file token, which is
// made if it does not exist; "": no file.
func Open(address string, web *Web, insecure bool, token string, random io.Reader) (*OpenPage, error) {
	if err := CheckPageFor(address, web, insecure); err != nil {
		return nil, err
	}
	p := &OpenPage{web: web}
	var err error
	if p.listener, err = listenPage(address); err != nil {
		return nil, err
	}
	if web != nil && web.Authenticates {
		p.access.Open = true
	} else if p.access, p.session, err = PageAccess(address, token, random); err != nil {
		p.listener.Close()
		return nil, err
	}
	p.access.AnyHost = CheckPage(address) != nil
	return p, nil
}

// Close gives the address back.
func (p *OpenPage) Close() error { return p.listener.Close() }

// Serve serves a model until ctx ends.
func (p *OpenPage) Serve(ctx context.Context, m *Model) error {
	srv := Server(m.Page(time.Now, p.access))
	stop := context.AfterFunc(ctx, func() { srv.Close() })
	defer stop()
	serve := func(l net.Listener, s *http.Server) error { return s.Serve(l) }
	if p.web != nil {
		serve = p.web.Serve
	}
	if err := serve(LimitPage(p.listener), srv); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// URL returns the page's URL. The token is in the fragment, which browsers do not send.
func (p *OpenPage) URL() string {
	at := p.listener.Addr()
	switch {
	case at.Network() == "unix":
		return "unix:" + at.String()
	case p.session == "":
		return p.scheme() + at.String() + "/"
	}
	return p.scheme() + at.String() + "/#token=" + p.session
}

// MetricsURL returns the URL of the metrics for Prometheus, "" on a Unix socket, from which
// Prometheus cannot read.
func (p *OpenPage) MetricsURL() string {
	if p.listener.Addr().Network() == "unix" {
		return ""
	}
	return p.scheme() + p.listener.Addr().String() + "/metrics"
}

func (p *OpenPage) scheme() string {
	if p.web != nil && p.web.TLS {
		return "https://"
	}
	return "http://"
}

// PageAccess returns who may read the page at an address: on a Unix socket those
// who may open it, otherwise those who have the session's token, which it returns
// too, or the token of a file, if one is named.
func PageAccess(address, file string, random io.Reader) (a Access, session string, err error) {
	if strings.HasPrefix(address, "unix:") {
		return Access{Open: true}, "", nil
	}
	if session, err = NewToken(random); err != nil {
		return Access{}, "", err
	}
	a.Tokens = []string{session}
	if file != "" {
		t, err := TokenFile(file, random)
		if err != nil {
			return Access{}, "", err
		}
		a.Tokens = append(a.Tokens, t)
	}
	return a, session, nil
}

// CheckPageFor is CheckPage for a page that web serves, which may be nil: with TLS and
// authentication the page may be for other hosts. insecure lets it be without.
func CheckPageFor(address string, web *Web, insecure bool) error {
	err := CheckPage(address)
	if err == nil || strings.HasPrefix(address, "unix:") {
		return err
	}
	if _, _, split := net.SplitHostPort(address); split != nil {
		return err
	}
	if bad := checkPort(address); bad != nil {
		return bad
	}
	switch {
	case insecure || web != nil && web.TLS && web.Authenticates:
		return nil
	case web == nil:
		return fmt.Errorf("%q is not a loopback address: other hosts need TLS and authentication, by a web configuration", address)
	case !web.TLS:
		return fmt.Errorf("%q is not a loopback address, and the web configuration has no certificate (tls_server_config), so that passwords could be read on the way", address)
	}
	return fmt.Errorf("%q is not a loopback address, and the web configuration asks nobody who he is: it needs basic_auth_users, or client_auth_type: RequireAndVerifyClientCert", address)
}
