package dnsproxy

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/thurward/thurward/internal/shared/ruleset"
)

// The question of these tests, a.example, ends at bodyAt.
const (
	askedName = "\x01a\x07example\x00"
	bodyAt    = headerLen + len(askedName) + 4
)

// pointer returns a compression pointer.
func pointer(to int) string { return string([]byte{0xc0 | byte(to>>8), byte(to)}) }

// long returns labels of n bytes in all, without an end.
func long(n int) string {
	s := ""
	for ; n > 64; n -= 50 {
		s += "\x31" + strings.Repeat("x", 49)
	}
	return s + string([]byte{byte(n - 1)}) + strings.Repeat("y", n-1)
}

// badNames returns invalid names at offset at; goodNames, similar ones that are
// valid.
func badNames(at int) map[string]string {
	return map[string]string{
		"pointer to itself":           pointer(at),
		"pointer to its own label":    "\x01b" + pointer(at),
		"pointers in a circle":        "\x01b" + pointer(at+4) + pointer(at),
		"pointer forward":             pointer(at+2) + "\x00",
		"pointer beyond the end":      "\xff\xff",
		"pointer into the identifier": pointer(0), // which is another one for the client
		"pointer into the counts":     pointer(11),
		"label of 64":                 "\x40" + strings.Repeat("a", 64) + "\x00",
		"label of type 10":            "\x80\x01a\x00",
		"label of 65 by a pointer":    "\x01b" + pointer(at) + "\x41" + strings.Repeat("a", 65),
		"256 bytes":                   long(255) + "\x00",
		"256 bytes by a pointer":      long(256-len(askedName)) + pointer(headerLen),
		"no end":                      "\x03ab",
		"half a pointer":              "\xc0",
	}
}

func goodNames() map[string]string {
	return map[string]string{
		"root":                   "\x00",
		"plain":                  "\x03Www\x07Example\x00",
		"pointer":                pointer(headerLen),
		"pointer behind a label": "\x03www" + pointer(headerLen),
		"pointer to the root":    "\x03www" + pointer(headerLen+len(askedName)-1),
		"label of 63":            "\x3f" + strings.Repeat("a", 63) + "\x00",
		"255 bytes":              long(254) + "\x00",
		"255 bytes by a pointer": long(255-len(askedName)) + pointer(headerLen),
		"127 labels":             strings.Repeat("\x01a", 127) + "\x00",
	}
}

// places are where a name is in a record: its type, and what is before and
// behind it in the RDATA.
var places = []struct {
	typ           int
	before, after string
}{
	{typeNS, "", ""}, {typeMD, "", ""}, {typeMF, "", ""}, {typeCNAME, "", ""}, {typeMB, "", ""}, {typeMG, "", ""}, {typeMR, "", ""}, {typePTR, "", ""},
	{typeDNAME, "", ""}, {typeNSAPPTR, "", ""},
	{typeSOA, "", "\x00" + strings.Repeat("s", 20)}, {typeSOA, "\x01m\x00", strings.Repeat("s", 20)},
	{typeMINFO, "", "\x00"}, {typeMINFO, "\x00", ""}, {typeRP, "", "\x00"}, {typeRP, "\x00", ""}, {typeTALINK, "", "\x00"}, {typeTALINK, "\x00", ""},
	{typeMX, "pr", ""}, {typeAFSDB, "st", ""}, {typeRT, "pr", ""}, {typeKX, "pr", ""}, {typeLP, "pr", ""},
	{typePX, "pr", "\x00"}, {typePX, "pr\x00", ""}, {typeSRV, "prwept", ""}, {typeDSYNC, "ttspp", ""},
	{typeNAPTR, "orpr\x01s\x00\x02!!", ""}, {typeNAPTR, "orpr\x00\x00\x00", ""},
	{typeSIG, strings.Repeat("h", 18), "signature"}, {typeRRSIG, strings.Repeat("h", 18), "signature"},
	{typeNXT, "", "bits"}, {typeNSEC, "", "\x00\x01\x40"}, {typeTKEY, "", "rest"}, {typeTSIG, "", "rest"},
	{typeSVCB, "\x00\x01", ""}, {typeHTTPS, "\x00\x00", "\x00\x01\x00\x03\x02h2"},
	{typeA6, "\x80", ""}, {typeA6, "\x40" + strings.Repeat("s", 8), ""},
	{typeIPSECKEY, "p\x03a", "key"}, {typeAMTRELAY, "p\x03", ""}, {typeAMTRELAY, "p\x83", ""},
	{typeHIP, "\x02a\x00\x03hhkkk", ""}, {typeHIP, "\x02a\x00\x03hhkkk\x00", "\x00"},
}

