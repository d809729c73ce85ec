package dashboard

import (
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
)

// Access decides who may read data from a page: only the user who runs it, as for
// sockets. Every user of the host can connect to a loopback address, so that a token
// is needed there.
//
// There are two tokens, of which one is needed. The session's token is in the URL that
// is printed, and is valid until the process ends, so that a process that listens on
// the same address later learns nothing useful. The token of a file stays valid;
// Prometheus reads it from the file.
//
// The zero Access allows nobody.
type Access struct {
	Tokens []string
	Open   bool // all who can connect may read: for Unix sockets, and where a Web asks before
	// AnyHost serves requests for whatever name. It is for pages that are for other
	// hosts: their data needs a token, or a password or certificate over TLS, none of which
	// a browser shows to a name that was made to resolve to the page.
	AnyHost bool
}

// A Web serves a page by a web configuration (package pageweb).
type Web struct {
	TLS           bool // connections are encrypted
	Authenticates bool // clients must show a password or a certificate
	Serve         func(net.Listener, *http.Server) error
}

// Allows reports whether a request has a token in its header (RFC 6750, section 2.1).
// Tokens in the query, which is kept in histories and logs, and in cookies, which
// browsers send to every port of the host, do not count.
func (a *Access) Allows(r *http.Request) bool {
	if a.Open {
		return true
	}
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	ok := 0
	for _, t := range a.Tokens {
		if t != "" {
			ok |= subtle.ConstantTimeCompare([]byte(t), []byte(strings.TrimSpace(token)))
		}
	}
	return ok == 1 && strings.EqualFold(scheme, "Bearer")
}

// NewToken returns a random token of 192 bits.
func NewToken(random io.Reader) (string, error) {
	var b [24]byte
	if _, err := io.ReadFull(random, b[:]); err != nil {
		return "", err
	}
	return base64.RawURLEncoding.EncodeToString(b[:]), nil
}

// TokenPath returns the token's file of a receiver whose sockets are named after a
// path, such as ingest.DefaultPath.
func TokenPath(path string) string { return path + "_token" }

// Bounds of a token's file.
const (
	minToken = 16
	maxToken = 256
)

// TokenFile returns the token in a file. If there is no file it makes one, readable
// for its owner only. An existing one must belong to this user or root, and others must
// not be able to read or write it; its group may read it, for a service of another
// user.
func TokenFile(path string, random io.Reader) (string, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL|syscall.O_NOFOLLOW, 0o600)
	if err == nil {
		t, err := NewToken(random)
		if err == nil {
			_, err = f.WriteString(t + "\n")
		}
		if err = errors.Join(err, f.Close()); err != nil {
			os.Remove(path) //nolint:errcheck // the first error counts
			return "", fmt.Errorf("the token: %w", err)
		}
		return t, nil
	}
	if !errors.Is(err, os.ErrExist) {
		return "", fmt.Errorf("the token: %w", err)
	}
	if f, err = os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0); err != nil {
		return "", fmt.Errorf("the token: %w", err)
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return "", fmt.Errorf("the token: %w", err)
	}
	st, _ := fi.Sys().(*syscall.Stat_t)
	switch {
	case !fi.Mode().IsRegular():
		return "", fmt.Errorf("the token: %s is no file", path)
	case st == nil || st.Uid != 0 && int(st.Uid) != os.Getuid():
		return "", fmt.Errorf("the token: %s is another user's; remove it, or name another file", path)
	case fi.Mode().Perm()&0o027 != 0:
		return "", fmt.Errorf("the token: %s is open to others (mode %04o); make it 0600, or 0640 for a group that may read it", path, fi.Mode().Perm())
	}
	b, err := io.ReadAll(io.LimitReader(f, maxToken+1))
	if err != nil {
		return "", fmt.Errorf("the token: %w", err)
	}
	t := strings.TrimSpace(string(b))
	if len(t) < minToken || len(t) > maxToken || strings.ContainsFunc(t, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		return "", fmt.Errorf("the token: %s does not hold one of %d to %d characters without spaces; remove it, and a new one is made", path, minToken, maxToken)
	}
	return t, nil
}
