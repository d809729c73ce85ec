package service

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/thurward/thurward/internal/host/deploy"
	"github.com/thurward/thurward/internal/host/peer"
)

// The protocol of the control socket: one request in a connection, a line of JSON; lines of
// JSON come back, of which the last one has done or error. There are three requests. An
// image is not sent but named: who may deploy one can write to the folder.

// A call is a request.
type call struct {
	Do      string `json:"do"`                 // status, deploy or rollback
	Image   string `json:"image,omitempty"`    // deploy: its SHA-256
	WatchMS int64  `json:"watch_ms,omitempty"` // deploy, rollback
	Cold    bool   `json:"cold,omitempty"`
	Confirm bool   `json:"confirm,omitempty"` // the client answers {"confirm":true} with {"ok":…}
}

// An answer is a line that comes back.
type answer struct {
	Say     string  `json:"say,omitempty"`
	Confirm bool    `json:"confirm,omitempty"`
	Status  *Status `json:"status,omitempty"`
	Done    bool    `json:"done,omitempty"`
	Error   string  `json:"error,omitempty"`
}

// A verdict is what a client says to a line with confirm.
type verdict struct {
	OK  bool   `json:"ok"`
	Why string `json:"why,omitempty"`
}

// Bounds of the socket.
const (
	maxCall    = 4 << 10
	maxClients = 16
	callLimit  = 5 * time.Second // for a request to be there, and a line to be taken
	// MaxWatch is the longest time that a new machine is watched.
	MaxWatch = time.Hour
	// confirmLimit is how long a client may take to confirm.
	confirmLimit = 10 * time.Minute
)

// listen makes the socket. The caller is the one service of the folder: what has the name is
// left from one that was killed.
func (s *Service) listen() (*net.UnixListener, error) {
	path := filepath.Join(s.c.Store.Path, deploy.ControlName)
	if st, err := os.Lstat(path); err == nil {
		if st.Mode()&os.ModeSocket == 0 {
			return nil, fmt.Errorf("%s is no socket: remove it", path)
		}
		if err := os.Remove(path); err != nil {
			return nil, err
		}
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("the control socket: %w", err)
	}
	return l, os.Chmod(path, 0o600)
}

// serve answers requests until ctx ends, and waits for the ends of all connections.
func (s *Service) serve(ctx context.Context, l *net.UnixListener) {
	var wg sync.WaitGroup
	defer wg.Wait()
	defer context.AfterFunc(ctx, func() { l.Close() })()
	room := make(chan struct{}, maxClients)
	for {
		c, err := l.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // a lack of descriptors passes
			select {
			case <-ctx.Done():
				return
			case <-time.After(100 * time.Millisecond):
			}
			continue
		}
		select {
		case room <- struct{}{}:
		default:
			c.Close()
			continue
		}
		wg.Go(func() {
			defer func() { c.Close(); <-room }()
			if err := mayControl(c); err != nil {
				s.c.Options.Say("control: %v", err)
				return
			}
			s.answer(ctx, &line{c: c, r: bufio.NewReaderSize(c, maxCall)})
		})
	}
}

// mayControl refuses processes of other users than root and the service's own: the mode of
// the socket does the same, but not from its first moment on.
func mayControl(c *net.UnixConn) error {
	cred, err := peer.Credentials(c)
	if err != nil {
		return err
	}
	if cred.Uid != 0 && int(cred.Uid) != os.Geteuid() {
		return fmt.Errorf("a process of uid %d has connected, and was refused", cred.Uid)
	}
	return nil
}

// A line is one end of a connection.
type line struct {
	c *net.UnixConn
	r *bufio.Reader
	m sync.Mutex
}

var errTooLong = errors.New("a line is too long")

// get reads a line of JSON that has no other fields than v.
func (l *line) get(v any, limit time.Duration) error {
	l.c.SetReadDeadline(time.Now().Add(limit)) //nolint:errcheck // a socket takes one
	b, err := l.r.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		return errTooLong
	}
	if err != nil {
		return err
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("a line has more than one value")
	}
	return nil
}

// put writes a line.
func (l *line) put(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	l.m.Lock()
	defer l.m.Unlock()
	l.c.SetWriteDeadline(time.Now().Add(callLimit)) //nolint:errcheck // a socket takes one
	_, err = l.c.Write(append(b, '\n'))
	return err
}

// answer answers the request of one connection.
func (s *Service) answer(ctx context.Context, l *line) {
	var c call
	err := l.get(&c, callLimit)
	if err == nil {
		err = s.handle(ctx, l, &c)
	}
	last := answer{Done: true}
	if err != nil {
		last = answer{Error: err.Error()}
	}
	l.put(last) //nolint:errcheck // nobody waits for it then
}

func (s *Service) handle(ctx context.Context, l *line, c *call) error {
	switch c.Do {
	case "status":
		if *c != (call{Do: c.Do}) {
			return errors.New("status takes nothing")
		}
		st := s.Status()
		return l.put(answer{Status: &st})
	case "deploy", "rollback":
		return s.handleChange(ctx, l, c)
	}
	return fmt.Errorf("%.20q is not known (want status, deploy or rollback)", c.Do)
}

// handleChange has an image changed, and waits for the result.
func (s *Service) handleChange(ctx context.Context, l *line, c *call) error {
	watch := time.Duration(c.WatchMS) * time.Millisecond
	if c.WatchMS < 0 || c.WatchMS > MaxWatch.Milliseconds() {
		return fmt.Errorf("a watch of %d ms is out of range (want 0 to %v)", c.WatchMS, MaxWatch)
	}
	if (c.Do == "rollback") != (c.Image == "") {
		return errors.New("deploy needs an image, and rollback takes none")
	}
	if !s.busy.TryLock() {
		return deploy.ErrBusy
	}
	defer s.busy.Unlock()
	waits, gone := context.WithCancel(ctx)
	defer gone()
	q := &request{ctx: waits, entry: deploy.Entry{Image: c.Image}, rollback: c.Do == "rollback", watch: watch, cold: c.Cold, answered: make(chan error, 1)}
	q.say = func(format string, a ...any) {
		l.put(answer{Say: fmt.Sprintf(format, a...)}) //nolint:errcheck // the change goes on without its listener
	}
	if c.Confirm {
		said := make(chan error, 1)
		go func() { // the end of the connection ends the change, too
			defer gone()
			var v verdict
			if err := l.get(&v, watch+confirmLimit+bootTime); err != nil {
				said <- errGone
				return
			}
			if v.OK {
				said <- nil
			} else {
				said <- errors.New(v.Why)
			}
			<-waits.Done()
		}()
		q.confirm = func(context.Context) error {
			if err := l.put(answer{Confirm: true}); err != nil {
				return errGone
			}
			select {
			case err := <-said:
				return err
			case <-time.After(confirmLimit):
				return fmt.Errorf("nobody has confirmed it within %v", confirmLimit)
			}
		}
	}
	select {
	case s.requests <- q:
	case <-ctx.Done():
		return errStopping
	}
	return <-q.answered
}

// bootTime is how long a change may take before the watch begins.
const bootTime = 3 * time.Minute

// nobody reports whether an error is that nobody listens on a socket.
func nobody(err error) bool {
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, os.ErrNotExist)
}
