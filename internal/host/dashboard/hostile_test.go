package dashboard

import (
	"crypto/rand"
	"io"
	"math"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/thurward/thurward/internal/host/ingest"
)

// TestTokenFile: a token's file is made for its owner only, and is refused if others
// could read, write or replace it.
func TestTokenFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "token")
	a, err := TokenFile(path, rand.Reader)
	if err != nil || len(a) < minToken {
		t.Fatalf("%q %v", a, err)
	}
	if fi, err := os.Stat(path); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", fi, err)
	}
	if b, err := TokenFile(path, rand.Reader); b != a || err != nil {
		t.Errorf("%q %v", b, err)
	}
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	if b, err := TokenFile(path, rand.Reader); b != a || err != nil {
		t.Errorf("readable by its group: %q %v", b, err)
	}
	for _, mode := range []os.FileMode{0o644, 0o620, 0o666, 0o602} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := TokenFile(path, rand.Reader); err == nil || !strings.Contains(err.Error(), "open to others") {
			t.Errorf("mode %o: %v", mode, err)
		}
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{"short": "short", "empty": "", "long": strings.Repeat("x", maxToken+1), "spaces": "a token with spaces in it"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"link", "short", "empty", "long", "spaces", "."} {
		if _, err := TokenFile(filepath.Join(dir, name), rand.Reader); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
	if _, err := TokenFile(filepath.Join(dir, "new"), strings.NewReader("")); err == nil {
		t.Error("a token without random numbers")
	}
}

// TestPageConnections: clients without a token cannot keep out those with one, and a
// client that does not read does not block others.
func TestPageConnections(t *testing.T) {
	m, s := NewModel(), &ingest.Source{}
	feed(m, s, start, append([]string{hello("aa", "203.0.113.10/24")}, metrics(1)...)...)
	l, err := ListenPage("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := Server(m.Page(func() time.Time { return start }, Access{Tokens: []string{"token-token-token"}}))
	go srv.Serve(LimitPage(l)) //nolint:errcheck // closed below
	defer srv.Close()
	get := func() (*http.Response, error) {
		r, err := http.NewRequest(http.MethodGet, "http://"+l.Addr().String()+"/api/v1/firewalls", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer token-token-token")
		return http.DefaultClient.Do(r)
	}
	first, err := get() // its connection stays
	if err != nil || first.StatusCode != 200 {
		t.Fatalf("%v %v", first, err)
	}
	io.Copy(io.Discard, first.Body) //nolint:errcheck // a test
	first.Body.Close()
	for range 10 * pageConns {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		io.WriteString(c, "GET /") //nolint:errcheck // it may be closed
	}
	if r, err := get(); err != nil || r.StatusCode != 200 {
		t.Errorf("%v %v", r, err)
	}
	unread, w := io.Pipe() // a client that reads nothing
	go func() { m.WriteMetrics(w, start); w.Close() }()
	unread.Read(make([]byte, 1)) //nolint:errcheck // it has begun
	done := make(chan struct{})
	go func() {
		feed(m, s, start.Add(time.Second), metrics(2)...)
		m.Views(start)
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Error("a client that does not read holds up the model")
	}
	unread.Close()
}

// TestFillCannotFail: whatever the numbers, a bar is drawn.
func TestFillCannotFail(t *testing.T) {
	inf := math.Inf(1)
	for _, c := range [][2]float64{{inf, inf}, {inf - inf, 1}, {1, inf - inf}, {-1, 1}, {1, -inf}, {1, 5e-324}} {
		f := Fill(c[0], c[1])
		if !(f >= 0 && f <= 1) || len(bar(f)) != 12 {
			t.Errorf("%v: %v", c, f)
		}
	}
	if Fill(1, 4) != 0.25 {
		t.Error(Fill(1, 4))
	}
	for _, v := range []float64{inf, inf - inf, -inf, 1e300} {
		Number(v)
		seconds(v)
		bar(v)
	}
}
