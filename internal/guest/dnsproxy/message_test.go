package dnsproxy

import (
	"fmt"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// TestSkipNameBounds: each bound of skipName, from both sides.
func TestSkipNameBounds(t *testing.T) {
	const at = headerLen
	head := strings.Repeat("\x00", at)
	for _, c := range []struct {
		what, name string
		want       int // bytes passed over; 0: it is none
	}{
		{"nothing", "", 0},
		{"root", "\x00", 1},
		{"root, and more", "\x00\x00", 1},
		{"a label", "\x03abc\x00", 5},
		{"without an end", "\x03abc", 0},
		{"label beyond the end", "\x04abc", 0},
		{"label of 63", "\x3f" + strings.Repeat("a", 63) + "\x00", 65},
		{"label of 64", "\x40" + strings.Repeat("a", 64) + "\x00", 0},
		{"label of type 10", "\x80" + strings.Repeat("a", 128) + "\x00", 0},
		{"label of 191", "\xbf" + strings.Repeat("a", 191) + "\x00", 0},
		{"255 bytes", long(254) + "\x00", 255},
		{"256 bytes", long(255) + "\x00", 0},
		{"255 bytes in labels of one", strings.Repeat("\x01a", 127) + "\x00", 255},
		{"257 bytes in labels of one", strings.Repeat("\x01a", 128) + "\x00", 0},
		{"pointer", "\xc0\x0c", 2},
		{"pointer of ones", "\xff\xff", 2},
		{"pointer, and more", "\xc0\x0c\x00", 2},
		{"half a pointer", "\xc0", 0},
		{"pointer behind a label", "\x01a\xc0\x0c", 4},
		{"half a pointer behind a label", "\x01a\xc0", 0},
		{"pointer behind 254 bytes", long(254) + "\xc0\x0c", 256},
		{"pointer behind 255 bytes", long(255) + "\xc0\x0c", 0},
	} {
		e, ok := skipName([]byte(head+c.name), at)
		if ok != (c.want > 0) || ok && e != at+c.want {
			t.Errorf("%s: to %d, %v; want %d bytes", c.what, e-at, ok, c.want)
		}
	}
	if _, ok := skipName([]byte(head), at); ok {
		t.Error("a name behind the end")
	}
}

// TestRecordBounds: the fixed part and the RDATA of a record must be within the
// message; its fields are as in RFC 1035 section 4.1.3.
func TestRecordBounds(t *testing.T) {
	head := strings.Repeat("\x00", headerLen)
	for _, owner := range []string{"\x00", "\x01b\x00", "\xc0\x0c"} {
		for _, n := range []int{0, 1, 255, 256, 65535} {
			m := []byte(head + owner + "\x12\x34\x56\x78\x9a\xbc\xde\xf0" + string([]byte{byte(n >> 8), byte(n)}) + strings.Repeat("r", n))
			data := headerLen + len(owner) + 10
			var r rr
			want := rr{owner: headerLen, typ: 0x1234, class: 0x5678, ttl: 0x9abcdef0, data: data, end: data + n}
			if !record(m, headerLen, &r) || r != want {
				t.Errorf("owner %q, %d bytes: %+v, want %+v", owner, n, r, want)
			}
			if !record(append(m, 0), headerLen, &r) || r != want {
				t.Errorf("owner %q, %d bytes, and more: %+v", owner, n, r)
			}
			for _, cut := range []int{headerLen, headerLen + 1, data - 1, data + n - 1} {
				if cut < len(m) && record(m[:cut], headerLen, &r) {
					t.Errorf("owner %q, %d bytes of RDATA, cut at %d of %d: read", owner, n, cut, len(m))
				}
			}
		}
	}
}

// TestForwardedOptions: which EDNS options are forwarded, in each direction, of all
// codes.
func TestForwardedOptions(t *testing.T) {
	up := map[uint16]bool{3: true, 5: true, 6: true, 7: true, 19: true}
	down := map[uint16]bool{3: true, 15: true, 18: true, 19: true}
	for code := range 1 << 16 {
		c := uint16(code)
		if forwardOption(c) != up[c] || returnOption(c) != down[c] {
			t.Errorf("option %d passes up %v, down %v", c, forwardOption(c), returnOption(c))
		}
	}
}

// TestOptionBounds: options must end with their record. One that does not fit is
// left out, and the next are still read.
func TestOptionBounds(t *testing.T) {
	opt := func(code, n int) string {
		return string([]byte{byte(code >> 8), byte(code), byte(n >> 8), byte(n)}) + strings.Repeat("o", n)
	}
	for _, c := range []struct {
		what, in, out string
		room          int
		ok            bool
	}{
		{"none", "", "", 10, true},
		{"empty", opt(3, 0), opt(3, 0), 10, true},
		{"one", opt(3, 5), opt(3, 5), 10, true},
		{"exactly fits", opt(3, 6), opt(3, 6), 10, true},
		{"a byte too long", opt(3, 7), "", 10, true},
		{"too long, then one that fits", opt(3, 7) + opt(19, 1), opt(19, 1), 10, true},
		{"two that fit together", opt(3, 1) + opt(19, 1), opt(3, 1) + opt(19, 1), 10, true},
		{"the second does not", opt(3, 1) + opt(19, 2), opt(3, 1), 10, true},
		{"one that does not pass", opt(10, 8) + opt(3, 0), opt(3, 0), 10, true},
		{"longer than 255", opt(10, 300) + opt(3, 0), opt(3, 0), 10, true},
		{"a head of 3", opt(3, 0)[:3], "", 10, false},
		{"cut off by one", opt(3, 5)[:8], "", 10, false},
		{"cut off far", opt(3, 0xfffe)[:8], "", 10, false},
		{"the second cut off", opt(3, 0) + opt(3, 2)[:5], opt(3, 0), 10, false},
		{"one byte", "\x00", "", 10, false},
	} {
		got, ok := options([]byte(c.in), forwardOption, make([]byte, 0, c.room))
		if ok != c.ok || string(got) != c.out {
			t.Errorf("%s: %x, %v; want %x, %v", c.what, got, ok, c.out, c.ok)
		}
	}
}

// TestAppendOPT (RFC 6891 section 6.1.2): the record, byte for byte.
func TestAppendOPT(t *testing.T) {
	for _, c := range []struct {
		got  []byte
		want string
	}{
		{appendOPT(nil, 1232, 0, false, nil), "\x00\x00\x29\x04\xd0\x00\x00\x00\x00\x00\x00"},
		{appendOPT([]byte("x"), 0xfedc, 0xab, true, []byte("opts")), "x\x00\x00\x29\xfe\xdc\xab\x00\x80\x00\x00\x04opts"},
		{appendOPT(nil, 0, 1, false, make([]byte, 0x102)), "\x00\x00\x29\x00\x00\x01\x00\x00\x00\x01\x02" + strings.Repeat("\x00", 0x102)},
	} {
		if string(c.got) != c.want {
			t.Errorf("%x, want %x", c.got, c.want)
		}
	}
}

// TestQueryBounds: each guard of parseQuery, by its effect: no response, FORMERR, or
// a query to the upstream.
func TestQueryBounds(t *testing.T) {
	const nothing, formErr, asks = "nothing", "FORMERR", "asks"
	header := func(flags uint16, counts ...byte) string {
		b := []byte{0, 77, byte(flags >> 8), byte(flags), 0, 0, 0, 0, 0, 0, 0, 0}
		for i, n := range counts {
			b[5+2*i] = n
		}
		return string(b)
	}
	const q, end = "\x01a\x07example\x00", "\x00\x01\x00\x01"
	opt := func(owner string, rdata string) string {
		return owner + "\x00\x29\x04\xd0\x00\x00\x00\x00" + string([]byte{byte(len(rdata) >> 8), byte(len(rdata))}) + rdata
	}
	cases := []struct{ what, msg, want string }{
		{"no byte", "", nothing},
		{"11 bytes", header(0, 1)[:11], nothing},
		{"12 bytes", header(0, 1), formErr},
		{"12 bytes, no question", header(0), formErr},
		{"a response", header(flagQR, 1) + q + end, nothing},
		{"a response of 12 bytes", header(flagQR), nothing},
		{"a question", header(flagRD, 1) + q + end, asks},
		{"two questions", header(0, 2) + q + end + q + end, formErr},
		{"256 questions", header(0, 1)[:4] + "\x01\x00" + header(0, 1)[6:] + q + end, formErr},
		{"the root", header(0, 1) + "\x00" + end, asks},
		{"a question without its class", header(0, 1) + q + end[:3], formErr},
		{"a question without its type", header(0, 1) + q, formErr},
		{"a name of 255", header(0, 1) + long(254) + "\x00" + end, asks},
		{"a name of 256", header(0, 1) + long(255) + "\x00" + end, formErr},
		{"a name that is a pointer", header(0, 1) + "\xc0\x0c" + end, formErr},
		{"a pointer to a zero", header(0, 1) + "\xc0\x04" + end, formErr},
		{"a pointer of which the second byte is 0", header(0, 1) + "\xc0\x00" + end, formErr},
		{"a label, then such a pointer", header(0, 1) + "\x01a\xc0\x00" + end, formErr},
		{"a name of 254, then such a pointer", header(0, 1) + long(254) + "\xc0\x00" + end, formErr},
		{"a label of 64", header(0, 1) + "\x40" + strings.Repeat("a", 64) + "\x00" + end, formErr},
		{"with a record", header(0, 1, 0, 0, 1) + q + end + rawRR("\x00", 16, "\x01x"), asks},
		{"an answer that is not there", header(0, 1, 1) + q + end, formErr},
		{"an authority that is not there", header(0, 1, 0, 1) + q + end, formErr},
		{"an additional that is not there", header(0, 1, 0, 0, 1) + q + end, formErr},
		{"EDNS", header(0, 1, 0, 0, 1) + q + end + opt("\x00", ""), asks},
		{"EDNS behind a record", header(0, 1, 0, 0, 2) + q + end + rawRR("\x00", 16, "\x01x") + opt("\x00", ""), asks},
		{"EDNS cut off", header(0, 1, 0, 0, 1) + q + end + opt("\x00", "")[:10], formErr},
		{"EDNS twice", header(0, 1, 0, 0, 2) + q + end + opt("\x00", "") + opt("\x00", ""), formErr},
		{"EDNS of a name", header(0, 1, 0, 0, 1) + q + end + opt("\x01a\x00", ""), formErr},
		{"EDNS of a pointer", header(0, 1, 0, 0, 1) + q + end + opt("\xc0\x0c", ""), formErr},
		{"EDNS among answers", header(0, 1, 1) + q + end + opt("\x00", ""), formErr},
		{"EDNS in the authority", header(0, 1, 0, 1) + q + end + opt("\x00", ""), formErr},
		{"EDNS additional, behind both", header(0, 1, 1, 1, 1) + q + end + rawRR("\x00", 16, "\x01x") + rawRR("\x00", 16, "\x01x") + opt("\x00", ""), asks},
		{"an option", header(0, 1, 0, 0, 1) + q + end + opt("\x00", "\x00\x03\x00\x01x"), asks},
		{"an option cut off", header(0, 1, 0, 0, 1) + q + end + opt("\x00", "\x00\x03\x00\x02x"), formErr},
		{"rubbish behind", header(0, 1) + q + end + "rubbish", asks},
		{"65535 bytes", header(0, 1) + q + end + strings.Repeat("r", 65535-headerLen-len(q+end)), asks},
		{"65536 bytes", header(0, 1) + q + end + strings.Repeat("r", 65536-headerLen-len(q+end)), nothing},
	}
	for _, c := range cases {
		b := newBench(t, nil)
		b.p.Query(&Client{Addr: client1}, []byte(c.msg), b.now)
		got := fmt.Sprintf("%d to upstreams, %d to the client", len(b.sent), len(b.got))
		switch {
		case len(b.sent)+len(b.got) == 0 && b.p.c.NotQueries == 1 && b.p.c.Queries == 0:
			got = nothing
		case len(b.sent) == 1 && len(b.got) == 0:
			got = asks
		case len(b.got) == 1 && len(b.sent) == 0 && b.got[0][3]&15 == rcodeFormErr:
			got = formErr
		}
		if got != c.want {
			t.Errorf("%s: %s, want %s", c.what, got, c.want)
		}
	}
	// Whatever a query is cut to, it is read within its bounds.
	long := header(0, 1, 1, 1, 1) + q + end + rawRR("\x00", 16, "\x01x") + rawRR("\xc0\x0c", 5, "\xc0\x0c") + opt("\x00", "\x00\x03\x00\x02xy")
	for n := range len(long) {
		b := newBench(t, nil)
		b.p.Query(&Client{Addr: client1}, []byte(long[:n]), b.now)
		if len(b.sent) != 0 || len(b.got) != min(1, n/headerLen) {
			t.Errorf("%d of %d bytes: %d to upstreams, %d to the client", n, len(long), len(b.sent), len(b.got))
		}
	}
}

// TestQuestionFields: the fields of a parsed query are those that another library
// has written.
func TestQuestionFields(t *testing.T) {
	for _, size := range []uint16{0, 511, 512, 513, 1232, 65535} {
		for _, do := range []bool{false, true} {
			m := query("WwW.Example", dns.TypeMX)
			m.Question[0].Qclass = 0x1234
			m.RecursionDesired, m.CheckingDisabled = do, !do
			m.SetEdns0(size, do)
			m.IsEdns0().SetVersion(uint8(size))
			m.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_COOKIE{Code: 10, Cookie: "0011223344556677"}, &dns.EDNS0_NSID{Code: 3}}
			raw := pack(t, m)
			var q question
			if !parseQuery(raw, &q, make([]byte, 0, 48)) || !q.wellFormed || q.ednsMalformed || !q.edns {
				t.Fatalf("not read: %+v", q)
			}
			if q.id != 77 || q.flags != be16(raw[2:]) || string(q.name) != "\x03WwW\x07Example\x00" || q.end != headerLen+13+4 || q.typ != dns.TypeMX || q.class != 0x1234 ||
				q.do != do || q.version != uint8(size) || q.size != max(size, 512) || string(q.opts) != "\x00\x03\x00\x00" {
				t.Errorf("size %d, DO %v: %+v", size, do, q)
			}
		}
	}
	// A record in the wrong place, or a second one, says nothing more.
	m := query("a.example", dns.TypeA)
	m.SetEdns0(1232, true)
	for _, misplaced := range []bool{true, false} {
		other := m.Copy()
		if misplaced {
			other.Answer, other.Extra = other.Extra, nil
		} else {
			other.Extra = append(other.Extra, m.Copy().Extra[0])
			other.Extra[1].(*dns.OPT).SetDo(false)
			other.Extra[1].(*dns.OPT).SetUDPSize(4096)
		}
		var q question
		if !parseQuery(pack(t, other), &q, nil) || !q.ednsMalformed || q.edns == misplaced || q.do == misplaced || (q.size == 1232) == misplaced {
			t.Errorf("misplaced %v: %+v", misplaced, q)
		}
	}
	var q question
	if !parseQuery(pack(t, query("a.example", dns.TypeA)), &q, nil) || q.edns || q.do || q.version != 0 || q.size != 512 || len(q.opts) != 0 {
		t.Errorf("without EDNS: %+v", q)
	}
}

// TestLetters: only ASCII letters have case.
func TestLetters(t *testing.T) {
	for c := range 256 {
		b := byte(c)
		is := b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z'
		want := b
		if b >= 'A' && b <= 'Z' {
			want += 'a' - 'A'
		}
		if letter(b) != is || lower(b) != want {
			t.Errorf("%q: a letter %v, in lower case %q", b, letter(b), lower(b))
		}
	}
}
