package vhostvsock

import (
	"encoding/binary"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/thurward/thurward/internal/host/vhostuser"
)

// The indexes of the rings.
const (
	ringRx = 0 // to the guest
	ringTx = 1 // from it
)

// Bounds of what a guest can make the host keep.
const (
	maxConns  = 64
	bufAlloc  = 128 << 10 // bytes that are buffered of one connection
	maxOut    = 1024      // packets that wait for buffers of the guest
	rxChunk   = 4096      // bytes of a socket that become one packet
	dialLimit = 2 * time.Second
	drain     = time.Second // for delivering what a guest has sent before its end
)

// Config configures a device.
type Config struct {
	CID  uint64 // the guest's; 3 or more
	Path string // Unix sockets are this, an underscore and the port
	// Translated says that the guest's addresses go through an IOMMU of the monitor's.
	Translated bool
	// Dial connects to the Unix socket at a path; nil: without checking its owner.
	// It may be called concurrently, and must return soon.
	Dial func(path string) (*net.UnixConn, error)
	// Tap is called for each connection that is made. The function that it returns is called
	// with the bytes from the guest, in order, whether the socket's other end takes them or
	// not, and must not keep them; it may be nil, and so may Tap.
	Tap func() func([]byte)
	// Log is called with violations of the guest or the monitor, once for each kind;
	// may be nil.
	Log func(format string, a ...any)
}

// Counters of a device.
type Counters struct {
	Connections atomic.Uint64 // made
	Refused     atomic.Uint64 // no process listened, or there were too many
	Bytes       atomic.Uint64 // from the guest, delivered
	BadPackets  atomic.Uint64 // invalid header, address, length or operation
	Overruns    atomic.Uint64 // connections reset because the guest sent beyond its credit
	Dropped     atomic.Uint64 // packets that were not sent because the guest takes none
	Packets     atomic.Uint64 // from the guest
	Open        atomic.Int64  // connections that are made now
	Writing     atomic.Int64  // writes to sockets that are under way: the receiver may not read
}

type key struct{ guest, host uint32 }

// A packet waits to be sent to the guest.
type packet struct {
	h    header
	data []byte
	sent func() // called with the lock held; may be nil
}

// device is the device of one guest.
type device struct {
	c      Config
	counts *Counters

	mu    sync.Mutex
	conns map[key]*conn
	open  int // connections with goroutines or sockets, in conns or ended
	out   []packet
	rx    *vhostuser.Ring // nil before it is started
	chain vhostuser.Chain
	over  bool

	rings  [2]sync.WaitGroup // goroutines of the rings
	work   sync.WaitGroup    // those of connections
	logged sync.Map          // messages that were logged, by format
}

// Serve is the device of one monitor until the monitor closes the connection. Data
// that the guest has sent by then is still delivered.
func Serve(c *net.UnixConn, cfg Config, counts *Counters) error {
	if cfg.Log == nil {
		cfg.Log = func(string, ...any) {}
	}
	if cfg.Dial == nil {
		cfg.Dial = dial
	}
	if counts == nil {
		counts = &Counters{}
	}
	d := &device{c: cfg, counts: counts, conns: map[key]*conn{}}
	err := vhostuser.Serve(c, vhostuser.Device{Features: vhostuser.FeatureEventIdx | vhostuser.FeatureVersion1, Queues: 2, Translated: cfg.Translated,
		Config: binary.LittleEndian.AppendUint64(nil, cfg.CID)}, d)
	d.mu.Lock()
	d.over = true
	for _, k := range d.conns {
		d.finish(k)
	}
	d.mu.Unlock()
	d.work.Wait()
	return err
}

// log logs a message once for each format.
func (d *device) log(format string, a ...any) {
	if _, again := d.logged.LoadOrStore(format, true); !again {
		d.c.Log(format, a...)
	}
}

// Start implements vhostuser.Handler.
func (d *device) Start(r *vhostuser.Ring) {
	handle := d.transmit
	if r.Index == ringRx {
		d.mu.Lock()
		d.rx = r
		d.mu.Unlock()
		handle = d.kicked
	}
	d.rings[r.Index].Go(func() {
		for {
			more := false
			err := r.Mem.Guard(func() (err error) { more, err = handle(r); return err })
			if err == nil && !more {
				err = r.Wait()
			}
			if err != nil {
				d.giveUp(err)
				return
			}
		}
	})
}

// giveUp ends all connections of a guest after an error of a ring, other than that it
// was stopped.
func (d *device) giveUp(err error) {
	if stopped(err) {
		return
	}
	d.log("the guest's vsock device is given up: %v", err)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.rx = nil
	for _, c := range d.conns {
		d.finish(c)
	}
}

