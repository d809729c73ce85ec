package clienthello

import (
	"crypto/tls"
	"net"
	"slices"
	"strings"
	"testing"
)

// capture returns the first bytes that crypto/tls sends.
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
	long := strings.Repeat("a.", 122) + "longest99" // 253 bytes
	return map[string]*tls.Config{
		"www.example.com":     {ServerName: "www.example.com"},
		"x.example":           {ServerName: "x.example", MaxVersion: tls.VersionTLS12},
		"h2.example":          {ServerName: "h2.example", NextProtos: []string{"h2", "http/1.1"}},
		"classical.example":   {ServerName: "classical.example", CurvePreferences: []tls.CurveID{tls.X25519}},
		"xn--mnchen-3ya.test": {ServerName: "xn--mnchen-3ya.test"},
		"_a-b.4.EXAMPLE":      {ServerName: "_a-b.4.EXAMPLE"},
		long:                  {ServerName: long},
	}
}

// TestRead: the messages of real clients are parsed, and every prefix is Incomplete.
func TestRead(t *testing.T) {
	var dst [255]byte
	for want, c := range configs() {
		m := capture(t, c)
		for n := range len(m) {
			if h, s := Read(m[:n], &dst); s != Incomplete {
				t.Fatalf("%s: %d of %d bytes: %q, %d", want, n, len(m), h.Name, s)
			}
		}
		for _, tail := range []string{"", "\x14\x03\x03\x00\x01\x01", "\x16"} {
			if h, s := Read(append(slices.Clone(m), tail...), &dst); s != Found || string(h.Name) != want || h.Len != len(m) || h.Early {
				t.Fatalf("%q, %d, %+v; want %q", h.Name, s, h, want)
			}
		}
		for _, size := range []int{1, 3, 4, 5, 100} {
			cut := records(m[5:], size)
			if h, s := Read(cut, &dst); len(cut) <= 2*MaxLen && (s != Found || string(h.Name) != want || h.Len != len(cut)) {
				t.Fatalf("in records of %d: %q, %d; want %q", size, h.Name, s, want)
			}
			if h, s := ReadSecond(append([]byte("\x14\x03\x03\x00\x01\x01"), cut...), &dst); s != Found || string(h.Name) != want || h.Len != 6+len(cut) {
				t.Fatalf("after a change_cipher_spec: %q, %d", h.Name, s)
			}
		}
	}
	if _, s := Read(capture(t, &tls.Config{InsecureSkipVerify: true}), &dst); s != NoName {
		t.Fatalf("without a name: %d", s)
	}
}

// records splits a handshake message into records of size bytes.
func records(m []byte, size int) (b []byte) {
	for len(m) > 0 {
		k := min(size, len(m))
		b = append(append(b, 22, 3, 1, byte(k>>8), byte(k)), m[:k]...)
		m = m[k:]
	}
	return b
}

// A made is a ClientHello, field by field.
type made struct {
	version, session, suites, methods string
	exts                              []string // with type and length
	noExts                            bool
	tail                              string // behind the message in its record
	grow                              int    // by how much the message's length lies
	extsGrow                          int    // by how much that of the extensions does
}

func vec(bytes int, s string) string {
	n := len(s)
	b := make([]byte, bytes)
	for i := bytes - 1; i >= 0; i-- {
		b[i] = byte(n)
		n >>= 8
	}
	return string(b) + s
}

func ext(typ byte, data string) string { return "\x00" + string(typ) + vec(2, data) }

func names(list ...string) string {
	s := ""
	for _, n := range list {
		s += "\x00" + vec(2, n)
	}
	return ext(0, vec(2, s))
}

func legit(exts ...string) made {
	return made{version: "\x03\x03", session: vec(1, ""), suites: vec(2, "\x13\x01"), methods: vec(1, "\x00"), exts: exts}
}

func (m made) message() []byte {
	b := m.version + strings.Repeat("r", 32) + m.session + m.suites + m.methods
	if !m.noExts {
		e := strings.Join(m.exts, "")
		l := []byte(vec(2, e))
		l[0], l[1] = byte((len(e)+m.extsGrow)>>8), byte(len(e)+m.extsGrow)
		b += string(l)
	}
	n := len(b) + m.grow
	return []byte("\x01" + string([]byte{byte(n >> 16), byte(n >> 8), byte(n)}) + b + m.tail)
}

