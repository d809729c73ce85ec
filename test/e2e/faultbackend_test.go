package e2e

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/thurward/thurward/internal/host/netlab"
	"github.com/thurward/thurward/internal/host/vhostuser"
	"github.com/thurward/thurward/internal/host/vmm"
)

// netHeader is the length of virtio-net's header in bytes.
const netHeader = 12

// A netBackend joins a machine's network device to a switch by vhost-user, as a software switch
// does. It can be killed and started again.
type netBackend struct {
	path  string
	sw    *netlab.Switch
	known chan struct{} // closed when sw is set

	mu       sync.Mutex
	listener net.Listener
	monitor  *net.UnixConn
	sessions int
}

// start listens. What connects is served until kill.
func (b *netBackend) start() error {
	os.Remove(b.path) //nolint:errcheck // it may not be there
	l, err := net.Listen("unix", b.path)
	if err != nil {
		return err
	}
	b.mu.Lock()
	b.listener = l
	b.mu.Unlock()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			b.mu.Lock()
			b.monitor = c.(*net.UnixConn)
			b.sessions++
			b.mu.Unlock()
			<-b.known
			near, far := net.Pipe()
			go b.sw.ServeVM(far)
			d := &netDevice{wire: near}
			go d.receive()
			// A violation ends the session, as the end of a process would.
			vhostuser.Serve(c.(*net.UnixConn), vhostuser.Device{Features: vhostuser.FeatureEventIdx | vhostuser.FeatureVersion1, Queues: 2}, d) //nolint:errcheck
			near.Close()
		}
	}()
	return nil
}

// kill ends it as a signal would: its sockets are closed, and frames that it had are lost.
func (b *netBackend) kill() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.listener.Close()
	if b.monitor != nil {
		b.monitor.Close()
	}
}

// A netDevice is the device of one session.
type netDevice struct {
	wire  net.Conn // frames with their lengths before them, as QEMU's stream framing has them
	rings [2]sync.WaitGroup

	mu sync.Mutex
	rx *vhostuser.Ring
}

// Start implements vhostuser.Handler.
func (d *netDevice) Start(r *vhostuser.Ring) {
	if r.Index == 0 {
		d.mu.Lock()
		d.rx = r
		d.mu.Unlock()
		return
	}
	d.rings[1].Go(func() {
		for {
			more := false
			err := r.Mem.Guard(func() (err error) { more, err = d.transmit(r); return err })
			if err == nil && !more {
				err = r.Wait()
			}
			if err != nil {
				return
			}
		}
	})
}

// Stop implements vhostuser.Handler.
func (d *netDevice) Stop(r *vhostuser.Ring) {
	if r.Index == 0 {
		d.mu.Lock()
		d.rx = nil
		d.mu.Unlock()
	}
	d.rings[r.Index].Wait()
}

// transmit puts what the machine sends on the wire.
func (d *netDevice) transmit(r *vhostuser.Ring) (more bool, err error) {
	var c vhostuser.Chain
	for range r.Size() {
		ok, err := r.Pop(&c)
		if err != nil || !ok {
			if err == nil {
				err = r.Publish()
			}
			if err != nil {
				return false, err
			}
			return r.RequestKick()
		}
		var f []byte
		for _, b := range c.Read {
			f = append(f, b...)
		}
		if len(f) > netHeader {
			b := binary.BigEndian.AppendUint32(nil, uint32(len(f)-netHeader))
			d.wire.Write(append(b, f[netHeader:]...)) //nolint:errcheck // lost
		}
		r.Push(c.Head, 0)
	}
	return true, r.Publish()
}

// receive gives the machine what is on the wire. What finds no buffer is lost.
func (d *netDevice) receive() {
	for {
		var n [4]byte
		if _, err := io.ReadFull(d.wire, n[:]); err != nil {
			return
		}
		f := make([]byte, netHeader+int(binary.BigEndian.Uint32(n[:])))
		f[10] = 1 // num_buffers
		if _, err := io.ReadFull(d.wire, f[netHeader:]); err != nil {
			return
		}
		d.mu.Lock()
		if r := d.rx; r != nil {
			r.Mem.Guard(func() error { //nolint:errcheck // lost
				var c vhostuser.Chain
				ok, err := r.Pop(&c)
				if err != nil || !ok {
					return err
				}
				k := 0
				for _, b := range c.Write {
					k += copy(b, f[k:])
				}
				if k < len(f) {
					return errors.New("a frame that does not fit")
				}
				r.Push(c.Head, k)
				return r.Publish()
			})
		}
		d.mu.Unlock()
	}
}

// TestFaultBackend: a vhost-user back end that is killed and started again is connected to again,
// without a restart; flows live on.
func TestFaultBackend(t *testing.T) {
	each(t, func(t *testing.T, kvm bool) {
		b := &netBackend{path: filepath.Join(t.TempDir(), "net.sock"), known: make(chan struct{})}
		if err := b.start(); err != nil {
			t.Fatal(err)
		}
		l := newLab(t, kvm, func(c *vmm.Config) {
			back, err := vmm.NewBackend(vmm.Spec{Kind: vmm.VhostUser, Arg: b.path}, vmm.Network{})
			if err != nil {
				t.Fatal(err)
			}
			c.NICs[1].Backend = back
		})
		t.Cleanup(b.kill)
		b.sw = l.WANSwitch
		close(b.known)
		l.awaitReady()
		if _, err := l.get(soon(t), l.Alice, "/"); err != nil {
			t.Fatal(err)
		}
		c, err := l.Alice.DialTCP(soon(t), netip.AddrPortFrom(l.Web.Addr, 80))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		began := time.Now()
		b.kill()
		time.Sleep(2 * time.Second)
		if _, err := l.get(brief(t), l.Alice, "/"); err == nil {
			t.Error("packets pass without a back end")
		}
		if err := b.start(); err != nil {
			t.Fatal(err)
		}
		if _, err := l.get(soon(t), l.Alice, "/"); err != nil {
			t.Fatal(err)
		}
		t.Logf("outage %v, of which the back end was away for 2 s and a request that failed", time.Since(began).Round(10*time.Millisecond))
		c.SetDeadline(time.Now().Add(limit)) //nolint:errcheck // reads fail then
		if _, err := io.WriteString(c, "GET / HTTP/1.0\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(c); err != nil || len(got) == 0 {
			t.Errorf("the connection from before: %d bytes, %v", len(got), err)
		}
		if b.sessions != 2 || len(l.ready) != 0 {
			t.Errorf("%d sessions; the machine was started again %d times", b.sessions, len(l.ready))
		}
	})
}
