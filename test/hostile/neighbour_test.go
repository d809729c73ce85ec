package hostile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/thurward/thurward/internal/host/ingest/guesttest"
)

// The attacker is another user of the same host, who was there first.

// forged is a line that a firewall has never sent.
const forged = `{"@timestamp":"2026-01-01T00:00:00.000000Z","event.kind":"event","event.action":"accept","event.outcome":"success","event.reason":"rule","rule.id":"forged-rule","source.ip":"10.0.0.2","destination.ip":"198.51.100.80","network.transport":"tcp"}`

func init() {
	// serve PATH WORD: it listens, sends a forged stream to whoever comes, and
	// notes at PATH.got what it is told. It ends with its input.
	others["serve"] = func(args []string) error {
		l, err := net.Listen("unix", args[0])
		if err != nil {
			return err
		}
		os.Chmod(args[0], 0o777) //nolint:errcheck // a trap is open
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go func() {
					g := guesttest.Guest{Boot: "forged", WAN: "203.0.113.66/24", Start: time.Now()}
					fmt.Fprintf(c, "# FROM forged\n%s\n%s\n%s\n", g.Hello(time.Now()), forged, strings.Join(g.Snapshot(), "\n"))
					b := make([]byte, 1<<16)
					for {
						n, err := c.Read(b)
						if n > 0 {
							os.WriteFile(args[0]+".got", b[:n], 0o644) //nolint:errcheck // looked for
						}
						if err != nil {
							return
						}
					}
				}()
			}
		}()
		fmt.Println("listening")
		io.Copy(io.Discard, os.Stdin) //nolint:errcheck // its end
		return nil
	}
	// say PATH: it connects and sends a forged stream; what it is told it prints.
	others["say"] = func(args []string) error {
		c, err := net.Dial("unix", args[0])
		if err != nil {
			return fmt.Errorf("it could not even connect: %w", err)
		}
		g := guesttest.Guest{Boot: "forged", WAN: "203.0.113.66/24", Start: time.Now()}
		fmt.Fprintf(c, "%s\n%s\n", g.Hello(time.Now()), forged)
		c.SetReadDeadline(time.Now().Add(3 * time.Second)) //nolint:errcheck // a test
		n, err := io.Copy(io.Discard, c)
		var timeout net.Error
		if n > 0 || errors.As(err, &timeout) && timeout.Timeout() {
			return fmt.Errorf("the connection was kept, and %d bytes came", n)
		}
		return nil
	}
	// link TARGET PATH
	others["link"] = func(args []string) error { return os.Symlink(args[0], args[1]) }

	for name, f := range map[string]func(t *testing.T, foreign bool){
		"forged-events":      followForged("events"),
		"forged-top":         followForged("top"),
		"folder-first":       folderFirst,
		"guest-socket-first": guestSocketFirst,
		"open-folder":        openFolder,
		"link-to-a-folder":   linkToFolder,
		"poses-as-guest":     connects("_9000"),
		"reads-the-stream":   connects("_tail"),
		"network-socket":     network("unix:"),
		"vhost-user-socket":  network("vhost-user:"),
		"default-folder":     defaultFolder,
	} {
		add(attack{"neighbour/" + name, func(t *testing.T) { f(t, true) }, func(t *testing.T) { f(t, false) }})
	}
}

// public makes a folder that other users can enter, with a mode.
func public(t *testing.T, mode os.FileMode) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can become another user")
	}
	dir, err := os.MkdirTemp(scratch, "public")
	if err == nil {
		err = os.Chmod(dir, mode)
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// serve listens at a path as nobody, or as this user, until the test ends.
func serve(t *testing.T, path string, foreign bool) {
	t.Helper()
	cmd := nobodysCommand(t, must(self())(t), path)
	if !foreign {
		cmd = exec.Command(must(self())(t), path)
	}
	cmd.Args[0] = "other"
	cmd.Env = append(os.Environ(), roleVar+"=serve")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close(); cmd.Wait() }) //nolint:errcheck // it has served
	if b := make([]byte, 16); !strings.Contains(string(b[:must(out.Read(b))(t)]), "listening") {
		t.Fatal("it does not listen")
	}
}

