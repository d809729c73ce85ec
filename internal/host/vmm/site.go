package vmm

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
)

// A site is what one start of a machine has on the host where its hypervisor is not
// QEMU: a folder of its own, TAP devices, and the way of its stream.
type site struct {
	id            string
	base          string // of the jail, or dir
	dir           string // what the hypervisor has its files in
	within        string // the same as the hypervisor sees it
	taps          []string
	state, memory string // of the snapshot, as the hypervisor sees them
	uid           int    // whose the files are, and the TAP devices
	gid           int

	there []func() string // see Attachment

	closing sync.Once
	drops   []func()
	logFile *os.File
	said    string // the end of its log, once it is closed
}

// newSite makes one, for a hypervisor in a jail, or confined, or neither.
func newSite(c *Config, j *Jail, conf *Confinement) (_ *site, err error) {
	var id [8]byte
	rand.Read(id[:]) //nolint:errcheck // never fails
	s := &site{id: hex.EncodeToString(id[:]), uid: os.Geteuid(), gid: os.Getegid()}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	if s.base, err = os.MkdirTemp("", "thurward-"); err != nil {
		return nil, err
	}
	s.drops = append(s.drops, func() { os.RemoveAll(s.base) })
	switch s.dir = s.base; {
	case j != nil:
		s.uid, s.gid = j.UID, j.GID
		s.dir, err = j.makeRoot(s.base, s.id)
	case conf != nil:
		s.uid, s.gid = conf.User.UID, conf.User.GID
		err = s.give(s.dir)
	}
	if err == nil {
		err = s.makeLog()
	}
	if err != nil {
		return nil, err
	}
	for _, n := range c.NICs {
		name, drop, err := n.Tap(s.uid)
		if err != nil {
			return nil, err
		}
		s.taps, s.drops = append(s.taps, name), append(s.drops, drop)
		s.there = append(s.there, whileThere(name, "")...)
		var p *Plug
		if n.OnBridge {
			p = bridgePlug(name)
		}
		if err := c.join([]*Plug{p}); err != nil {
			return nil, err
		}
	}
	if c.Vsock.Path != "" {
		if err := s.relay(c); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// close gives up what the machine had.
func (s *site) close() {
	s.closing.Do(func() {
		s.said = readTail(s.logFile)
		for i := len(s.drops) - 1; i >= 0; i-- {
			s.drops[i]()
		}
	})
}

// log returns the end of the hypervisor's log, once the machine has ended.
func (s *site) log() string { return s.said }

// makeLog makes the hypervisor's log and keeps it open: at its end what has that name may
// be another file, if the hypervisor was taken over.
func (s *site) makeLog() (err error) {
	if err = s.write(fileLog, nil); err == nil {
		s.logFile, err = os.Open(filepath.Join(s.dir, fileLog))
		s.drops = append(s.drops, func() { s.logFile.Close() })
	}
	return err
}

// readTail returns the end of a file, or nothing.
func readTail(f *os.File) string {
	st, err := f.Stat() // fails if there is no file
	if err != nil {
		return ""
	}
	b := make([]byte, min(st.Size(), tailLen))
	n, _ := f.ReadAt(b, st.Size()-int64(len(b))) //nolint:errcheck // what there is
	return string(b[:n])
}

// write writes a file for the hypervisor.
func (s *site) write(name string, b []byte) error {
	path := filepath.Join(s.dir, name)
	if err := os.WriteFile(path, b, 0o600); err != nil {
		return err
	}
	return s.give(path)
}

// give makes a file or folder the hypervisor's user's.
func (s *site) give(path string) error {
	if s.uid == os.Geteuid() {
		return nil
	}
	return os.Chown(path, s.uid, s.gid)
}

// jail puts the image into the jail.
func (s *site) jail(image string) error {
	b, err := os.ReadFile(image)
	if err != nil {
		return err
	}
	return s.write(fileImage, b)
}

// relay passes the stream on. The hypervisor connects to a socket of the launcher,
// which the jail's user may use, and it alone; the launcher checks whose the
// receiver's is and connects as itself.
func (s *site) relay(c *Config) error {
	path := filepath.Join(s.dir, fileVsock+"_"+strconv.FormatUint(uint64(c.Vsock.port()), 10))
	l, err := net.Listen("unix", path)
	if err != nil {
		return fmt.Errorf("vsock: %w", err)
	}
	s.drops = append(s.drops, func() { l.Close() })
	if err := os.Chmod(path, 0o600); err != nil {
		return err
	}
	if err := s.give(path); err != nil {
		return err
	}
	p := c.pulse
	if p == nil {
		p = &pulse{}
	}
	dial, to := c.dialer(), c.Vsock.Socket()
	go func() {
		for {
			guest, err := l.Accept()
			if err != nil {
				return
			}
			p.Packets.Add(1)
			passOn(guest.(*net.UnixConn), to, dial, p, c.tap()) // one at a time: the firewall has one
		}
	}()
	return nil
}

// passOn joins the guest's connection to the receiver, until either ends.
func passOn(guest *net.UnixConn, to string, dial dialer, p *pulse, tap func([]byte)) {
	defer guest.Close()
	receiver, err := dial(to)
	if err != nil {
		return // nobody listens there now: the firewall tries again
	}
	defer receiver.Close()
	p.Open.Add(1)
	defer p.Open.Add(-1)
	go func() {
		io.Copy(guest, receiver) //nolint:errcheck // the end of either is the end of both
		guest.Close()
	}()
	io.Copy(beating{receiver, p, tap}, guest) //nolint:errcheck // likewise
}

// beating is a receiver; what passes to it is counted as a sign of life.
type beating struct {
	io.Writer
	pulse *pulse
	tap   func([]byte) // takes it too; may be nil
}

func (b beating) Write(data []byte) (int, error) {
	b.pulse.Packets.Add(1)
	b.pulse.Writing.Add(1)
	defer b.pulse.Writing.Add(-1)
	n, err := b.Writer.Write(data)
	if b.tap != nil {
		b.tap(data[:n])
	}
	return n, err
}
