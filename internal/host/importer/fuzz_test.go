package importer

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"github.com/thurward/thurward/internal/host/policy"
	"github.com/thurward/thurward/internal/host/policy/compile"
)

// stored returns the rule sets that match a pattern.
func stored(t testing.TB, pattern string) (sets [][]byte) {
	t.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) == 0 {
		t.Fatalf("no rule sets: %s, %v", pattern, err)
	}
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		sets = append(sets, b)
	}
	return sets
}

// short adds the stored rule sets of some KB to a corpus: longer ones take the fuzzer's time. TestStored has all.
func short(f *testing.F, pattern string) {
	n := 0
	for _, b := range stored(f, pattern) {
		if len(b) <= 6<<10 {
			f.Add(b)
			n++
		}
	}
	if n == 0 {
		f.Fatalf("none of %s is short", pattern)
	}
}

// TestStored: what holds for fuzzed input holds for each stored rule set, whole and cut off anywhere.
func TestStored(t *testing.T) {
	for _, x := range []struct {
		pattern string
		read    func([]byte, Options) (*Result, error)
		o       Options
	}{{"testdata/real/*/rules.v4", IPTables, Options{LAN: "eth1", WAN: "eth0"}}, {"testdata/nft/*.json", NFT, Options{LAN: "eth1", WAN: "eth0"}},
		{"testdata/*.xml", OPNsense, Options{}}, {"testdata/opnsense/*/config.xml", OPNsense, Options{}}} {
		for _, b := range stored(t, x.pattern) {
			imports(t, b, x.read, x.o)
			for i := range 4 {
				imports(t, b[:len(b)*(i+1)/5], x.read, x.o)
			}
		}
	}
}

// unread says of which inputs an import may make nothing at all: those that are not of the format, and those
// that are too large.
var unread = regexp.MustCompile(`: ?(not the output of |not a config\.xml: |its root is |it is of pfSense|` +
	`\d+ bytes; at most|\d+ rules; at most|\d+ interfaces; at most|more than \d+ |\d+: more than \d+ lines|` +
	`the policy has \d+ bytes|\d+: the (line has more than|output of ip6tables-save|table .* a second time)|` +
	`it has zero bytes|UTF-16 of )`)

// fuzzTime is how much processor time the import of a fuzzed input may take.
const fuzzTime = 10 * time.Second

// imports is what holds for every input: no panic, bounded time, and with Partial a policy that loads and
// compiles unless the input is none of the format or too large.
func imports(t *testing.T, b []byte, read func([]byte, Options) (*Result, error), o Options) {
	o.File, o.Partial = "fuzz", true
	began := processorTime(t)
	r, err := read(b, o)
	if d := processorTime(t) - began; d > fuzzTime {
		t.Errorf("%d bytes took %v", len(b), d)
	}
	if err != nil {
		if !unread.MatchString(err.Error()) {
			t.Errorf("no policy with Partial: %v", err)
		}
		return
	}
	p, ds := policy.Load("imported", r.YAML)
	if p == nil {
		t.Fatalf("%v\n%s", ds, r.YAML)
	}
	if _, err := compile.Compile(p); err != nil {
		t.Fatalf("it does not compile: %v\n%s", err, r.YAML)
	}
	for _, n := range r.Notes {
		if n.Place == "" || n.Why == "" || n.Effect == "" {
			t.Errorf("a note says too little: %+v", n)
		}
	}
}

// FuzzNFT: its corpus has what nft tells of the stored rule sets (testdata/nft), and hand-made documents.
func FuzzNFT(f *testing.F) {
	for _, x := range fixtures[:2] {
		f.Add(read(f, x.file))
	}
	short(f, "testdata/nft/*.json")
	f.Add([]byte(`{"nftables":[{"chain":{"family":"ip","table":"t","name":"c","type":"filter","hook":"forward"}},{"rule":{"family":"ip","table":"t","chain":"c","handle":1,"comment":"a\u2028b\"","expr":[{"vmap":{"key":{"concat":[{"meta":{"key":"iifname"}},{"payload":{"protocol":"tcp","field":"dport"}}]},"data":{"set":[[{"concat":["a",{"range":[1,2]}]},{"accept":null}]]}}}]}}]}`))
	f.Fuzz(func(t *testing.T, b []byte) { imports(t, b, NFT, Options{LAN: "eth1", WAN: "eth0"}) })
}