// followForged: events and top take no stream of another user's.
func followForged(what string) func(t *testing.T, foreign bool) {
	return func(t *testing.T, foreign bool) {
		path := filepath.Join(public(t, 0o777|os.ModeSticky), "s")
		serve(t, path, foreign)
		args := map[string][]string{"events": {"events", "--json", "-n", "1"}, "top": {"top", "--once"}}[what]
		r := command(t, "/", append(args, "--socket", path)...)
		shown := strings.Contains(r.out, "forged") || strings.Contains(r.out, "203.0.113.66")
		if foreign && (r.code != 1 || shown || !strings.Contains(r.err, "belongs to another user")) || !foreign && (r.code != 0 || !shown) {
			t.Errorf("%+v", r)
		}
	}
}

// told fails when another user has been told something.
func told(t *testing.T, path string) {
	t.Helper()
	if b, err := os.ReadFile(path + ".got"); err == nil {
		t.Errorf("another user was told %q", b)
	}
}

// at is launch with the sockets in a folder.
func at(t *testing.T, dir string, args ...string) *launcher {
	l := launch(t, "honest", launchOptions{args: append([]string{"--vsock", filepath.Join(dir, "vsock")}, args...)})
	l.socket = filepath.Join(dir, "vsock")
	return l
}

// refusal waits for what the launcher says, and for the restart beside it.
func (l *launcher) refusal(words ...string) {
	l.t.Helper()
	for _, w := range words {
		l.await("the launcher says: "+w, func() bool { return strings.Contains(l.said(), w) })
	}
	l.await("a crash is followed by a start", func() bool { return strings.Contains(l.said(), "starting it again in 1s") })
	l.end()
}

// folderFirst: the run directory is another user's.
func folderFirst(t *testing.T, foreign bool) {
	dir := public(t, 0o755)
	if !foreign {
		at(t, dir).restarted()
		return
	}
	if err := os.Chown(dir, nobody, nobody); err != nil {
		t.Fatal(err)
	}
	serve(t, filepath.Join(dir, "vsock_9000"), true)
	at(t, dir).refusal("the folder "+dir+" belongs to another user", "the socket "+filepath.Join(dir, "vsock_9000")+" belongs to another user")
	told(t, filepath.Join(dir, "vsock_9000"))
}

// guestSocketFirst: another user listens where guests are connected to.
func guestSocketFirst(t *testing.T, foreign bool) {
	dir := public(t, 0o777|os.ModeSticky)
	path := filepath.Join(dir, "vsock_9000")
	serve(t, path, foreign)
	l := at(t, dir)
	if foreign {
		l.refusal("the socket " + path + " belongs to another user")
		told(t, path)
		return
	}
	l.await("the guest is heard", func() bool { b, _ := os.ReadFile(path + ".got"); return bytes.Contains(b, []byte(honestWord)) })
	l.end()
}

// openFolder: anybody can replace what is in the run directory.
func openFolder(t *testing.T, foreign bool) {
	mode := os.FileMode(0o755)
	if foreign {
		mode = 0o777
	}
	l := at(t, public(t, mode))
	if foreign {
		l.refusal("can be written by other users")
	} else {
		l.restarted()
	}
}

// linkToFolder: the run directory is a link.
func linkToFolder(t *testing.T, foreign bool) {
	dir := public(t, 0o777|os.ModeSticky)
	link, target := filepath.Join(dir, "link"), public(t, 0o700)
	if !foreign {
		if err := os.Symlink(target, link); err != nil {
			t.Fatal(err)
		}
		at(t, link).restarted()
		return
	}
	if err := asNobody(t, "link", target, link); err != nil {
		t.Fatal(err)
	}
	at(t, link).refusal("the link " + link + " belongs to another user")
	if e, _ := os.ReadDir(target); len(e) > 0 {
		t.Errorf("there is something in the target: %v", e)
	}
}

