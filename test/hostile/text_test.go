package hostile

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// evil is text that acts on a terminal, on a program that reads lines, and on a
// reader's eyes: it clears the screen, sets the title, chooses a colour that no
// command uses, forges a line, turns the direction of writing, and is no UTF-8.
const evil = "x\x1b[2J\x1b]2;evil\x07\x1b[35m\u009b35m\u0085\r\nFORGED line\u202e\u2066\u2028FORGED\x7f\b\x00\x0b"

// evilYAML is evil as a YAML string.
var evilYAML = strconv.QuoteToASCII(evil)

// evilJSON is evil in JSON, with what JSON allows to stand there as it is.
func evilJSON() string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.Encode(evil) //nolint:errcheck // a string
	return strings.NewReplacer(`\u2028`, "\u2028").Replace(strings.TrimSpace(b.String()))
}

// colours are the sequences that the commands use.
var colours = regexp.MustCompile("\x1b\\[(0|1|2|31|32|33|36|1;31)?m")

// harmless fails for text that acts on a terminal or has a forged line.
func harmless(t *testing.T, what, s string, terminal bool) {
	t.Helper()
	if terminal {
		s = colours.ReplaceAllString(strings.ReplaceAll(s, "\r\n", "\n"), "")
	}
	if !utf8.ValidString(s) {
		t.Errorf("%s: no UTF-8: %q", what, tail(s, 400))
	}
	for i, r := range s {
		if r < 0x20 && r != '\n' && r != '\t' || r >= 0x7f && r < 0xa0 || r >= 0x200b && r <= 0x200f || r >= 0x2028 && r <= 0x202e || r >= 0x2066 && r <= 0x2069 || r == 0xfeff {
			t.Errorf("%s: %q passes: %q", what, r, s[max(0, i-60):min(len(s), i+60)])
			break
		}
	}
	for line := range strings.Lines(s) {
		if strings.HasPrefix(strings.TrimLeft(line, " \t#"), "FORGED") {
			t.Errorf("%s: a forged line: %q", what, line)
		}
	}
}

// onTerminal runs thurward with a terminal as its output and returns what it
// wrote there.
func onTerminal(t *testing.T, dir string, args ...string) string {
	t.Helper()
	far, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(far.Fd()), unix.TIOCGPTN)
	if err := errors.Join(err, unix.IoctlSetPointerInt(int(far.Fd()), unix.TIOCSPTLCK, 0)); err != nil {
		t.Fatal(err)
	}
	near, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	read := make(chan string)
	go func() {
		b, _ := io.ReadAll(far) // ends with an error when the last writer is gone
		read <- string(b)
	}()
	cmd := exec.Command(must(thurward())(t), args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr, cmd.Stdin = dir, near, near, near
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	near.Close()
	done := time.AfterFunc(30*time.Second, func() { cmd.Process.Kill() })
	defer done.Stop()
	cmd.Wait() //nolint:errcheck // exit codes vary
	s := <-read
	far.Close()
	return s
}

// says runs a command with a pipe and with a terminal: neither gets anything that
// acts, and what is said has the word want.
func says(t *testing.T, dir, want string, args ...string) {
	t.Helper()
	r := command(t, dir, args...)
	what := fmt.Sprintf("%q", args)
	harmless(t, what, r.out+"\n"+r.err, false)
	if !strings.Contains(r.out+r.err, want) {
		t.Errorf("%s does not say %q:\n%s%s", what, want, r.out, r.err)
	}
	s := onTerminal(t, dir, args...)
	harmless(t, what+" on a terminal", s, true)
	if !strings.Contains(s, want) {
		t.Errorf("%s does not say %q on a terminal:\n%s", what, want, s)
	}
}

const head = "interfaces:\n  lan0: { address: 10.0.0.1/24 }\n  wan0: { address: 203.0.113.10/24, gateway: 203.0.113.1 }\ndefaults: { default_action: deny, upstream_dns: 192.0.2.53 }\n" +
	"nat: { snat: [ { out_interface: wan0, source: 10.0.0.0/24, masquerade: true } ] }\n"

