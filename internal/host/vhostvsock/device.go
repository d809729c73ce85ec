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

// The rings that a monitor hands over.
const (
	ringRx = 0 // to the guest
	ringTx = 1 // from it
)

// Bounds of what one guest can make the host hold.
const (
	maxConns  = 64
	bufAlloc  = 128 << 10 // bytes that are buffered of one connection
	maxOut    = 1024      // packets that wait for buffers of the guest
	rxChunk   = 4096      // bytes of a socket that become one packet
	dialLimit = 2 * time.Second
	drain     = time.Second // for what a guest has sent before its end
)

// Config is what a device works with.
type Config struct {
	CID  uint64 // the guest's; 3 or more
	Path string // Unix sockets are this, an underscore and the port
	// Dial connects to the Unix socket at a path; nil: whoever listens there.
	// It may be called by several goroutines, and must end soon.
	Dial func(path string) (*net.UnixConn, error)
	// Log is called with what a guest or the monitor did wrong, the first time
	// for each kind; may be nil.
	Log func(format string, a ...any)
}

// Counters of a device.
type Counters struct {
	Connections atomic.Uint64 // made
	Refused     atomic.Uint64 // nobody listened, or too many
	Bytes       atomic.Uint64 // from the guest, delivered
	BadPackets  atomic.Uint64 // that must not be: header, address, length, operation
	Overruns    atomic.Uint64 // connections broken off because the guest sent beyond its credit
	Dropped     atomic.Uint64 // refusals that were not sent: the guest took none
}

type key struct{ guest, host uint32 }

// A packet waits to be sent to the guest.
type packet struct {
	h    header
	data []byte
	sent func() // called with the lock held; may be nil
}

// device is one guest's.
type device struct {
	c      Config
	counts *Counters

	mu    sync.Mutex
	conns map[key]*conn
	open  int // connections whose goroutines or sockets there are, of conns or ended
	out   []packet
	rx    *vhostuser.Ring // nil while the guest has not handed it over
	chain vhostuser.Chain
	over  bool

	rings [2]sync.WaitGroup // goroutines of the rings
	work  sync.WaitGroup    // those of connections
	told  sync.Map          // what has been logged
}

// Serve plays the device for one monitor until that closes the connection. What
// the guest has sent by then is still delivered.
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
	err := vhostuser.Serve(c, vhostuser.Device{Features: vhostuser.FeatureEventIdx | vhostuser.FeatureVersion1, Queues: 2,
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

// log says something once.
func (d *device) log(format string, a ...any) {
	if _, again := d.told.LoadOrStore(format, true); !again {
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

// giveUp ends what goes on with a guest whose rings are of no use any more,
// unless they were taken back in order.
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

// stopped reports whether an error is that of a ring that was taken back.
func stopped(err error) bool {
	var timeout interface{ Timeout() bool }
	return errors.As(err, &timeout) && timeout.Timeout()
}

// kicked: the guest has given buffers.
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
		r.Poll() // buffers are of no interest
		return false, nil
	}
	return r.Arm()
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
			more, err = d.rx.Arm()
		}
		return err
	})
	if err == nil && more { // buffers came meanwhile: the ring's own goroutine goes on
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

// pump moves packets into the guest's buffers while there are both, for as many
// buffers as an honest guest can have given at a time. The lock is held.
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
			continue // the rest of it goes into the next buffer
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

// transmit takes what the guest has sent.
func (d *device) transmit(r *vhostuser.Ring) (more bool, err error) {
	var c vhostuser.Chain
	r.Poll()
	for range r.Size() {
		ok, err := r.Pop(&c)
		if err != nil {
			return false, err
		}
		if !ok {
			if err := r.Publish(); err != nil {
				return false, err
			}
			return r.Arm()
		}
		d.packet(&c)
		r.Push(c.Head, 0)
	}
	return true, r.Publish()
}

// packet handles one packet of the guest.
func (d *device) packet(c *vhostuser.Chain) {
	var b [headerLen]byte
	data, ok := gather(b[:], c.Read)
	h := parseHeader(&b)
	if !ok || h.src != d.c.CID || h.dst != hostCID || h.op == 0 || h.op > opCreditRequest || int64(h.len) > int64(size(data)) {
		d.bad("a packet that must not be (header %x)", b[:])
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
		if cn != nil { // the guest has forgotten it
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

// refuse answers a packet of a connection that there is not.
func (d *device) refuse(k key, h *header) {
	if h.op != opRST {
		d.send(packet{h: header{srcPort: k.host, dstPort: k.guest, op: opRST}})
	}
}
