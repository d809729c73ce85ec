package hostile

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/thurward/thurward/internal/host/policy/compile"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/ruleset/rulesettest"
)

// readers are the commands that read a file whose author is somebody else.
var readers = map[string][]string{
	"check": {"check", "-f"}, "test": {"test", "-f"}, "build": {"build", "-o", "x.img", "-f"}, "explain": {"explain", "--from", "lan", "--proto", "tcp", "--src", "10.0.0.5:1", "--dst", "192.0.2.1:1", "-f"},
	"diff": {"diff", "rules.yaml"}, "import-nft": {"import", "nft"}, "import-iptables": {"import", "iptables"}, "replay-policy": {"replay", "--lan", "rules.yaml", "--policy"}, "replay-capture": {"replay", "--lan"},
	"kernel": {"build", "-o", "x.img", "--program", "rules.yaml", "--kernel"}, "program": {"build", "-o", "x.img", "--program"}, "run": {"run", "--image"},
}

// image is an image whose ruleset the caller may change; the digest is
// right.
func image(t *testing.T, change func(p *ruleset.Policy)) []byte {
	t.Helper()
	p := &ruleset.Policy{Interfaces: rulesettest.Interfaces(), Settings: ruleset.Settings{DefaultAction: ruleset.Deny, MaxFlows: 1024}, Strings: []byte("lanwan"),
		Classifier: ruleset.Classifier{Roots: []ruleset.Root{{}}}}
	change(p)
	return withRuleset(compile.Encode(p))
}

// withRuleset returns a bootable image with this ruleset.
func withRuleset(seg []byte) []byte {
	b := bootable()
	le := binary.LittleEndian
	// One more program header, of the segment at the end of the file.
	const header = 56
	notes := bytes.Clone(b[64 : 64+header])
	tail := bytes.Clone(b[64+header:])
	le.PutUint16(b[56:], 2)
	le.PutUint64(notes[8:], uint64(64+2*header))
	load := make([]byte, header)
	le.PutUint32(load, 1)
	le.PutUint32(load[4:], 4)
	off := (64 + 2*header + len(tail) + 4095) &^ 4095
	for i, v := range []uint64{uint64(off), 0x200000, 0x200000, uint64(len(seg)), uint64(len(seg)), 4096} {
		le.PutUint64(load[8+8*i:], v)
	}
	out := slices.Concat(b[:64], notes, load, tail)
	return append(append(out, make([]byte, off-len(out))...), seg...)
}

// refuses runs the launcher with an image, which it must not crash on. The
// networks are the simulated ones, so that all of the policy is used.
func refuses(t *testing.T, img []byte) result {
	t.Helper()
	dir := folder(t, "image", string(img))
	if err := os.Mkdir(filepath.Join(dir, "r"), 0o700); err != nil {
		t.Fatal(err)
	}
	return command(t, dir, "run", "--image", "image", "--accel", "tcg", "--lan", "demo", "--wan", "demo", "--page", "none", "--vsock", filepath.Join(dir, "r", "vsock"), "--timeout", "1s", "--restart", "never")
}

func v4(a, b, c, d byte) ruleset.Addr {
	return ruleset.Addr{10: 0xff, 11: 0xff, 12: a, 13: b, 14: c, 15: d}
}