// policies returns a folder with files of policies: their names and texts.
func folder(t *testing.T, files ...string) string {
	t.Helper()
	dir := t.TempDir()
	for i := 0; i+1 < len(files); i += 2 {
		if err := os.WriteFile(filepath.Join(dir, files[i]), []byte(files[i+1]), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// honestPolicy has names as people write them.
const honestPolicy = head + "rules:\n  - { id: web, name: \"Größe → 10 × “fine”\", action: accept, direction: egress, destination_port: 443, protocol: tcp }\n" +
	"tests:\n  - { name: \"für alle\", from: lan, proto: tcp, src: 10.0.0.5, dst: \"192.0.2.1:443\", expect: accept }\n"

func event(name, value string) string {
	return `{"@timestamp":"2026-05-01T10:00:00.000Z","event":{"kind":"event","action":"drop","reason":"no_matching_allow_rule"},"rule":{"id":"default-deny"},` +
		`"source":{"ip":"10.0.0.5","port":4711},"destination":{"ip":"192.0.2.1","port":443},"network":{"transport":"tcp","direction":"egress"}` + name + value + "}\n"
}

func init() {
	twin := func(want string, args ...string) func(*testing.T) {
		return func(t *testing.T) {
			dir := folder(t, "rules.yaml", honestPolicy, "events", event(`,"x":`, `"y"`))
			says(t, dir, want, args...)
		}
	}
	policy := func(name, text, want string, args ...string) attack {
		return attack{name, func(t *testing.T) { says(t, folder(t, "rules.yaml", text), want, args...) }, twin("rules.yaml", "check")}
	}
	lines := func(rules string) string { return head + "rules:\n" + rules }
	add(
		policy("text/key", head+evilYAML+": 1\nrules: []\n", "unknown", "check"),
		policy("text/key-of-a-rule", lines("  - { id: a, action: accept, "+evilYAML+": 1 }\n"), "unknown", "check"),
		policy("text/value", lines("  - { id: a, action: "+evilYAML+" }\n"), "unknown value", "check"),
		policy("text/id", lines("  - { id: "+evilYAML+", action: accept }\n"), "rules[0].id", "check"),
		policy("text/name-of-a-host", lines("  - { id: a, action: accept, direction: egress, destination_fqdn: "+evilYAML+", protocol: tcp, destination_port: 1 }\n"), "rules[0]", "check"),
		policy("text/duplicate-key", head+evilYAML+": 1\n"+evilYAML+": 2\nrules: []\n", "rules.yaml", "check"),
		policy("text/anchor-and-tag", head+"rules: *"+evil+"\n", "rules.yaml", "check"),
		policy("text/raw-line", head+"rules: [ "+strings.NewReplacer("\x00", "", "\r\n", "", "\x0b", "").Replace(evil)+" ]\n", "rules.yaml", "check"),
		policy("text/raw-c1-and-bidi", head+"rules: [ \u202e\u2066 \u009b35m ]\n", "rules.yaml", "check"),
		policy("text/no-utf-8", head+"rules: [ \xff\x9b35m ]\n", "rules.yaml", "check"),
		policy("text/json", lines("  - { id: a, action: "+evilYAML+" }\n"), "unknown value", "check", "--format", "json"),
		policy("text/sarif", lines("  - { id: a, action: "+evilYAML+" }\n"), "unknown value", "check", "--format", "sarif"),
		policy("text/warning", lines("  - { id: a, name: "+evilYAML+", action: accept }\n  - { id: b, name: "+evilYAML+", action: deny }\n"), "warning", "check"),
		policy("text/test-name", lines("  - { id: a, name: "+evilYAML+", action: accept, direction: egress }\n")+"tests: [ { name: "+evilYAML+", from: lan, proto: tcp, src: 10.0.0.5, dst: \"192.0.2.1:443\", expect: deny } ]\n", "fails", "test"),
		policy("text/build", lines("  - { id: a, name: "+evilYAML+", action: accept, direction: egress }\n")+"tests: [ { name: "+evilYAML+", from: lan, proto: tcp, src: 10.0.0.5, dst: \"192.0.2.1:443\", expect: deny } ]\n", "no image was made", "build", "-o", "x.img"),
		policy("text/explain", lines("  - { id: a, name: "+evilYAML+", action: accept, direction: egress }\n"), "a", "explain", "--from", "lan", "--proto", "tcp", "--src", "10.0.0.5:1", "--dst", "192.0.2.1:443", "--all"),
		policy("text/explain-argument", lines("  - { id: a, action: accept }\n"), "explain", "explain", "--from", "lan", "--proto", "tcp", "--src", strings.ReplaceAll(evil, "\x00", ""), "--dst", "192.0.2.1:443"),
		policy("text/explain-name", lines("  - { id: a, action: accept }\n"), "10.0.0.5", "explain", "--from", "lan", "--proto", "tcp", "--src", "10.0.0.5:1", "--fqdn", strings.ReplaceAll(evil, "\x00", "")+":443"),
	)
	for name, args := range map[string][]string{"check": {"check", "-f"}, "test": {"test", "-f"}, "build": {"build", "-f"}, "suggest": {"suggest"}, "import-nft": {"import", "nft"},
		"import-iptables": {"import", "iptables"}, "events": {"events"}, "run": {"run", "--image"}, "replay": {"replay", "--lan"}, "diff": {"diff", "rules.yaml"}} {
		// A file that is not there, and one that is.
		file := strings.NewReplacer("\x00", "", "/", "").Replace(evil)
		add(attack{"text/file-" + name, func(t *testing.T) {
			dir := folder(t, "rules.yaml", honestPolicy)
			says(t, dir, "", append(args, file)...)
			if err := os.WriteFile(filepath.Join(dir, file), []byte("rules: ["), 0o600); err != nil {
				t.Fatal(err)
			}
			says(t, dir, "", append(args, file)...)
		}, twin("ok: 1 rule", "check")})
	}
	add(
		attack{"text/command", func(t *testing.T) {
			dir := folder(t)
			says(t, dir, "unknown command", strings.ReplaceAll(evil, "\x00", ""))
			says(t, dir, "unknown flag", "check", "--"+strings.ReplaceAll(evil, "\x00", ""))
			says(t, dir, "unexpected argument", "build", strings.ReplaceAll(evil, "\x00", ""))
		}, twin("Usage", "--help")},
		attack{"text/events", func(t *testing.T) {
			var all string
			for _, f := range []string{`,"destination.domain":`, `,"dns":{"question":{"name":`, `,"rule.name":`, `,"message":`, `,"error.message":`} {
				all += event(f, evilJSON()+strings.Repeat("}", strings.Count(f, "{")))
			}
			for _, f := range []string{"event.action", "event.reason", "rule.id", "source.ip", "network.transport", "@timestamp"} {
				all += `{"` + f + `":` + evilJSON() + `,"source":{"ip":"10.0.0.5"},"destination":{"ip":"192.0.2.1"},"event":{"action":"drop"}}` + "\n"
			}
			dir := folder(t, "events", all+evil+"\n# METRIC "+evil+"\n# SPAN "+evilJSON()+"\n")
			says(t, dir, "DROP", "events", "events")
			says(t, dir, "thurward explain", "events", "--explain", "events")
			says(t, dir, "drop", "events", "--json", "events")
		}, twin("DROP", "events", "events")},
		attack{"text/suggest", func(t *testing.T) {
			var all string
			for _, f := range []string{"@timestamp", "rule.id", "destination.domain", "network.transport"} {
				for _, action := range []string{"drop", "would-accept"} {
					all += `{"` + f + `":` + evilJSON() + `,"event.action":"` + action + `","event.reason":"no_matching_allow_rule","source.ip":"10.0.0.5","destination.ip":"192.0.2.1","destination.port":443,"network.direction":"egress"` +
						map[bool]string{true: "", false: `,"network.transport":"tcp"`}[f == "network.transport"] + "}\n"
				}
			}
			dir := folder(t, "rules.yaml", honestPolicy[:strings.Index(honestPolicy, "rules:")]+"rules: []\n", "events", all)
			says(t, dir, "suggested-1", "suggest", "events")
			r := command(t, dir, "suggest", "events")
			readsAs(t, dir, honestPolicy[:strings.Index(honestPolicy, "rules:")]+r.out, regexp.MustCompile(`^suggested-\d+$`))
		}, func(t *testing.T) {
			dir := folder(t, "rules.yaml", honestPolicy[:strings.Index(honestPolicy, "rules:")]+"rules: []\n", "events", event(`,"rule.name":`, `"x"`))
			says(t, dir, "suggested-1", "suggest", "events")
		}},
		attack{"text/import-nft", func(t *testing.T) {
			doc := `{"nftables":[{"chain":{"family":"ip","table":` + evilJSON() + `,"name":"f","type":"filter","hook":"forward","policy":"drop"}},{"rule":{"family":"ip","table":` + evilJSON() + `,"chain":"f","handle":1,"comment":` + evilJSON() + `,"expr":[{"accept":null}]}},` +
				`{"rule":{"family":"ip","table":` + evilJSON() + `,"chain":"f","handle":` + evilJSON() + `,"comment":"z","expr":[{` + evilJSON() + `:null},{"accept":null}]}},{` + evilJSON() + `:{}}]}`
			dir := folder(t, "f.json", doc)
			says(t, dir, "not converted", "import", "nft", "--partial", "f.json")
			r := command(t, dir, "import", "nft", "--partial", "f.json")
			readsAs(t, dir, r.out, regexp.MustCompile(`^[a-z0-9-]+$`))
		}, func(t *testing.T) {
			doc := `{"nftables":[{"chain":{"family":"ip","table":"t","name":"f","type":"filter","hook":"forward","policy":"drop"}},{"rule":{"family":"ip","table":"t","chain":"f","handle":1,"comment":"Größe","expr":[{"match":{"op":"==","left":{"payload":{"protocol":"tcp","field":"dport"}},"right":80}},{"accept":null}]}}]}`
			says(t, folder(t, "f.json", doc), "Gr", "import", "nft", "f.json")
		}},
		attack{"text/import-iptables", func(t *testing.T) {
			one := strings.NewReplacer("\x00", "", "\n", " ", "\r", " ").Replace(evil)
			dir := folder(t, "f", "*filter\n:FORWARD DROP [0:0]\n-A FORWARD -p tcp -m comment --comment \""+one+"\" -j ACCEPT\n-A FORWARD "+one+" -j ACCEPT\n-A "+one+"\n"+one+"\nCOMMIT\n")
			says(t, dir, "not converted", "import", "iptables", "--partial", "f", "--lan", one, "--wan", "w")
			r := command(t, dir, "import", "iptables", "--partial", "f", "--lan", one, "--wan", "w")
			readsAs(t, dir, r.out, regexp.MustCompile(`^[a-z0-9-]+$`))
		}, func(t *testing.T) {
			says(t, folder(t, "f", "*filter\n:FORWARD DROP [0:0]\n-A FORWARD -p tcp -m comment --comment \"web\" -j ACCEPT\nCOMMIT\n"), "web", "import", "iptables", "f")
		}},
		attack{"text/diff", func(t *testing.T) {
			dir := folder(t, "a.yaml", lines("  - { id: a, name: "+evilYAML+", action: accept }\n"), "b.yaml", lines("  - { id: b, name: "+evilYAML+", action: accept, destination_port: 80, protocol: tcp }\n"))
			says(t, dir, "a", "diff", "a.yaml", "b.yaml")
			says(t, dir, "a", "diff", "--format", "json", "a.yaml", "b.yaml")
		}, func(t *testing.T) {
			says(t, folder(t, "a.yaml", honestPolicy, "b.yaml", honestPolicy), "", "diff", "a.yaml", "b.yaml")
		}},
	)
}

// readsAs checks a generated policy: it is valid, and has no rules but those with
// ids of the form.
func readsAs(t *testing.T, dir, text string, ids *regexp.Regexp) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, "made.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if r := command(t, dir, "check", "-f", "made.yaml"); r.code != 0 {
		t.Errorf("what was made is no policy:\n%s%s\n%s", r.out, r.err, text)
	}
	for _, m := range regexp.MustCompile(`(?m)\bid: *(\S+?),?$`).FindAllStringSubmatch(text, -1) {
		if !ids.MatchString(m[1]) {
			t.Errorf("a rule with the id %q", m[1])
		}
	}
}
