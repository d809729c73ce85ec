package e2e

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// TestJournal: what run reports is in a real journal, with its fields, and its text is not
// there twice.
func TestJournal(t *testing.T) {
	t.Parallel()
	const journald = "/lib/systemd/systemd-journald"
	if _, err := os.Stat(journald); err != nil || os.Geteuid() != 0 {
		t.Skip("needs systemd-journald, and root to run one apart")
	}
	bin, err := launcher()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	start := journalStart(t, dir)
	script := `set -e
mount -t tmpfs none /run
mkdir -p /run/systemd/journal /run/log/journal
` + journald + ` & j=$!
trap 'kill $j $p' EXIT
for i in $(seq 100); do [ -S /run/systemd/journal/stdout ] && [ -S /run/systemd/journal/socket ] && break; sleep 0.1; done
python3 "$1" "$2" run --image "$3" --accel tcg --lan user --wan user --vsock none >&2 & p=$!
for i in $(seq 200); do journalctl -D /run/log/journal -q --no-pager THURWARD_KIND=ready | grep -q . && break; sleep 0.1; done
journalctl -D /run/log/journal --no-pager -o json SYSLOG_IDENTIFIER=thurward`
	out, err := exec.CommandContext(bounded(t, 2*limit), "unshare", "-mpf", "--kill-child", "--mount-proc", "bash", "-c", script, "sh", start, bin, testImage(t)).Output()
	if err != nil {
		t.Skipf("a journal cannot be run apart here: %v", err)
	}
	kinds := map[string]int{}
	texts := map[string]int{}
	for l := range strings.Lines(string(out)) {
		var e map[string]any
		if err := json.Unmarshal([]byte(l), &e); err != nil {
			t.Fatalf("%v: %q", err, l)
		}
		kind, _ := e["THURWARD_KIND"].(string)
		text, _ := e["MESSAGE"].(string)
		kinds[kind]++
		texts[text]++
		if p, _ := e["THURWARD_POLICY"].(string); kind == "ready" && !strings.HasPrefix(p, "sha256:") {
			t.Errorf("ready without its policy: %v", e)
		}
	}
	if kinds["ready"] != 1 || kinds["launcher"] < 2 || kinds[""] != 0 {
		t.Errorf("kinds %v", kinds)
	}
	for text, n := range texts {
		if n > 1 {
			t.Errorf("%d times %q", n, text)
		}
	}
}

// journalStart writes a program that starts another one as systemd starts a service: its
// standard error is the journal.
func journalStart(t *testing.T, dir string) string {
	t.Helper()
	start := filepath.Join(dir, "start.py")
	if err := os.WriteFile(start, []byte(`import os, socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect("/run/systemd/journal/stdout")
s.send(b"thurward\n\n6\n1\n0\n0\n0\n")
os.dup2(s.fileno(), 1)
os.dup2(s.fileno(), 2)
st = os.fstat(2)
os.environ["JOURNAL_STREAM"] = "%d:%d" % (st.st_dev, st.st_ino)
os.execv(sys.argv[1], sys.argv[1:])
`), 0o600); err != nil {
		t.Fatal(err)
	}
	return start
}

// TestJournalKeepsTheLastWords: why run ends is in the journal, as a message of this process:
// also where that is all it ever said, and it is gone at once. The journal cannot find out
// whose it is later.
func TestJournalKeepsTheLastWords(t *testing.T) {
	t.Parallel()
	const journald = "/lib/systemd/systemd-journald"
	if _, err := os.Stat(journald); err != nil || os.Geteuid() != 0 {
		t.Skip("needs systemd-journald, and root to run one apart")
	}
	bin, err := launcher()
	if err != nil {
		t.Fatal(err)
	}
	const times = 10
	script := `set -e
mount -t tmpfs none /run
mkdir -p /run/systemd/journal /run/log/journal
` + journald + ` & j=$!
trap 'kill $j' EXIT
for i in $(seq 100); do [ -S /run/systemd/journal/stdout ] && [ -S /run/systemd/journal/socket ] && break; sleep 0.1; done
for i in $(seq ` + strconv.Itoa(times) + `); do python3 "$1" "$2" run --image /no/such/image --lan user --wan user || true; done >&2
journalctl -D /run/log/journal --sync
journalctl -D /run/log/journal --no-pager -o json SYSLOG_IDENTIFIER=thurward`
	out, err := exec.CommandContext(bounded(t, 4*limit), "unshare", "-mpf", "--kill-child", "--mount-proc", "bash", "-c", script, "sh", journalStart(t, t.TempDir()), bin).Output()
	if err != nil {
		t.Skipf("a journal cannot be run apart here: %v", err)
	}
	whole := 0
	for l := range strings.Lines(string(out)) {
		var e map[string]any
		if err := json.Unmarshal([]byte(l), &e); err != nil {
			t.Fatalf("%v: %q", err, l)
		}
		text, _ := e["MESSAGE"].(string)
		if exe, _ := e["_EXE"].(string); strings.Contains(text, "/no/such/image") && exe == bin {
			whole++
		}
	}
	if whole != times {
		t.Errorf("%d of %d ends are in the journal with their process", whole, times)
	}
}