func init() {
	honest := func(t *testing.T) {
		dir := folder(t, "rules.yaml", honestPolicy)
		if r := command(t, dir, "check"); r.code != 0 {
			t.Errorf("%+v", r)
		}
	}
	for name, args := range readers {
		add(attack{"files/sparse-" + name, func(t *testing.T) {
			dir := folder(t, "rules.yaml", honestPolicy, "huge", "")
			if err := os.Truncate(filepath.Join(dir, "huge"), 1<<40); err != nil {
				t.Skip("no sparse files here: ", err)
			}
			r := command(t, dir, append(slices.Clone(args), "huge")...)
			if r.code != 1 || !strings.Contains(r.out+r.err, "huge") {
				t.Errorf("exit %d:\n%s%s", r.code, r.out, r.err)
			}
		}, honest})
		add(attack{"files/folder-" + name, func(t *testing.T) {
			dir := folder(t, "rules.yaml", honestPolicy)
			if err := os.Mkdir(filepath.Join(dir, "d"), 0o700); err != nil {
				t.Fatal(err)
			}
			if r := command(t, dir, append(slices.Clone(args), "d")...); r.code != 1 && r.code != 2 {
				t.Errorf("exit %d:\n%s%s", r.code, r.out, r.err)
			}
		}, honest})
	}
	add(
		attack{"files/endless", func(t *testing.T) {
			dir := folder(t, "rules.yaml", honestPolicy)
			for _, args := range [][]string{{"check", "-f", "/dev/zero"}, {"import", "nft", "/dev/zero"}, {"import", "iptables", "/dev/zero"}, {"diff", "rules.yaml", "/dev/zero"}} {
				if r := command(t, dir, args...); r.code != 1 || !strings.Contains(r.err, "too long") {
					t.Errorf("%q: exit %d:\n%s%s", args, r.code, r.out, r.err)
				}
			}
		}, honest},
		attack{"files/device-as-image", func(t *testing.T) {
			if r := command(t, folder(t), "run", "--image", "/dev/zero"); r.code != 1 || !strings.Contains(r.err, "not a regular file") {
				t.Errorf("exit %d:\n%s", r.code, r.err)
			}
		}, honest},
		attack{"files/nft-of-nothing", func(t *testing.T) {
			for _, doc := range [][3]string{
				{`{"nftables":[`, "{},", `{}]}`}, {`{"nftables":[{"rule":{"expr":[`, "[],", `[]]}}]}`}, {`{"nftables":[{"set":{"elem":`, "[", ``}, {`{"nftables":`, "[", ""},
			} {
				dir := folder(t)
				big(t, filepath.Join(dir, "f"), doc[0], doc[1], doc[2], 1<<20)
				if r := command(t, dir, "import", "nft", "f"); r.code != 1 {
					t.Errorf("exit %d:\n%.300s%.300s", r.code, r.out, r.err)
				}
			}
		}, func(t *testing.T) {
			var elem strings.Builder
			for i := range 9000 {
				elem.WriteString(map[bool]string{true: ",", false: ""}[i > 0] + `"198.51.` + string(rune('0'+i/1000%10)) + `.` + itoa(i%250+1) + `"`)
			}
			dir := folder(t, "f", `{"nftables":[{"set":{"family":"ip","table":"t","name":"s","type":"ipv4_addr","elem":[`+elem.String()+`]}},{"chain":{"family":"ip","table":"t","name":"f","type":"filter","hook":"forward","policy":"drop"}},`+
				`{"rule":{"family":"ip","table":"t","chain":"f","handle":1,"expr":[{"match":{"op":"==","left":{"payload":{"protocol":"ip","field":"daddr"}},"right":"@s"}},{"accept":null}]}}]}`)
			if r := command(t, dir, "import", "nft", "f"); r.code != 0 {
				t.Errorf("exit %d:\n%.500s", r.code, r.err)
			}
		}},
		attack{"files/iptables-of-chains", func(t *testing.T) {
			dir := folder(t)
			big(t, filepath.Join(dir, "f"), "*filter\n:FORWARD DROP [0:0]\n", ":a - [0:0]\n-A FORWARD -j a\n-A a -j a\n", "COMMIT\n", 1<<17)
			command(t, dir, "import", "iptables", "f")
		}, func(t *testing.T) {
			dir := folder(t, "f", "*filter\n:FORWARD DROP [0:0]\n"+strings.Repeat("-A FORWARD -p tcp --dport 80 -j ACCEPT\n", 2000)+"COMMIT\n")
			if r := command(t, dir, "import", "iptables", "f"); r.code != 0 {
				t.Errorf("exit %d:\n%.500s", r.code, r.err)
			}
		}},
		attack{"files/events-of-strangers", func(t *testing.T) {
			// Each event is about another packet, with a long name.
			dir := folder(t, "rules.yaml", honestPolicy)
			f, err := os.Create(filepath.Join(dir, "events"))
			if err != nil {
				t.Fatal(err)
			}
			b := bufio.NewWriter(f)
			for i := range 120_000 {
				b.WriteString(`{"event.action":"drop","event.reason":"no_matching_allow_rule","source.ip":"10.0.` + itoa(i>>8&255) + `.` + itoa(i&255) + `","destination.ip":"192.0.2.` + itoa(i>>16) + `","destination.port":443,"network.transport":"tcp","network.direction":"egress","destination.domain":"` + strings.Repeat("a", 300) + `"}` + "\n")
			}
			if err := errors.Join(b.Flush(), f.Close()); err != nil {
				t.Fatal(err)
			}
			if r := command(t, dir, "suggest", "events"); r.code != 1 || !strings.Contains(r.err, "cut the file into parts") {
				t.Errorf("exit %d:\n%.500s%.500s", r.code, r.out, r.err)
			}
		}, func(t *testing.T) {
			// As many events about one packet.
			dir := folder(t, "rules.yaml", honestPolicy)
			big(t, filepath.Join(dir, "events"), "", strings.Replace(event("", ""), ":443", ":80", 1), "", 120_000)
			if r := command(t, dir, "suggest", "events"); r.code != 0 || !strings.Contains(r.out, "120000 packets") {
				t.Errorf("exit %d:\n%.500s%.500s", r.code, r.out, r.err)
			}
		}},
	)
	good := func(t *testing.T) {
		// It is opened, and the machine, which has no kernel, ends by itself.
		if r := refuses(t, image(t, func(*ruleset.Policy) {})); strings.Contains(r.err, "ruleset") {
			t.Errorf("%s", r.err)
		}
	}
	for name, change := range map[string]func(p *ruleset.Policy){
		"ipv6-lan":       func(p *ruleset.Policy) { p.Interfaces[0].Address = ruleset.Addr{0x20, 1} },
		"ipv6-wan":       func(p *ruleset.Policy) { p.Interfaces[1].Address = ruleset.Addr{0x20, 1} },
		"no-address":     func(p *ruleset.Policy) { p.Interfaces[0].Address = ruleset.Addr{} },
		"ipv6-gateway":   func(p *ruleset.Policy) { p.Interfaces[1].Gateway = ruleset.Addr{0x20, 1} },
		"host-network":   func(p *ruleset.Policy) { p.Interfaces[0].PrefixLen = 32 },
		"prefix-128":     func(p *ruleset.Policy) { p.Interfaces[0].PrefixLen = 128 },
		"whole-world":    func(p *ruleset.Policy) { p.Interfaces[0].PrefixLen = 0 },
		"last-address":   func(p *ruleset.Policy) { p.Interfaces[0].Address = v4(255, 255, 255, 255) },
		"twice-the-lan":  func(p *ruleset.Policy) { p.Interfaces[1].Role = ruleset.LAN },
		"no-interface":   func(p *ruleset.Policy) { p.Interfaces = nil },
		"same-network":   func(p *ruleset.Policy) { p.Interfaces[1].Address = v4(10, 0, 0, 9) },
		"snat-elsewhere": func(p *ruleset.Policy) { p.SNAT = []ruleset.SNAT{{Interface: 0, PortLo: 1, PortHi: 2}} },
		"dnat-ipv6": func(p *ruleset.Policy) {
			p.DNAT = []ruleset.DNAT{{To: ruleset.Addr{0x20}, PortLo: 1, PortHi: 1, ToPort: 1, Proto: 6}}
		},
	} {
		add(attack{"image/" + name, func(t *testing.T) {
			if r := refuses(t, image(t, change)); r.code == 0 || !strings.Contains(r.err, "ruleset") {
				t.Errorf("exit %d:\n%s%s", r.code, r.out, r.err)
			}
		}, good})
	}
	add(attack{"image/every-byte", func(t *testing.T) {
		// Bytes of the segment at random, with a digest that fits.
		seg := compile.Encode(&ruleset.Policy{Interfaces: rulesettest.Interfaces(), Settings: ruleset.Settings{DefaultAction: ruleset.Deny, MaxFlows: 1024}, Strings: []byte("lanwan"),
			Classifier: ruleset.Classifier{Roots: []ruleset.Root{{}}}})
		sum := sha256.Sum256(seg[ruleset.HeaderSize:])
		at := bytes.Index(seg[:ruleset.HeaderSize], sum[:])
		if at < 0 {
			t.Fatal("no digest in the header")
		}
		r := rand.New(rand.NewPCG(1, 2))
		for range 12 {
			b := bytes.Clone(seg)
			for range 1 + r.IntN(3) {
				b[16+r.IntN(len(b)-16)] = byte(r.IntN(256))
			}
			s := sha256.Sum256(b[ruleset.HeaderSize:])
			copy(b[at:], s[:])
			refuses(t, withRuleset(b))
		}
	}, good}, attack{"image/cut-short", func(t *testing.T) {
		img := image(t, func(*ruleset.Policy) {})
		for _, n := range []int{0, 3, 63, 64, 100, 4096, len(img) - 1} {
			if r := refuses(t, img[:n]); r.code != 1 {
				t.Errorf("%d bytes: exit %d:\n%s%s", n, r.code, r.out, r.err)
			}
		}
	}, good})
}

// big writes a file of many of the same, without having it in memory: the memory
// of what is started counts this program's when it starts.
func big(t *testing.T, path, head, body, end string, n int) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	b := bufio.NewWriter(f)
	b.WriteString(head) //nolint:errcheck // Flush says it
	for range n {
		b.WriteString(body) //nolint:errcheck // Flush says it
	}
	b.WriteString(end) //nolint:errcheck // Flush says it
	if err := errors.Join(b.Flush(), f.Close()); err != nil {
		t.Fatal(err)
	}
}

func itoa(n int) string {
	var b []byte
	for ; n > 9; n /= 10 {
		b = append(b, byte('0'+n%10))
	}
	b = append(b, byte('0'+n))
	slices.Reverse(b)
	return string(b)
}