func FuzzIPTables(f *testing.F) {
	f.Add(read(f, "office.iptables"))
	short(f, "testdata/real/*/rules.v4")
	f.Add([]byte("*nat\n:PREROUTING ACCEPT\n-A PREROUTING -p tcp -m multiport ! --dports 1,2:3 -j DNAT --to-destination 1.2.3.4-1.2.3.5:1-2\n"))
	f.Add([]byte("\xff\xfe*\x00n\x00a\x00t\x00\n\x00"))
	f.Add([]byte("\xef\xbb\xbf*filter\r\n:FORWARD DROP [0:0]\r\n-A FORWARD -s 10.0.0.0/24 -j ACCEPT\r\nCOMMIT\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) { imports(t, b, IPTables, Options{LAN: "eth1", WAN: "eth0"}) })
}

func FuzzOPNsense(f *testing.F) {
	short(f, "testdata/*.xml")
	f.Add([]byte("<opnsense><interfaces><lan><enable/><ipaddr>10.0.0.1</ipaddr><subnet>33</subnet></lan></interfaces><nat><outbound><mode>advanced</mode><rule><target>1.2.3.4-1.2.3.9</target></rule></outbound></nat></opnsense>"))
	f.Fuzz(func(t *testing.T, b []byte) { imports(t, b, OPNsense, Options{}) })
}

// TestWindowsFiles: what editors and shells of Windows make of a file means the same.
func TestWindowsFiles(t *testing.T) {
	wide := func(b []byte, big bool) []byte {
		out := []byte("\xff\xfe")
		if big {
			out = []byte("\xfe\xff")
		}
		for _, c := range b {
			if big {
				out = append(out, 0, c)
			} else {
				out = append(out, c, 0)
			}
		}
		return out
	}
	for _, f := range []struct {
		file string
		read func([]byte, Options) (*Result, error)
	}{{"office.iptables", IPTables}, {"office.json", NFTAny}, {"opnsense.xml", OPNsense}} {
		src := bytes.ReplaceAll(read(t, f.file), []byte("\r"), nil)
		o := Options{File: "f", Partial: true}
		want, err := f.read(src, o)
		if err != nil {
			t.Fatal(err)
		}
		crlf := bytes.ReplaceAll(src, []byte("\n"), []byte("\r\n"))
		for name, b := range map[string][]byte{"CRLF": crlf, "UTF-8 with a mark": append([]byte("\xef\xbb\xbf"), crlf...),
			"UTF-16": wide(crlf, false), "UTF-16, big-endian": wide(src, true)} {
			got, err := f.read(b, o)
			if err != nil {
				t.Errorf("%s in %s: %v", f.file, name, err)
			} else if !bytes.Equal(got.YAML, want.YAML) {
				t.Errorf("%s in %s becomes another policy", f.file, name)
			}
		}
		for name, b := range map[string][]byte{"half a character": wide(src, false)[:101], "UTF-16 without a mark": wide(src, false)[2:],
			"zero bytes": append([]byte("\x00\x00\x00"), src...)} {
			if _, err := f.read(b, o); err == nil {
				t.Errorf("%s in %s is read", f.file, name)
			}
		}
	}
	for label, ok := range map[string]bool{"us-ascii": true, "ISO-8859-1": true, "Windows-1252": true, "utf-8": true, "koi8-r": false} {
		src := "<?xml version='1.0' encoding='" + label + "'?>" + opnTop + "<x>\xe9</x></opnsense>"
		if label == "utf-8" {
			src = "<?xml version='1.0' encoding='utf-8'?>" + opnTop + "<x>é</x></opnsense>"
		}
		if _, err := OPNsense([]byte(src), Options{File: "f", Partial: true}); (err == nil) != ok {
			t.Errorf("%s: %v", label, err)
		}
	}
}