var ways = []string{"UDP", "TCP", "TLS"}

// through sends a response to a query for ANY over UDP, TCP or TLS, and returns the
// reply.
func (b *bench) through(how, body string, counts [3]int) *dns.Msg {
	b.t.Helper()
	q := query("a.example", dns.TypeANY)
	b.p.Query(&Client{Addr: client1, Port: 4000, Server: 1, Conn: 7}, pack(b.t, q), b.now)
	var asked []byte
	switch how {
	case "TLS":
		asked = b.tls[0].msg
	case "TCP":
		_, up := b.last()
		r := reply(b.t, up)
		r.Truncated = true
		b.answer(pack(b.t, r))
		asked = b.tcp[0].msg
	default:
		asked = b.sent[0].msg
	}
	m := slices.Clone(asked[:bodyAt])
	m[2], m[3] = m[2]|0x80, m[3]|b.code
	for i, n := range counts {
		m[6+2*i], m[7+2*i] = byte(n>>8), byte(n)
	}
	m = append(m, body...)
	switch how {
	case "TLS":
		b.p.TLSResponse(0, m, b.now)
	case "TCP":
		b.p.TCPResponse(b.tcp[0].tag, m, b.now)
	default:
		b.answer(m)
	}
	if len(b.got) != 1 {
		b.t.Fatalf("%s: the client gets %d answers", how, len(b.got))
	}
	got := new(dns.Msg)
	if err := got.Unpack(b.got[0]); err != nil && got.Rcode == dns.RcodeServerFailure {
		b.t.Fatal(err)
	}
	return got
}

func overOf(how string) func(*ruleset.Policy) {
	return func(p *ruleset.Policy) {
		if how == "TLS" {
			p.Upstreams[0].TLS = 1
		}
	}
}

// refuses sends a response over some transports and reports those that are not
// SERVFAIL, not counted, or counted as a failure of the upstream.
func refuses(t *testing.T, over []string, what, body string, counts [3]int) {
	t.Helper()
	for _, how := range over {
		b := newBench(t, overOf(how))
		m := b.through(how, body, counts)
		if m.Rcode != dns.RcodeServerFailure || len(m.Answer)+len(m.Ns)+len(m.Extra) != 0 {
			t.Errorf("%s, %s: passed on: %x", what, how, b.got[0])
		}
		if b.p.c.Malformed != 1 || b.set.Len() != 0 || b.p.up[0].failures != 0 || b.p.Outstanding() != 0 {
			t.Errorf("%s, %s: %d counted, %d bound, upstream blamed %d times", what, how, b.p.c.Malformed, b.set.Len(), b.p.up[0].failures)
		}
	}
}

func relays(t *testing.T, over []string, what, body string, counts [3]int) {
	t.Helper()
	for _, how := range over {
		b := newBench(t, overOf(how))
		m := b.through(how, body, counts)
		if m.Rcode != dns.RcodeSuccess || string(b.got[0][bodyAt:]) != body || b.p.c.Malformed != 0 {
			t.Errorf("%s, %s: the client gets %x", what, how, b.got[0])
		}
	}
}

// TestMalformedNames: every name of a relayed response is valid, in any place;
// otherwise the client gets SERVFAIL, it is counted, and it is no failure of the
// upstream.
func TestMalformedNames(t *testing.T) {
	in := func(section int) (counts [3]int) { counts[section] = 1; return }
	for section := range 3 {
		for what, n := range badNames(bodyAt) {
			refuses(t, ways, fmt.Sprintf("section %d, owner: %s", section, what), n+rawRR("", 16, "\x01x"), in(section))
		}
		for what, n := range goodNames() {
			relays(t, ways, fmt.Sprintf("section %d, owner: %s", section, what), n+rawRR("", 16, "\x01x"), in(section))
		}
	}
	for i, p := range places {
		at := fmt.Sprintf("type %d behind %d bytes: ", p.typ, len(p.before))
		rr := func(n string) string { return rawRR(pointer(headerLen), uint16(p.typ), p.before+n+p.after) }
		way := ways[i%3 : i%3+1]
		for what, n := range badNames(bodyAt + 12 + len(p.before)) {
			if p.after != "" && (what == "half a pointer" || what == "no end") {
				continue // what follows may complete it
			}
			refuses(t, way, at+what, rr(n), in(i/3%3))
		}
		for what, n := range goodNames() {
			relays(t, way, at+what, rr(n), in(i/3%3))
		}
	}
}

