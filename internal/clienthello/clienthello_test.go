package clienthello

import (
	"crypto/tls"
	"net"
	"slices"
	"strings"
	"testing"
)

// capture returns what crypto/tls sends first.
func capture(t testing.TB, c *tls.Config) []byte {
	t.Helper()
	a, b := net.Pipe()
	defer b.Close()
	go func() {
		tls.Client(a, c).Handshake() //nolint:errcheck // it is cut off
		a.Close()
	}()
	buf := make([]byte, 16<<10)
	n, err := b.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	return buf[:n]
}

func configs() map[string]*tls.Config {
	return map[string]*tls.Config{
		"www.example.com":                     {ServerName: "www.example.com"},
		"x.example":                           {ServerName: "x.example", MaxVersion: tls.VersionTLS12},
		"h2.example":                          {ServerName: "h2.example", NextProtos: []string{"h2", "http/1.1"}},
		"classical.example":                   {ServerName: "classical.example", CurvePreferences: []tls.CurveID{tls.X25519}},
		strings.Repeat("a.", 120) + "example": {ServerName: strings.Repeat("a.", 120) + "example"},
	}
}

// TestServerName: what real clients send is read, and nothing is said before
// the last byte is there.
func TestServerName(t *testing.T) {
	var dst [255]byte
	for want, c := range configs() {
		h := capture(t, c)
		for n := range len(h) {
			if name, s := ServerName(h[:n], &dst); s != More {
				t.Fatalf("%s: %d of %d bytes: %q, %d", want, n, len(h), name, s)
			}
		}
		for _, tail := range []string{"", "\x14\x03\x03\x00\x01\x01"} { // early data may follow
			if name, s := ServerName(append(slices.Clone(h), tail...), &dst); s != Found || string(name) != want {
				t.Fatalf("%q, %d; want %q", name, s, want)
			}
		}
		// The message in records of 100 bytes.
		var cut []byte
		for m := h[5:]; len(m) > 0; {
			k := min(100, len(m))
			cut = append(append(cut, 22, 3, 1, 0, byte(k)), m[:k]...)
			m = m[k:]
		}
		if name, s := ServerName(cut, &dst); s != Found || string(name) != want {
			t.Fatalf("in pieces: %q, %d; want %q", name, s, want)
		}
	}
	if _, s := ServerName(capture(t, &tls.Config{InsecureSkipVerify: true}), &dst); s != None {
		t.Fatalf("without a name: %d", s)
	}
}

func TestOther(t *testing.T) {
	var dst [255]byte
	h := capture(t, &tls.Config{ServerName: "www.example.com"})
	change := func(at int, b byte) []byte { c := slices.Clone(h); c[at] = b; return c }
	for what, b := range map[string][]byte{
		"HTTP": []byte("GET / HTTP/1.1\r\n"), "SSH": []byte("SSH-2.0-x\r\n"), "alert": {21, 3, 1, 0, 2, 1, 0}, "server hello": change(5, 2),
		"SSL 2": {0x80, 0x2e, 1, 0, 2}, "record of 0": {22, 3, 1, 0, 0}, "record of 17000": {22, 3, 1, 0x42, 0x68}, "message of 1 MB": change(6, 16),
		"session id too long": change(5+4+2+32, 255), "another protocol": change(1, 4),
	} {
		if name, s := ServerName(b, &dst); s != Other {
			t.Errorf("%s: %q, %d", what, name, s)
		}
	}
	if _, s := ServerName(nil, &dst); s != More {
		t.Errorf("nothing: %d", s)
	}
}

func FuzzServerName(f *testing.F) {
	for _, c := range configs() {
		f.Add(capture(f, c), 50)
	}
	f.Fuzz(func(t *testing.T, b []byte, at int) {
		var d1, d2 [255]byte
		name, s := ServerName(b, &d1)
		if (s == Found) != (len(name) > 0) {
			t.Fatalf("%q, %d", name, s)
		}
		// What was said of a beginning holds for the whole.
		if at >= 0 && at < len(b) {
			if n2, s2 := ServerName(b[:at], &d2); s2 != More && (s2 != s || string(n2) != string(name)) {
				t.Fatalf("%d bytes: %q, %d; all: %q, %d", at, n2, s2, name, s)
			}
		}
	})
}