// connects: another user connects to a socket of the launcher's whose mode does
// not keep him off, as before it is set.
func connects(socket string) func(t *testing.T, foreign bool) {
	return func(t *testing.T, foreign bool) {
		l := at(t, public(t, 0o755))
		path := l.socket + socket
		l.await("the socket", func() bool { // once the launcher has set its mode
			fi, err := os.Stat(path)
			return err == nil && fi.Mode().Perm() == 0o600 && os.Chmod(path, 0o777) == nil
		})
		if foreign {
			if err := asNobody(t, "say", path); err != nil {
				t.Error(err)
			}
			r := command(t, "/", "top", "--once", "--socket", l.socket+"_tail")
			if strings.Contains(r.out, "203.0.113.66") {
				t.Errorf("another user is a firewall:\n%s", r.out)
			}
			l.restarted()
			return
		}
		if socket == "_9000" {
			send, end := guesttest.Dial(t, path)
			g := guesttest.Guest{Boot: "second", WAN: "203.0.113.66/24", Start: time.Now()}
			send(append([]string{g.Hello(time.Now())}, g.Snapshot()...)...)
			r := command(t, "/", "top", "--once", "--wait", "1s", "--socket", l.socket+"_tail")
			if end(); !strings.Contains(r.out, "203.0.113.66") {
				t.Errorf("%+v", r)
			}
		}
		l.restarted()
	}
}

// network: the network's socket is another user's.
func network(kind string) func(t *testing.T, foreign bool) {
	return func(t *testing.T, foreign bool) {
		dir := public(t, 0o777|os.ModeSticky)
		path := filepath.Join(dir, "wan")
		serve(t, path, true)
		args := []string{"--wan", kind + path}
		if !foreign {
			at(t, public(t, 0o755), append(args, "--trust-user", "0,"+strconv.Itoa(nobody))...).restarted()
			return
		}
		l := at(t, public(t, 0o755), args...)
		select {
		case err := <-l.ended:
			l.ended <- err
			if said := l.said(); err == nil || !strings.Contains(said, "belongs to another user") || !strings.Contains(said, "--trust-user") {
				t.Errorf("%v: %s", err, said)
			}
		case <-time.After(10 * time.Second):
			t.Error("the launcher goes on")
		}
		told(t, path)
	}
}

// defaultFolder: without XDG_RUNTIME_DIR and /run/user the run directory is in
// /tmp, where another user has made it first.
func defaultFolder(t *testing.T, foreign bool) {
	uid := nobody - 1000 - os.Getpid()%1000
	if foreign {
		uid -= 2000
	}
	dir := "/tmp/thurward-" + strconv.Itoa(uid)
	if os.Geteuid() != 0 {
		t.Skip("only root can become another user")
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	owner := uid
	if foreign {
		owner = nobody
	}
	if err := os.Chown(dir, owner, owner); err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "vsock_tail")
	cmd := nobodysCommand(t, must(thurward())(t), "events", "--json", "-n", "1")
	cmd.SysProcAttr.Credential.Uid = uint32(uid)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=/"}
	server := nobodysCommand(t, must(self())(t), socket)
	server.Args[0] = "other"
	server.SysProcAttr.Credential.Uid = uint32(owner)
	server.Env = append(os.Environ(), roleVar+"=serve")
	in := must(server.StdinPipe())(t)
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close(); server.Wait() }) //nolint:errcheck // it has served
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(socket); err == nil || time.Now().After(end) {
			break
		}
	}
	time.Sleep(50 * time.Millisecond)
	b, err := cmd.CombinedOutput()
	shown := strings.Contains(string(b), "forged")
	if foreign && (err == nil || shown || !strings.Contains(string(b), "belongs to another user")) || !foreign && (err != nil || !shown) {
		t.Errorf("%v: %s", err, b)
	}
}
