package hostile

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/thurward/thurward/internal/host/ingest/guesttest"
)

// Environment of a monitor, which the launcher hands on.
const (
	monitorDir  = "THURWARD_HOSTILE_DIR"
	monitorRole = "THURWARD_HOSTILE_GUEST"
)

// honestWord is in each event of an honest guest.
const honestWord = "honest-word"

// roles are what a guest does on its first start, once it is ready. An error
// fails the test; after it the guest crashes, as it does without.
var roles = map[string]func(m *monitor) error{
	"honest": honestStart,
}

// A monitor is what runs under QEMU's name: it has the console, the vsock device
// and the networks of one machine.
type monitor struct {
	*front             // vsock
	dir    string      // for notes
	start  int         // which start of the machine it is, from 1
	nic    [2]net.Conn // LAN and WAN: frames with their lengths before them
}

// say prints a line of the console.
func (m *monitor) print(format string, a ...any) { fmt.Printf(format+"\n", a...) }

// honest sends what a firewall sends: it connects, says who it is, and tells an
// event.
func (m *monitor) honest() {
	g := guesttest.Guest{Boot: fmt.Sprintf("boot-%d", m.start), WAN: "203.0.113.10/24", Start: time.Now()}
	port := uint32(40000 + m.start)
	for n := 0; !m.connect(port); n++ {
		if n == 50 {
			panic(errors.New("an honest connection is refused"))
		}
		time.Sleep(20 * time.Millisecond)
		port++
	}
	m.tell(port, g.Hello(time.Now()))
	m.tell(port, strings.Replace(g.Event(time.Now()), "allow-web", honestWord, 1))
}

// monitorMain is QEMU.
func monitorMain() (code int) {
	if len(os.Args) == 2 && os.Args[1] == "--version" {
		fmt.Println("QEMU emulator version 9.0.0")
		return 0
	}
	m := &monitor{dir: os.Getenv(monitorDir), start: 1}
	for exists(m.dir, m.start) {
		m.start++
	}
	args := strings.Join(os.Args, " ")
	for i := range m.nic {
		m.nic[i] = inherited(args, fmt.Sprintf(`stream,id=n%d,server=off,addr\.type=fd,addr\.str=(\d+)`, i))
	}
	m.front = newFront(inherited(args, `socket,id=vsock,fd=(\d+)`).(*net.UnixConn))
	m.print("thurward: ready version=1 policy=sha256:ab lan=l wan=w rules=1 boot_us=1000")
	if m.start > 1 {
		m.note("")
		m.front.start()
		for {
			m.honest()
			time.Sleep(200 * time.Millisecond)
		}
	}
	role := roles[os.Getenv(monitorRole)]
	if role == nil {
		m.note("no role " + os.Getenv(monitorRole))
		return 1
	}
	var err error
	func() {
		defer func() {
			if r := recover(); r != nil {
				err = fmt.Errorf("%v", r)
			}
		}()
		err = role(m)
	}()
	if err != nil {
		m.note(err.Error())
	} else {
		m.note("")
	}
	m.crash()
	return 0
}

// crash is the end of a machine whose guest has crashed.
func (m *monitor) crash() {
	m.print("thurward: crash: page fault at 0x0")
	m.back()
	os.Exit(0)
}

func exists(dir string, start int) bool {
	_, err := os.Stat(filepath.Join(dir, "note."+strconv.Itoa(start)))
	return err == nil
}

// note tells the test how the role went: "" is well.
func (m *monitor) note(s string) {
	path := filepath.Join(m.dir, "note."+strconv.Itoa(m.start))
	check(os.WriteFile(path+".new", []byte(s), 0o600))
	check(os.Rename(path+".new", path))
}

// inherited returns the connection whose number stands in the arguments.
func inherited(args, pattern string) net.Conn {
	found := regexp.MustCompile(pattern).FindStringSubmatch(args)
	if found == nil {
		return nil // the machine has none of that kind
	}
	fd, err := strconv.Atoi(found[1])
	check(err)
	f := os.NewFile(uintptr(fd), "inherited")
	defer f.Close()
	c, err := net.FileConn(f)
	check(err)
	return c
}
