package ingest

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/mdlayher/vsock"

	"github.com/thurward/thurward/internal/host/peer"
)

// Bounds of what one peer, and all of them, may take up.
const (
	// MaxConns is how many connections are open at a time.
	MaxConns = 64
	// peerConns is how many of them are one peer's. A firewall has one; the
	// second is for one that has connected again before the first is seen to
	// have ended. With a third the oldest is closed.
	peerConns = 2
	// maxPeers bounds the peers that are remembered.
	maxPeers = 256
	// renameAfter is how long a peer must have been gone before it may say
	// that it is another firewall.
	renameAfter = time.Minute
	// cutPause is how long a peer that was cut off is not listened to.
	cutPause = 5 * time.Second
)

// Why a connection is refused, or cut off.
var (
	ErrFull      = errors.New("there are too many connections")
	ErrPaused    = errors.New("it was cut off a moment ago")
	ErrNoHello   = errors.New("its first line is not a HELLO")
	ErrSilent    = errors.New("it says nothing")
	ErrTwice     = errors.New("a second HELLO in one connection")
	ErrForeign   = errors.New("a line that speaks for another firewall")
	ErrMalformed = errors.New("too many lines that cannot be read")
	ErrRenamed   = errors.New("it says that it is another firewall than before; end it for a minute if that is so, or start its launcher again")
)

// Peer returns what a connection comes from, by what the host's kernel says of
// it and not by what is said over it:
//
//	vsock:CID              a virtual machine on the kernel's vhost-vsock
//	unix:NAME              a socket bound to an abstract name thurward/NAME/…, as a
//	                       process that speaks for several machines does for each
//	process PID@START      any other process; START is when it began, by its clock
//	uid UID                a process of another PID namespace: all of a user are one
//	                       peer, since nothing tells them apart
//
// Two connections of one machine have the same peer, those of two machines
// never.
func Peer(c net.Conn) string {
	if a, ok := c.RemoteAddr().(*vsock.Addr); ok {
		return "vsock:" + strconv.FormatUint(uint64(a.ContextID), 10)
	}
	if a := c.RemoteAddr(); a != nil {
		if rest, ok := strings.CutPrefix(a.String(), "@thurward/"); ok {
			name, _, _ := strings.Cut(rest, "/")
			return "unix:" + name
		}
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		return "unknown"
	}
	cred, err := peer.Credentials(u)
	if err != nil {
		return "unknown"
	}
	if cred.Pid == 0 {
		return "uid " + strconv.FormatUint(uint64(cred.Uid), 10)
	}
	return fmt.Sprintf("process %d%s", cred.Pid, began(cred.Pid))
}

// began returns when a process began, in ticks since the host did: numbers of
// processes come again, and this tells them apart (proc(5), stat, field 22).
func began(pid int32) string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	i := strings.LastIndexByte(string(b), ')') // the name before it may hold anything
	f := strings.Fields(string(b)[i+1:])
	if len(f) < 20 {
		return ""
	}
	return "@" + f[19]
}

// peers knows who is connected, and as which firewall. The zero peers is ready.
type peers struct {
	mu    sync.Mutex
	all   map[string]*party
	conns int
}

// A party is a peer: one process or machine that connects.
type party struct {
	conns  []net.Conn // the oldest first
	names  []string   // which it has; none before its first HELLO
	suffix string
	last   time.Time // when its last connection ended
	paused time.Time // until then nothing is read of it
}

// admit takes in a connection. Another one may have to end for it: the oldest
// of a peer that has more than its share.
func (p *peers) admit(id string, c net.Conn, now time.Time) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.all == nil {
		p.all = map[string]*party{}
	}
	q := p.all[id]
	if q == nil {
		q = &party{}
	}
	if now.Before(q.paused) {
		return ErrPaused
	}
	if len(q.conns) >= peerConns {
		q.conns[0].Close() // whoever serves it releases it
		q.conns = q.conns[1:]
		p.conns--
	}
	if p.conns >= MaxConns {
		if len(q.conns) > 0 || !p.makeRoom() {
			return ErrFull
		}
	}
	if p.all[id] == nil {
		p.forget()
		p.all[id] = q
	}
	q.conns = append(q.conns, c)
	p.conns++
	return nil
}

// makeRoom ends the older connection of a peer that has two.
func (p *peers) makeRoom() bool {
	for _, q := range p.all {
		if len(q.conns) > 1 {
			q.conns[0].Close()
			q.conns = q.conns[1:]
			p.conns--
			return true
		}
	}
	return false
}

// forget makes room for another peer: the one that has been gone for longest
// is forgotten. Those that are connected are fewer than maxPeers.
func (p *peers) forget() {
	if len(p.all) < maxPeers {
		return
	}
	oldest := ""
	for id, q := range p.all {
		if o := p.all[oldest]; len(q.conns) == 0 && (o == nil || q.last.Before(o.last)) {
			oldest = id
		}
	}
	delete(p.all, oldest)
}

// release notes that a connection has ended; with cut its peer has to wait.
func (p *peers) release(id string, c net.Conn, cut bool, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	q := p.all[id]
	if q == nil {
		return
	}
	for i, x := range q.conns {
		if x == c {
			q.conns = append(q.conns[:i:i], q.conns[i+1:]...)
			p.conns--
			break
		}
	}
	q.last = now
	if cut {
		q.paused = now.Add(cutPause)
	}
}

// claim lets a peer be called what it says, its name first and then whatever
// else a reader may call it by. Where another peer that is connected has one of
// the names, it gets a suffix that tells them apart. What another peer had that
// has gone is free, unless this one has had a name of its own: a machine does
// not become another one.
func (p *peers) claim(id string, names []string, now time.Time) (suffix string, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	q := p.all[id]
	if q == nil {
		return "", ErrFull // it was pushed out meanwhile
	}
	renamed := len(q.names) > 0 && q.names[0] != names[0]
	if renamed && (len(q.conns) > 1 || now.Sub(q.last) < renameAfter) {
		return "", ErrRenamed
	}
	taken := func(n, suffix string) bool {
		for other, o := range p.all {
			if other == id || o.suffix != suffix || !renamed && len(o.conns) == 0 {
				continue
			}
			for _, x := range o.names {
				if x == n {
					return true
				}
			}
		}
		return false
	}
	free := func(suffix string) bool {
		for _, n := range names {
			if taken(n, suffix) {
				return false
			}
		}
		return true
	}
	suffix = q.suffix
	if renamed || len(q.names) == 0 || !free(suffix) {
		suffix = ""
		for i := 2; !free(suffix); i++ {
			suffix = "#" + strconv.Itoa(i)
		}
	}
	if len(q.names) == 0 { // who had them and has gone is not coming back by them
		for other, o := range p.all {
			if other != id && o.suffix == suffix && len(o.names) > 0 && o.names[0] == names[0] {
				o.names, o.suffix = nil, ""
			}
		}
	}
	q.names, q.suffix = names, suffix
	return suffix, nil
}