// stream returns the message as the beginning of a TLS stream.
func (m made) stream() []byte { return records(m.message(), 1<<14) }

// TestGuards: each check of the parser, with the shortest and longest valid input
// and one beyond.
func TestGuards(t *testing.T) {
	good := names("a.example")
	edit := func(f func(m *made)) []byte { m := legit(good); f(&m); return m.stream() }
	label63 := strings.Repeat("l", 63)
	name253 := label63 + "." + label63 + "." + label63 + "." + strings.Repeat("l", 61)
	padded := func(n int) []byte { // a message of n bytes in all
		m := legit(good)
		m.exts = append(m.exts, ext(21, strings.Repeat("p", n-len(m.message())-4)))
		return m.message()
	}
	for _, c := range []struct {
		what string
		b    []byte
		want State
		name string
	}{
		{"as it should be", legit(good).stream(), Found, "a.example"},
		{"nothing", nil, Incomplete, ""},
		{"one byte", []byte{22}, Incomplete, ""},
		{"a record's header but one byte", []byte{22, 3, 1, 0}, Incomplete, ""},
		{"a record's header", []byte{22, 3, 1, 0, 1}, Incomplete, ""},
		{"the header of an empty record", []byte{22, 3, 1, 0, 0}, Invalid, ""},
		{"the header of a record as long as can be", []byte{22, 3, 1, MaxLen >> 8, 0}, Incomplete, ""},
		{"the header of one that is longer", []byte{22, 3, 1, MaxLen >> 8, 1}, Invalid, ""},
		{"HTTP", []byte("GET / HTTP/1.1\r\n"), Invalid, ""},
		{"SSH", []byte("SSH-2.0-x\r\n"), Invalid, ""},
		{"an SSL 2 hello", []byte{0x80, 0x2e, 1, 3, 1, 0, 3}, Invalid, ""},
		{"an alert first", append([]byte{21, 3, 1, 0, 2, 1, 0}, legit(good).stream()...), Invalid, ""},
		{"change_cipher_spec first", append([]byte("\x14\x03\x03\x00\x01\x01"), legit(good).stream()...), Invalid, ""},
		{"application data first", append([]byte{23, 3, 3, 0, 1, 0}, legit(good).stream()...), Invalid, ""},
		{"a heartbeat first", append([]byte{24, 3, 3, 0, 1, 0}, legit(good).stream()...), Invalid, ""},
		{"an empty record first", append([]byte{22, 3, 1, 0, 0}, legit(good).stream()...), Invalid, ""},
		{"an empty record alone", []byte{22, 3, 1, 0, 0}, Invalid, ""},
		{"a record that is as long as can be", []byte{22, 3, 1, MaxLen >> 8, MaxLen & 255}, Incomplete, ""},
		{"a record that is longer", []byte{22, 3, 1, MaxLen >> 8, MaxLen&255 + 1}, Invalid, ""},
		{"a second record to the end", []byte{22, 3, 1, 0, 1, 1, 22, 3, 1, MaxLen>>8 - 1, 255}, Incomplete, ""},
		{"a second record beyond it", []byte{22, 3, 1, 0, 1, 1, 22, 3, 1, MaxLen >> 8, 0}, Invalid, ""},
		{"a length of 64 kB", []byte{22, 3, 1, 0, 4, 1, 1, 0, 0}, Invalid, ""},
		{"a length of 64 kB in its second record", []byte{22, 3, 1, 0, 1, 1, 22, 3, 1, 0, 3, 1, 0, 5}, Invalid, ""},
		{"protocol 2", []byte{22, 2}, Invalid, ""},
		{"protocol 4", []byte{22, 4}, Invalid, ""},
		{"a server's hello", []byte{22, 3, 1, 0, 1, 2}, Invalid, ""},
		{"hello_request, then hello", append([]byte{22, 3, 1, 0, 4, 0, 0, 0, 0}, legit(good).stream()...), Invalid, ""},
		{"an alert between its records", slices.Concat(records(legit(good).message()[:20], 20), []byte{21, 3, 1, 0, 2, 1, 0}, records(legit(good).message()[20:], 200)), Invalid, ""},
		{"an empty record between", slices.Concat(records(legit(good).message()[:20], 20), []byte{22, 3, 1, 0, 0}, records(legit(good).message()[20:], 200)), Invalid, ""},
		{"as long as can be", records(padded(MaxLen), 1<<14), Found, "a.example"},
		{"one byte longer", records(padded(MaxLen+1), 1<<14), Invalid, ""},
		{"one byte longer, in two records", records(padded(MaxLen+1), MaxLen), Invalid, ""},
		{"a length of 16 MB", []byte{22, 3, 1, 0, 4, 1, 255, 255, 255}, Invalid, ""},
		{"a length of 64 KB, of which nothing is there", []byte{22, 3, 1, 0, 9, 1, 1, 0, 5}, Invalid, ""},
		{"shorter than it says", edit(func(m *made) { m.grow = 1 }), Incomplete, ""},
		{"longer than it says", edit(func(m *made) { m.grow = -1 }), Invalid, ""},
		{"something behind it in its record", edit(func(m *made) { m.tail = "x" }), Invalid, ""},
		{"a second hello behind it in its record", edit(func(m *made) { m.tail = string(legit(names("b.example")).message()) }), Invalid, ""},
		{"empty", []byte{22, 3, 1, 0, 4, 1, 0, 0, 0}, Invalid, ""},
		{"version 2", edit(func(m *made) { m.version = "\x02\x00" }), Invalid, ""},
		{"version 3.0", edit(func(m *made) { m.version = "\x03\x00" }), Found, "a.example"},
		{"session of 32 bytes", edit(func(m *made) { m.session = vec(1, strings.Repeat("s", 32)) }), Found, "a.example"},
		{"session of 33 bytes", edit(func(m *made) { m.session = vec(1, strings.Repeat("s", 33)) }), Invalid, ""},
		{"session beyond the end", edit(func(m *made) { m.session = "\xff" }), Invalid, ""},
		{"no cipher suites", edit(func(m *made) { m.suites = vec(2, "") }), Invalid, ""},
		{"cipher suites of 3 bytes", edit(func(m *made) { m.suites = vec(2, "abc") }), Invalid, ""},
		{"cipher suites beyond the end", edit(func(m *made) { m.suites = "\xff\xfe" }), Invalid, ""},
		{"no compression method", edit(func(m *made) { m.methods = vec(1, "") }), Invalid, ""},
		{"compression beyond the end", edit(func(m *made) { m.noExts, m.methods = true, "\x02\x00" }), Invalid, ""},
		{"no extensions", edit(func(m *made) { m.noExts = true }), NoName, ""},
		{"extensions, but none", edit(func(m *made) { m.exts = nil }), NoName, ""},
		{"one byte where extensions begin", slices.Concat([]byte{22, 3, 1, 0, 46, 1, 0, 0, 42}, []byte(legit().version), make([]byte, 32), []byte("\x00\x00\x02\x13\x01\x01\x00\x00")), Invalid, ""},
		{"extensions longer than the message", edit(func(m *made) { m.extsGrow = 1 }), Invalid, ""},
		{"extensions shorter than the message", edit(func(m *made) { m.extsGrow = -1 }), Invalid, ""},
		{"an extension behind the extensions", edit(func(m *made) { m.exts, m.extsGrow = append(m.exts, ext(10, "")), -4 }), Invalid, ""},
		{"rubbish behind the extensions", edit(func(m *made) { m.tail, m.grow = "x", 1 }), Invalid, ""},
		{"as much behind them as an extension", edit(func(m *made) { m.tail = ext(10, ""); m.grow = len(m.tail) }), Invalid, ""},
		{"another extension alone", legit(ext(10, "\x00\x02\x00\x1d")).stream(), NoName, ""},
		{"an extension beyond the end", legit(good, "\x00\x0a\x00\x05abcd").stream(), Invalid, ""},
		{"an extension without a length", legit(good, "\x00\x0a\x00").stream(), Invalid, ""},
		{"a session ticket", legit(ext(35, "ticket"), good).stream(), Found, "a.example"},
		{"a pre-shared key", legit(good, ext(41, "\x00\x0b\x00\x05other\x00\x00\x00\x00\x00\x21\x20"+strings.Repeat("b", 32))).stream(), Found, "a.example"},
		{"Encrypted Client Hello", legit(good, "\xfe\x0d"+vec(2, "\x00\x00\x01\x00\x01\x07\x00\x00\x00\x02xx")).stream(), Found, "a.example"},
		{"the same alone", legit("\xfe\x0d" + vec(2, "\x01")).stream(), NoName, ""},
		{"two server_name extensions", legit(good, good).stream(), Invalid, ""},
		{"two with two names", legit(good, names("b.example")).stream(), Invalid, ""},
		{"two names in a list", legit(names("a.example", "b.example")).stream(), Invalid, ""},
		{"a name of another kind", legit(ext(0, vec(2, "\x01"+vec(2, "a.example")))).stream(), Invalid, ""},
		{"a name of another kind behind it", legit(ext(0, vec(2, "\x00"+vec(2, "a.example")+"\x01"+vec(2, "b.example")))).stream(), Invalid, ""},
		{"an empty extension", legit(ext(0, "")).stream(), Invalid, ""},
		{"a list that ends in its length", legit(ext(0, "\x00")).stream(), Invalid, ""},
		{"an empty list", legit(ext(0, "\x00\x00")).stream(), Invalid, ""},
		{"a list that ends in a name's length", legit(ext(0, "\x00\x02\x00\x00")).stream(), Invalid, ""},
		{"an empty name", legit(names("")).stream(), Invalid, ""},
		{"a list longer than the extension", legit(ext(0, "\x00\x0d\x00\x00\x09a.example")).stream(), Invalid, ""},
		{"a list shorter than the extension", legit(ext(0, "\x00\x0b\x00\x00\x09a.example")).stream(), Invalid, ""},
		{"rubbish behind the list", legit(ext(0, vec(2, "\x00"+vec(2, "a.example"))+"x")).stream(), Invalid, ""},
		{"rubbish in the list", legit(ext(0, vec(2, "\x00"+vec(2, "a.example")+"x"))).stream(), Invalid, ""},
		{"a name longer than the list", legit(ext(0, vec(2, "\x00\x00\x0aa.example"))).stream(), Invalid, ""},
		{"a name of one byte", legit(names("a")).stream(), Found, "a"},
		{"a name of 253 bytes", legit(names(name253)).stream(), Found, name253},
		{"a name of 254 bytes", legit(names(name253 + "l")).stream(), Invalid, ""},
		{"a name of 255 bytes", legit(names(name253 + ".l")).stream(), Invalid, ""},
		{"a name of 256 bytes", legit(names(name253 + ".ll")).stream(), Invalid, ""},
		{"a label of 63 bytes", legit(names(label63 + ".x")).stream(), Found, label63 + ".x"},
		{"a label of 64 bytes", legit(names("x" + label63 + ".x")).stream(), Invalid, ""},
		{"a dot at the end", legit(names("a.example.")).stream(), Invalid, ""},
		{"a dot at the beginning", legit(names(".a.example")).stream(), Invalid, ""},
		{"two dots", legit(names("a..example")).stream(), Invalid, ""},
		{"a dot", legit(names(".")).stream(), Invalid, ""},
		{"upper case", legit(names("A.Example")).stream(), Found, "A.Example"},
		{"the letters' ends", legit(names("az.AZ")).stream(), Found, "az.AZ"},
		{"before a", legit(names("`.x")).stream(), Invalid, ""},
		{"behind z", legit(names("{.x")).stream(), Invalid, ""},
		{"before A", legit(names("@.x")).stream(), Invalid, ""},
		{"behind Z", legit(names("[.x")).stream(), Invalid, ""},
		{"before 0", legit(names("/.x")).stream(), Invalid, ""},
		{"behind 9", legit(names(":.x")).stream(), Invalid, ""},
		{"digits", legit(names("09.x")).stream(), Found, "09.x"},
		{"an IPv4 address", legit(names("192.0.2.80")).stream(), Invalid, ""},
		{"an address as one number", legit(names("3221226064")).stream(), Invalid, ""},
		{"an IPv6 address", legit(names("2001:db8::1")).stream(), Invalid, ""},
		{"an IPv6 address in brackets", legit(names("[2001:db8::1]")).stream(), Invalid, ""},
		{"a NUL", legit(names("a.example\x00.b.example")).stream(), Invalid, ""},
		{"a space", legit(names("a .example")).stream(), Invalid, ""},
		{"an escape", legit(names(`a\.example`)).stream(), Invalid, ""},
		{"a port", legit(names("a.example:443")).stream(), Invalid, ""},
		{"UTF-8", legit(names("münchen.test")).stream(), Invalid, ""},
		{"a full-width dot", legit(names("a。example")).stream(), Invalid, ""},
		{"its ASCII form", legit(names("xn--mnchen-3ya.test")).stream(), Found, "xn--mnchen-3ya.test"},
		{"a wildcard", legit(names("*.example")).stream(), Invalid, ""},
	} {
		var dst [255]byte
		h, s := Read(c.b, &dst)
		if s != c.want || string(h.Name) != c.name {
			t.Errorf("%s: %q, %d; want %q, %d", c.what, h.Name, s, c.name, c.want)
		}
		if s == Found && h.Len != len(c.b) {
			t.Errorf("%s: %d bytes of %d", c.what, h.Len, len(c.b))
		}
	}
}

