// Package firsthour types docs/first-hour.md: every command in it is run in the order
// of the page, in one shell, and must print what stands there.
package firsthour

import (
	"bufio"
	"bytes"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write what the commands print into the page, where it differs")

const (
	root = "../.."
	page = root + "/docs/first-hour.md"
	// longest is how long one command may take; the build of a clone with cold caches is
	// the longest.
	longest = 5 * time.Minute
)

// A command is what somebody types, and what it prints.
type command struct {
	line int // in the page
	text string
	want []string
	from int // the lines of the page that want is
}

// commands returns those of the page's console blocks.
func commands(lines []string) (cs []command) {
	in := false
	for i, l := range lines {
		switch {
		case l == "```console":
			in = true
		case l == "```":
			in = false
		case !in:
		case strings.HasPrefix(l, "$ "):
			cs = append(cs, command{line: i + 1, text: l[2:], from: i + 1})
		default:
			c := &cs[len(cs)-1]
			if strings.HasSuffix(c.text, "\\") && len(c.want) == 0 || heredoc(c.text) {
				c.text += "\n" + strings.TrimPrefix(l, "> ")
				c.from = i + 1
			} else {
				c.want = append(c.want, l)
			}
		}
	}
	return cs
}

// heredoc reports whether text waits for lines until one that says EOF.
func heredoc(text string) bool {
	_, rest, ok := strings.Cut(text, "<<'EOF'\n")
	return (ok || strings.HasSuffix(text, "<<'EOF'")) && !strings.HasSuffix(rest, "\nEOF") && rest != "EOF"
}

// matches reports whether got is want, in which … stands for any text within a line, and
// a line of it alone for any lines.
func matches(want, got []string) bool {
	if len(want) == 0 {
		return len(got) == 0
	}
	if want[0] == "…" {
		for i := range len(got) + 1 {
			if matches(want[1:], got[i:]) {
				return true
			}
		}
		return false
	}
	if len(got) == 0 {
		return false
	}
	pattern := strings.ReplaceAll(regexp.QuoteMeta(want[0]), "…", ".*")
	return regexp.MustCompile("^"+pattern+"$").MatchString(got[0]) && matches(want[1:], got[1:])
}

// A shell is one that somebody types into.
type shell struct {
	in  io.Writer
	out *bufio.Reader
	n   int
}

// run types a command, and returns what it printed, both its outputs.
func (s *shell) run(text string) ([]string, error) {
	s.n++
	mark := fmt.Sprintf("--- end of %d ---", s.n)
	if _, err := fmt.Fprintf(s.in, "%s\necho; echo '%s'\n", text, mark); err != nil {
		return nil, err
	}
	var lines []string
	for {
		l, err := s.out.ReadString('\n')
		if err != nil {
			return lines, fmt.Errorf("the shell ended: %w", err)
		}
		if l = strings.TrimRight(l, "\n"); l == mark {
			break
		}
		lines = append(lines, l)
	}
	// The empty line before the mark is the test's, unless the output did not end with one.
	if n := len(lines); n > 0 && lines[n-1] == "" {
		lines = lines[:n-1]
	}
	return lines, nil
}

func TestFirstHour(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("the page's networks want root")
	}
	for _, p := range []string{"curl", "dig", "dnsmasq", "ip", "openssl", "python3", "tcpdump"} { // the page hides what shells say
		if _, err := exec.LookPath(p); err != nil {
			t.Fatalf("%s is missing (scripts/need.sh test installs it)", p)
		}
	}
	b, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(b), "\n")
	sh := start(t)
	type change struct {
		from, n int
		with    []string
	}
	var changes []change
	for _, c := range commands(lines) {
		got, err := sh.run(c.text)
		if err != nil {
			t.Fatalf("docs/first-hour.md:%d: %s: %v\n%s", c.line, c.text, err, strings.Join(got, "\n"))
		}
		if matches(c.want, got) {
			continue
		}
		changes = append(changes, change{c.from, len(c.want), got})
		if !*update {
			t.Errorf("docs/first-hour.md:%d: $ %s\n%s\nwant\n%s", c.line, c.text, strings.Join(got, "\n"), strings.Join(c.want, "\n"))
		}
	}
	if !*update {
		return
	}
	for i := len(changes) - 1; i >= 0; i-- {
		c := changes[i]
		lines = append(lines[:c.from:c.from], append(c.with, lines[c.from+c.n:]...)...)
	}
	if err := os.WriteFile(page, []byte(strings.Join(lines, "\n")), 0o644); err != nil {
		t.Fatal(err)
	}
}