// TestWrongLengths: wrong lengths and counts, and RDATA that is too short or too
// long.
func TestRecordsThatLie(t *testing.T) {
	self := pointer(headerLen)
	txt := rawRR(self, 16, "\x01x")
	refuses(t, ways[:1], "one record more than there is", txt, [3]int{2})
	refuses(t, ways[:1], "one in the authority section", txt, [3]int{1, 1})
	refuses(t, ways[:1], "one in the additional section", txt, [3]int{1, 0, 1})
	refuses(t, ways[:1], "65535 records", txt, [3]int{65535, 65535, 65535})
	for n := 1; n < len(txt); n++ {
		refuses(t, ways[:1], fmt.Sprintf("cut off after %d bytes", n), txt[:n], [3]int{1})
	}
	over := []byte(txt)
	over[11]++
	refuses(t, ways[:1], "RDATA beyond the end", string(over), [3]int{1})
	over[10] = 0xff
	refuses(t, ways[:1], "RDATA far beyond the end", string(over), [3]int{1})
	for _, p := range places {
		what := fmt.Sprintf("type %d, ", p.typ)
		rdata := p.before + "\x01b\x00" + p.after
		if _, _, after, _ := namesOf(p.typ, classIN, []byte(rdata)); after != rest && p.typ != typeHIP {
			refuses(t, ways[:1], what+"a byte more", rawRR(self, uint16(p.typ), rdata+"\x00"), [3]int{1})
			if len(p.after) > 1 {
				refuses(t, ways[:1], what+"a byte less", rawRR(self, uint16(p.typ), rdata[:len(rdata)-1]), [3]int{1})
			}
		}
		for n := range len(p.before) + 2 {
			if p.typ == typeHIP && (n == 9 || n == 10) {
				continue // without a name, or with one: both are whole
			}
			refuses(t, ways[:1], fmt.Sprintf("%s%d bytes of RDATA", what, n), rawRR(self, uint16(p.typ), rdata[:n]), [3]int{1})
		}
	}
	// Behind the last record: not passed on. An answer that says less than it
	// has says less.
	for _, how := range ways {
		b := newBench(t, overOf(how))
		if m := b.through(how, txt+txt+"rubbish", [3]int{1}); m.Rcode != 0 || string(b.got[0][bodyAt:]) != txt {
			t.Errorf("%s: the client gets %x", how, b.got[0])
		}
	}
	// Types without names may hold what looks like one.
	for _, typ := range []uint16{10, 16, 99, 256, 257, 65399} {
		relays(t, ways[:1], fmt.Sprintf("type %d", typ), rawRR(self, typ, "\x02\xff\xff"), [3]int{1})
	}
	relays(t, ways[:1], "a gateway that is no name", rawRR(self, typeIPSECKEY, "p\x01a\xff\xff\xff\xffkey"), [3]int{1})
	relays(t, ways[:1], "a relay that is no name", rawRR(self, typeAMTRELAY, "p\x01\xff\xff\xff\xff"), [3]int{1})
	relays(t, ways[:1], "an A6 without a prefix", rawRR(self, typeA6, "\x00"+strings.Repeat("\xff", 16)), [3]int{1})
	refuses(t, ways[:1], "an A6 with a prefix of 129", rawRR(self, typeA6, "\x81\x00"), [3]int{1})
}

// TestChaosAddress: an address of class CH has a name (RFC 1034 section 3.6).
func TestChaosAddress(t *testing.T) {
	rr := func(name string) string {
		s := []byte(rawRR(pointer(headerLen), typeA, name+"\x00\x01"))
		s[5] = classCH
		return string(s)
	}
	relays(t, ways[:1], "a name", rr("\x01b\x00"), [3]int{1})
	refuses(t, ways[:1], "a loop", rr(pointer(bodyAt+12)), [3]int{1})
}