// TestEarly: what may follow a ClientHello before the server responds.
func TestEarly(t *testing.T) {
	early := legit(names("a.example"), ext(42, "")).stream()
	plain := legit(names("a.example")).stream()
	var dst [255]byte
	for _, c := range []struct {
		what string
		m    []byte
		rest string
		want bool
	}{
		{"nothing", plain, "", true},
		{"change_cipher_spec without early data", plain, "\x14", false},
		{"data without early data", plain, "\x17", false},
		{"nothing, though early data are offered", early, "", true},
		{"change_cipher_spec", early, "\x14", true},
		{"data", early, "\x17", true},
		{"an alert", early, "\x15", false},
		{"another hello", early, "\x16", false},
		{"a heartbeat", early, "\x18", false},
	} {
		h, s := Read(append(slices.Clone(c.m), c.rest...), &dst)
		if s != Found || h.Len != len(c.m) || h.Early != (len(c.m) == len(early)) || h.AllowsTrailing([]byte(c.rest)) != c.want {
			t.Errorf("%s: %d, %+v", c.what, s, h)
		}
	}
}

// TestWithoutName: early data can be announced without a server name.
func TestWithoutName(t *testing.T) {
	var dst [255]byte
	for want, exts := range map[bool][]string{true: {ext(10, ""), ext(42, "")}, false: {ext(10, "")}} {
		m := legit(exts...).stream()
		if h, s := Read(append(slices.Clone(m), 0x17), &dst); s != NoName || h.Early != want || h.Len != len(m) || h.Name != nil || h.AllowsTrailing([]byte{0x17}) != want {
			t.Errorf("%d, %+v", s, h)
		}
	}
}