// start starts a shell as that of somebody who has just cloned nothing yet: an empty
// home, network namespaces and devices of its own, and a clone that comes from here.
func start(t *testing.T) *shell {
	t.Helper()
	for _, p := range []string{"unshare", "bash", "git", "make", "qemu-system-x86_64"} {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("%s is not on the PATH", p)
		}
	}
	home := t.TempDir()
	src, err := filepath.Abs(root)
	if err != nil {
		t.Fatal(err)
	}
	goEnv := func(name string) string {
		out, err := exec.Command("go", "env", name).Output()
		if err != nil {
			t.Fatal(err)
		}
		return name + "=" + strings.TrimSpace(string(out))
	}
	// Names of network namespaces are files under /run/netns, the firewall's sockets are
	// under /run/thurward: both are this shell's own.
	cmd := exec.Command("unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "bash", "-c",
		"mount -t tmpfs tmpfs /run && mount -t sysfs sysfs /sys && ip link set lo up && exec bash --norc --noprofile")
	cmd.Dir = home
	cmd.Env = []string{
		"HOME=" + home, "PATH=" + os.Getenv("PATH"), "TERM=dumb", "LC_ALL=C.UTF-8", "NO_COLOR=1",
		goEnv("GOMODCACHE"), goEnv("GOCACHE"), goEnv("GOPROXY"), goEnv("GOSUMDB"), goEnv("GONOSUMDB"), "GOTOOLCHAIN=local", "GOFLAGS=-buildvcs=false",
		"GIT_CONFIG_COUNT=5",
		"GIT_CONFIG_KEY_0=url." + src + ".insteadOf", "GIT_CONFIG_VALUE_0=https://github.com/thurward/thurward",
		"GIT_CONFIG_KEY_1=user.name", "GIT_CONFIG_VALUE_1=You",
		"GIT_CONFIG_KEY_2=user.email", "GIT_CONFIG_VALUE_2=you@example.org",
		"GIT_CONFIG_KEY_3=init.defaultBranch", "GIT_CONFIG_VALUE_3=main",
		"GIT_CONFIG_KEY_4=safe.directory", "GIT_CONFIG_VALUE_4=*",
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = w, w
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Skipf("no namespaces here: %v", err)
	}
	w.Close()
	kill := time.AfterFunc(4*longest, func() { cmd.Process.Kill() })
	t.Cleanup(func() {
		kill.Stop()
		cmd.Process.Kill() // and with it, the first of its namespace, everything in that
		cmd.Wait()
		r.Close()
	})
	s := &shell{in: in, out: bufio.NewReader(r)}
	// The page's reader has sudo; this one is root.
	if out, err := s.run(`sudo() { "$@"; }`); err != nil || len(out) > 0 {
		t.Fatalf("%v: %s", err, out)
	}
	return s
}

// TestCommands: the page is read as it is typed.
func TestCommands(t *testing.T) {
	text := "x\n```console\n$ one\nout\n$ two \\\n>   more\n$ cat > f <<'EOF'\n> a\n> EOF\nlast\n```\n$ no\n```\n$ neither\n```\n"
	got := commands(strings.Split(text, "\n"))
	if len(got) != 3 || got[0].text != "one" || got[0].want[0] != "out" || got[0].line != 3 ||
		got[1].text != "two \\\n  more" || len(got[1].want) != 0 ||
		got[2].text != "cat > f <<'EOF'\na\nEOF" || len(got[2].want) != 1 || got[2].want[0] != "last" || got[2].from != 9 {
		t.Errorf("%+v", got)
	}
}

// TestMatches: what may differ from the page, and what may not.
func TestMatches(t *testing.T) {
	for _, c := range []struct {
		want, got string
		ok        bool
	}{
		{"a", "a", true}, {"a", "b", false}, {"a.c", "abc", false},
		{"took … ms", "took 12 ms", true}, {"took … ms", "took 12 s", false},
		{"a\n…\nz", "a\nz", true}, {"a\n…\nz", "a\nb\nc\nz", true}, {"a\n…\nz", "a\nb", false},
		{"…", "", true}, {"…\nb", "a\nb\nc", false},
	} {
		if got := matches(strings.Split(c.want, "\n"), strings.Split(c.got, "\n")); got != c.ok {
			t.Errorf("%q and %q: %v", c.want, c.got, got)
		}
	}
	if matches(nil, []string{"something"}) || !matches(nil, nil) {
		t.Error("a command that prints nothing")
	}
}

// TestPage: every command of the page is in a console block, so that it is typed; and it
// is the page of three people.
func TestPage(t *testing.T) {
	b, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(commands(strings.Split(string(b), "\n"))); n < 30 {
		t.Errorf("%d commands", n)
	}
	blocks := regexp.MustCompile("(?m)^```(\\w*)$").FindAllSubmatch(b, -1)
	for i := 0; i < len(blocks); i += 2 {
		if kind := blocks[i][1]; !bytes.Equal(kind, []byte("console")) {
			t.Errorf("block %d is of kind %q, and would not be typed", i/2+1, kind)
		}
	}
	for _, who := range []string{"## One evening", "## Three in the morning", "## Believe nothing"} {
		if !strings.Contains(string(b), who) {
			t.Errorf("no section %q", who)
		}
	}
}
