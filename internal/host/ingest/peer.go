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

// Bounds of one peer, and of all of them.
const (
	// MaxConns is how many connections are open at a time.
	MaxConns = 256
	// peerConns is how many of them one peer may have. A firewall has one; a second
	// exists when it connects again before the end of the first is seen. A third
	// closes the oldest.
	peerConns = 2
	// maxPeers is how many peers are remembered.
	maxPeers = 1024
	// renameAfter is how long a peer must have been disconnected before it may
	// have another name.
	renameAfter = time.Minute
	// cutPause is how long connections of a peer that was cut off are refused.
	cutPause = 5 * time.Second
)

// Why a connection is refused, or cut off.
var (
	ErrFull      = errors.New("there are too many connections")
	ErrPaused    = errors.New("it was cut off a moment ago")
	ErrNoHello   = errors.New("its first line is not a HELLO")
	ErrSilent    = errors.New("it sends nothing")
	ErrTwice     = errors.New("a second HELLO in one connection")
	ErrForeign   = errors.New("a FROM line, which only a receiver sends")
	ErrMalformed = errors.New("too many lines that cannot be read")
	ErrRenamed   = errors.New("its HELLO names another firewall than before; if it is one, stop it for a minute or restart its launcher")
)

// Peer returns the identity of the other end of a connection, from what the host's
// kernel knows of it and not from what is sent over it:
//
//	vsock:CID              a virtual machine on the kernel's vhost-vsock
//	unix:NAME              a socket bound to the abstract name thurward/NAME/…, by which a
//	                       process that serves several machines distinguishes them
//	process PID@START      any other process; START is its start time in clock ticks
//	uid UID                a process of another PID namespace: all of one user are one
//	                       peer, since they cannot be distinguished
//
// Connections of one machine have the same peer, those of different machines never
// have.
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

// began returns the start time of a process in clock ticks since the host's boot,
// which distinguishes processes that have the same number one after the other
// (proc(5), stat, field 22).
func began(pid int32) string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	i := strings.LastIndexByte(string(b), ')') // the name before it may contain anything
	f := strings.Fields(string(b)[i+1:])
	if len(f) < 20 {
		return ""
	}
	return "@" + f[19]
}

// peers keeps the peers that are connected, and the names that they have. The zero
// peers is ready.
type peers struct {
	mu    sync.Mutex
	all   map[string]*party
	conns int
}

// A party is one peer: a process or a machine.
type party struct {
	conns  []net.Conn // the oldest first
	names  []string   // that it has claimed; none before its first HELLO
	suffix string
	last   time.Time // when its last connection ended
	paused time.Time // until when its connections are refused
}

// admit counts a connection, or returns why it is refused. It may close another one
// to make room: the oldest of a peer that has two.
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
		q.conns[0].Close() // its goroutine calls release
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

// makeRoom closes the older connection of a peer that has two.
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

// forget makes room for another peer: it removes the one that has been disconnected
// for longest. There is one, since MaxConns is less than maxPeers.
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

// release removes a connection that has ended. If it was cut off, those of its peer
// are refused for a while.
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

// claim gives a peer the names that its HELLO has, the first of which is its main
// one, and returns a suffix that makes them unique among connected peers. Names of
// a peer that is not connected are free, but not for a peer that had other names
// before: a machine does not become another one.
func (p *peers) claim(id string, names []string, now time.Time) (suffix string, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	q := p.all[id]
	if q == nil {
		return "", ErrFull // it was removed meanwhile
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
	if len(q.names) == 0 { // a peer that had them and is not connected loses them
		for other, o := range p.all {
			if other != id && o.suffix == suffix && len(o.names) > 0 && o.names[0] == names[0] {
				o.names, o.suffix = nil, ""
			}
		}
	}
	q.names, q.suffix = names, suffix
	return suffix, nil
}