// TestMayBeginSecond: of all content types, a second ClientHello may begin with two.
func TestMayBeginSecond(t *testing.T) {
	for c := range 256 {
		if MayBeginSecond(byte(c)) != (c == 20 || c == 22) {
			t.Errorf("type %d: %v", c, MayBeginSecond(byte(c)))
		}
	}
}

// TestReadSecond: only one change_cipher_spec record may precede a second
// ClientHello.
func TestReadSecond(t *testing.T) {
	m := legit(names("a.example")).stream()
	var dst [255]byte
	for _, c := range []struct {
		what, before string
		want         State
	}{
		{"nothing", "", Found},
		{"change_cipher_spec", "\x14\x03\x03\x00\x01\x01", Found},
		{"two of them", "\x14\x03\x03\x00\x01\x01\x14\x03\x03\x00\x01\x01", Invalid},
		{"one of 2 bytes", "\x14\x03\x03\x00\x02\x01\x01", Invalid},
		{"another value", "\x14\x03\x03\x00\x01\x02", Invalid},
		{"data", "\x17\x03\x03\x00\x01\x01", Invalid},
	} {
		b := append([]byte(c.before), m...)
		if h, s := ReadSecond(b, &dst); s != c.want || s == Found && (h.Len != len(b) || string(h.Name) != "a.example") {
			t.Errorf("%s: %d, %+v", c.what, s, h)
		}
		for n := range b {
			if h, s := ReadSecond(b[:n], &dst); s == Incomplete && (h.Name != nil || h.Early) || s != Incomplete && s != c.want {
				t.Errorf("%s: %d bytes: %d", c.what, n, s)
			}
		}
	}
}