// TestExpandBounds: each bound of expand, from both sides.
func TestExpandBounds(t *testing.T) {
	const at = headerLen
	head := strings.Repeat("\x00", headerLen)
	chain := func(n int) (string, int) { // n pointers, the first of which leads to a name
		s := head + "\x01a\x00"
		for i := range n {
			to := at
			if i > 0 {
				to = len(s) - 2
			}
			s += pointer(to)
		}
		return s, len(s) - 2
	}
	most, mostAt := chain(maxPointers)
	more, moreAt := chain(maxPointers + 1)
	for _, c := range []struct {
		what string
		m    string
		off  int
		want int
	}{
		{"nothing", "", 0, 0}, {"behind the end", head, at, 0}, {"root", head + "\x00", at, 1},
		{"label of 63", head + "\x3f" + strings.Repeat("a", 63) + "\x00", at, 65},
		{"label of 63, cut off", head + "\x3f" + strings.Repeat("a", 62), at, 0},
		{"label to the end", head + "\x01a", at, 0},
		{"label of 64", head + "\x40" + strings.Repeat("a", 64) + "\x00", at, 0},
		{"255", head + long(254) + "\x00", at, 255}, {"256", head + long(255) + "\x00", at, 0},
		{"255 by a pointer", head + "\x01a\x00" + long(252) + pointer(at), at + 3, 255},
		{"256 by a pointer", head + "\x01a\x00" + long(253) + pointer(at), at + 3, 0},
		{"pointer to the first byte behind the header", head + "\x00" + pointer(at), at + 1, 1},
		{"pointer to the last byte of the header", head + "\x00" + pointer(at-1), at + 1, 0},
		{"pointer to itself", head + pointer(at), at, 0},
		{"pointer to the byte before", head + "\x00" + pointer(at), at + 1, 1},
		{"pointer cut off", head + "\x00\xc0", at + 1, 0},
		{"name that its pointer cuts", head + "\x02a" + pointer(at), at + 2, 0}, // the label would be a and half the pointer
		{"name that runs into who points to it", head + "\x01a\x01b" + pointer(at), at + 2, 0},
		{"many pointers", most, mostAt, 3}, {"one more", more, moreAt, 0},
	} {
		var buf [maxName]byte
		if n := expand([]byte(c.m), c.off, &buf); n != c.want {
			t.Errorf("%s: %d bytes, want %d", c.what, n, c.want)
		}
	}
}

// TestShortestResponses: prefixes of all lengths of a response, of which only the
// whole is accepted, over each transport.
func TestShortestAnswers(t *testing.T) {
	for _, how := range ways {
		b := newBench(t, overOf(how))
		b.ask(query("a.example", dns.TypeA))
		var asked []byte
		var give func(m []byte)
		switch how {
		case "TLS":
			asked = b.tls[0].msg
			give = func(m []byte) { b.p.TLSResponse(0, m, b.now) }
		case "TCP":
			_, up := b.last()
			r := reply(t, up)
			r.Truncated = true
			b.answer(pack(t, r))
			asked = b.tcp[0].msg
			give = func(m []byte) { b.p.TCPResponse(b.tcp[len(b.tcp)-1].tag, m, b.now) }
		default:
			asked = b.sent[0].msg
			s := b.sent[0]
			give = func(m []byte) { b.p.UDPResponse(s.to, s.toPort, s.myPort, m, b.now) }
		}
		whole := slices.Clone(asked[:bodyAt])
		whole[2] |= 0x80
		whole[11] = 0
		if how == "TCP" { // the first that is none ends it
			give(whole[:headerLen])
			if b.p.c.Mismatched != 1 || b.set.Len() != 0 {
				t.Errorf("TCP: 12 bytes: %d counted", b.p.c.Mismatched)
			}
			continue
		}
		for n := range 6 { // few enough that the query is not taken to TCP
			give(whole[:[...]int{0, 1, headerLen - 1, headerLen, headerLen + 1, bodyAt - 1}[n]])
			if len(b.got) != 0 || b.p.c.Mismatched != uint64(n+1) {
				t.Fatalf("%s: %d answers, %d counted after %d", how, len(b.got), b.p.c.Mismatched, n+1)
			}
		}
		give(whole)
		if len(b.got) != 1 || unpack(t, b.got[0]).Rcode != 0 {
			t.Fatalf("%s: the whole answer is not taken", how)
		}
	}
}