// Stop implements vhostuser.Handler.
func (d *device) Stop(r *vhostuser.Ring) {
	if r.Index == ringRx {
		d.mu.Lock()
		d.rx = nil
		d.mu.Unlock()
	}
	d.rings[r.Index].Wait()
}

// stopped reports whether an error is that of a ring that was stopped.
func stopped(err error) bool {
	var timeout interface{ Timeout() bool }
	return errors.As(err, &timeout) && timeout.Timeout()
}

// kicked handles a kick of the receive ring: the guest has added buffers.
func (d *device) kicked(r *vhostuser.Ring) (more bool, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.pump(); err != nil {
		d.rx = nil
		return false, err
	}
	if d.rx == nil {
		return false, nil // Stop has been called: Wait will say so
	}
	if len(d.out) == 0 {
		r.SuppressKicks() // buffers are not needed
		return false, nil
	}
	return r.RequestKick()
}

// send queues a packet for the guest. The lock is held.
func (d *device) send(p packet) bool {
	if len(d.out) >= maxOut {
		d.counts.Dropped.Add(1)
		return false
	}
	p.h.src, p.h.dst, p.h.typ = hostCID, d.c.CID, typeStream
	d.out = append(d.out, p)
	if d.rx == nil {
		return true
	}
	more := false
	err := d.rx.Mem.Guard(func() (err error) {
		if err = d.pump(); err == nil && d.rx != nil && len(d.out) > 0 {
			more, err = d.rx.RequestKick()
		}
		return err
	})
	if err == nil && more { // buffers were added meanwhile: the ring's goroutine continues
		err = d.rx.Kick()
	}
	if err != nil {
		if !stopped(err) {
			d.log("the guest's vsock device is given up: %v", err)
		}
		d.rx = nil
	}
	return true
}

var errSmall = errors.New("a receive buffer without room for a header")

// pump moves packets into the guest's buffers while there are both, for at most as
// many buffers as the ring has entries. The lock is held.
func (d *device) pump() error {
	n := 0
	for round := 0; d.rx != nil && n < len(d.out) && round < d.rx.Size(); round++ {
		ok, err := d.rx.Pop(&d.chain)
		if err != nil {
			return err
		}
		if !ok {
			break
		}
		p := &d.out[n]
		room := size(d.chain.Write) - headerLen
		if room < 0 || len(p.data) > 0 && room == 0 {
			return errSmall
		}
		k := min(room, len(p.data))
		p.h.len = uint32(k)
		b := p.h.bytes()
		scatter(scatter(d.chain.Write, b[:]), p.data[:k])
		d.rx.Push(d.chain.Head, headerLen+k)
		if p.data = p.data[k:]; len(p.data) > 0 {
			continue // the rest goes into the next buffer
		}
		if p.sent != nil {
			p.sent()
		}
		n++
	}
	d.out = d.out[:copy(d.out, d.out[n:])]
	if d.rx == nil {
		return nil
	}
	return d.rx.Publish()
}

// transmit handles packets that the guest has sent.
func (d *device) transmit(r *vhostuser.Ring) (more bool, err error) {
	var c vhostuser.Chain
	r.SuppressKicks()
	for range r.Size() {
		ok, err := r.Pop(&c)
		if err != nil {
			return false, err
		}
		if !ok {
			if err := r.Publish(); err != nil {
				return false, err
			}
			return r.RequestKick()
		}
		d.packet(&c)
		r.Push(c.Head, 0)
	}
	return true, r.Publish()
}

// packet handles one packet of the guest.
func (d *device) packet(c *vhostuser.Chain) {
	d.counts.Packets.Add(1)
	var b [headerLen]byte
	data, ok := gather(b[:], c.Read)
	h := parseHeader(&b)
	if !ok || h.src != d.c.CID || h.dst != hostCID || h.op == 0 || h.op > opCreditRequest ||
		int64(h.len) > int64(size(data)) {
		d.bad("an invalid packet (header %x)", b[:])
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	k := key{h.srcPort, h.dstPort}
	cn := d.conns[k]
	if h.typ != typeStream {
		d.bad("a packet of type %d; streams only", h.typ)
		d.refuse(k, &h)
		return
	}
	if h.op == opRequest {
		if cn != nil { // the guest does not know it any more
			d.abort(cn)
		}
		d.connect(k, &h)
		return
	}
	if cn == nil {
		d.refuse(k, &h)
		return
	}
	d.handle(cn, &h, data)
}

func (d *device) bad(format string, a ...any) {
	d.counts.BadPackets.Add(1)
	d.log("the guest sent "+format, a...)
}

// refuse answers a packet of an unknown connection.
func (d *device) refuse(k key, h *header) {
	if h.op != opRST {
		d.send(packet{h: header{srcPort: k.host, dstPort: k.guest, op: opRST}})
	}
}