// TestReadResponse: a HelloRetryRequest is recognized from the shortest prefix that
// tells. The servers are crypto/tls.
func TestReadResponse(t *testing.T) {
	answer := func(server []tls.CurveID) []byte {
		a, b := net.Pipe()
		c, d := net.Pipe()
		defer b.Close()
		defer d.Close()
		go func() {
			tls.Client(a, &tls.Config{ServerName: "a.example", CurvePreferences: []tls.CurveID{tls.X25519, tls.CurveP256}}).Handshake() //nolint:errcheck // it is cut off
			a.Close()
		}()
		buf := make([]byte, 16<<10)
		n, err := b.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			tls.Server(c, &tls.Config{CurvePreferences: server, Certificates: []tls.Certificate{certificate(t)}}).Handshake() //nolint:errcheck // it is cut off
			c.Close()
		}()
		if _, err := d.Write(buf[:n]); err != nil {
			t.Fatal(err)
		}
		if n, err = d.Read(buf); err != nil {
			t.Fatal(err)
		}
		return buf[:n]
	}
	for want, b := range map[Response][]byte{RetryRequest: answer([]tls.CurveID{tls.CurveP256}), NoRetry: answer([]tls.CurveID{tls.X25519})} {
		at := ResponseLen
		if want == NoRetry {
			at = ResponseLen - 32 + 1 // but for one random in 256
			for ReadResponse(b[:at]) == Undecided {
				at++
			}
		}
		for n := range b {
			if got := ReadResponse(b[:n]); got != Undecided && n < at || got != want && n >= at {
				t.Fatalf("%d bytes of %x: %d; want %d", n, b, got, want)
			}
		}
	}
	for _, b := range []string{"\x15", "HTTP/1.0", "\x16\x03\x03\x00\x04\x0b"} {
		if ReadResponse([]byte(b)) != NoRetry {
			t.Errorf("%q", b)
		}
	}
}

// FuzzRead: a result holds for every longer stream, and the standard library parses
// the same name from an accepted message, or rejects it.
func FuzzRead(f *testing.F) {
	for _, c := range configs() {
		f.Add(capture(f, c), 50)
	}
	f.Add(capture(f, &tls.Config{InsecureSkipVerify: true}), 5)
	for _, m := range []made{legit(names("a.example")), legit(names("a.example", "b.example")), legit(names("a.example"), names("b.example")), legit(names("a.example.")),
		legit(names("a.example"), ext(42, "")), {version: "\x03\x01", session: "\x00", suites: "\x00\x02\x00\x2f", methods: "\x01\x00", exts: []string{names("A.Example")}}} {
		f.Add(m.stream(), 40)
		f.Add(records(m.message(), 7), 9)
		m.grow, m.extsGrow = 1, -1
		f.Add(m.stream(), 60)
		m.tail = string(legit(names("b.example")).message())
		f.Add(m.stream(), 70)
	}
	f.Fuzz(func(t *testing.T, b []byte, at int) {
		var d1, d2 [255]byte
		h, s := Read(b, &d1)
		if (s == Found) != (len(h.Name) > 0) || s == Found && h.Len > len(b) {
			t.Fatalf("%+v, %d", h, s)
		}
		if at >= 0 && at < len(b) {
			if h2, s2 := Read(b[:at], &d2); s2 != Incomplete && (s2 != s || string(h2.Name) != string(h.Name) || h2.Len != h.Len) {
				t.Fatalf("%d bytes: %+v, %d; all: %+v, %d", at, h2, s2, h, s)
			}
		}
		if s == Found {
			if name, ok := standard(b); ok && name != string(h.Name) {
				t.Fatalf("%q here, %q for crypto/tls", h.Name, name)
			}
		}
	})
}
