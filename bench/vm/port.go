package main

import (
	"encoding/binary"
	"errors"
	"net"
	"os"
	"sync"

	"github.com/thurward/thurward/internal/host/vhostuser"
)

const (
	netHeader = 12 // virtio-net header (virtio 1.2, 5.1.6)
	rxQueue   = 0  // of a pair, into the guest
	txQueue   = 1  // out of it
	perTurn   = 64
	maxPairs  = 2
)

// What a port offers for large segments: checksums and TCP segmentation both ways, and frames
// in several buffers (virtio 1.2, 5.1.3).
const featLarge = 1<<0 | 1<<1 | 1<<7 | 1<<11 | 1<<15

// A port is one network device of the guest, played by this process.
type port struct {
	n    int // 0: LAN, 1: WAN
	mac  [6]byte
	path string
	l    *net.UnixListener

	mu    sync.Mutex // held by whoever uses the rings
	kind  kind
	ring  [2 * maxPairs]*vhostuser.Ring
	chain vhostuser.Chain
	err   error
	own   [maxPairs][][]byte // answers of ours that wait to be sent
	held  [maxPairs][]buffer // buffers that were taken for a frame, and were not enough for it
}

// A kind is what a port offers to the next machine.
type kind struct {
	pairs int  // of queues
	large bool // offloads
}

// A buffer is one that the guest has posted, with the number of its request.
type buffer struct {
	head uint16
	b    []byte
}

func newPort(n int, dir string) (*port, error) {
	p := &port{n: n, mac: [6]byte{2, 0xbe, 0xef, 0, 0, byte(n)}, path: dir + "-" + [...]string{"lan", "wan"}[n] + ".sock", kind: kind{pairs: 1}}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: p.path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	p.l = l
	go p.accept()
	return p, nil
}

// offer sets what the next machine gets.
func (p *port) offer(k kind) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.kind = k
}

// device is the device as p offers it.
func (p *port) device() vhostuser.Device {
	p.mu.Lock()
	defer p.mu.Unlock()
	d := vhostuser.Device{Features: vhostuser.FeatureVersion1 | vhostuser.FeatureEventIdx, Queues: 2 * p.kind.pairs, Pairs: p.kind.pairs}
	if p.kind.pairs > 1 {
		d.Features |= vhostuser.FeatureMQ
	}
	if p.kind.large {
		d.Features |= featLarge
	}
	return d
}

// accept plays the device for one machine after the other.
func (p *port) accept() {
	for {
		c, err := p.l.AcceptUnix()
		if err != nil {
			return
		}
		err = vhostuser.Serve(c, p.device(), p)
		c.Close()
		if err != nil {
			p.fail(err)
		}
	}
}

func (p *port) fail(err error) {
	p.mu.Lock()
	if p.err == nil {
		p.err = err
	}
	p.mu.Unlock()
}

func (p *port) close() {
	p.l.Close()
	os.Remove(p.path)
}

// Start and Stop hand a ring over and take it back.
func (p *port) Start(r *vhostuser.Ring) {
	p.mu.Lock()
	defer p.mu.Unlock()
	r.SuppressKicks()
	p.ring[r.Index] = r
}

func (p *port) Stop(r *vhostuser.Ring) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ring[r.Index] = nil
	p.held[r.Index/2], p.own[r.Index/2] = nil, nil
}

// up reports whether all rings run.
func (p *port) up() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, r := range p.ring[:2*p.kind.pairs] {
		if r == nil {
			return false
		}
	}
	return true
}

// A sink looks at a frame that came at pair k of the queues, of which f is the beginning.
type sink func(k int, f []byte, total int)

// A fill writes the next frame for pair k of the queues, or the beginning of a large one, with
// the header h before it, which is clear, and returns its length, 0 for no more.
type fill func(k int, h *[netHeader]byte, f []byte) int

// turn takes what the guest has sent and gives it up to perTurn new frames at each pair of
// queues. Both may be nil.
func (p *port) turn(s sink, f fill) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err != nil {
		return p.err
	}
	for k := range p.kind.pairs {
		tx, rx := p.ring[2*k+txQueue], p.ring[2*k+rxQueue]
		if tx == nil || rx == nil {
			continue
		}
		if err := p.take(k, tx, s); err != nil {
			return err
		}
		if err := p.give(k, rx, f); err != nil {
			return err
		}
	}
	return nil
}

// take takes what the guest has sent at pair k.
func (p *port) take(k int, tx *vhostuser.Ring, s sink) error {
	for i := range 4 * perTurn {
		if i%perTurn == 0 {
			n, err := tx.Pending()
			if err != nil {
				return err
			}
			tx.Prefetch(min(n, perTurn))
		}
		ok, err := tx.Pop(&p.chain)
		if err != nil {
			return err
		}
		if !ok {
			break
		}
		if r := p.chain.Read; len(r) > 0 && len(r[0]) > netHeader+14 {
			f := r[0][netHeader:]
			total := len(f)
			for _, b := range r[1:] {
				total += len(b)
			}
			if binary.BigEndian.Uint16(f[12:]) == 0x0806 {
				p.answerARP(k, f)
			} else if s != nil {
				s(k, f, total)
			}
		}
		tx.Push(p.chain.Head, 0)
	}
	return tx.Publish()
}

// give gives the guest frames at pair k.
func (p *port) give(k int, rx *vhostuser.Ring, f fill) error {
	n, err := rx.Pending()
	if err != nil {
		return err
	}
	if f != nil {
		rx.Prefetch(min(n, perTurn))
	}
	if !p.kind.large && f != nil && len(p.own[k]) == 0 && len(p.held[k]) == 0 {
		if err := p.giveWhole(k, rx, f); err != nil {
			return err
		}
		return rx.Publish()
	}
	for range perTurn {
		if len(p.own[k]) == 0 && f == nil {
			break
		}
		ok, err := p.hold(k, rx, netHeader+1514)
		if err != nil {
			return err
		}
		if !ok {
			break
		}
		b := p.held[k][0].b
		h := (*[netHeader]byte)(b)
		clear(h[:])
		h[10] = 1 // num_buffers
		ln := 0
		if len(p.own[k]) > 0 {
			ln = copy(b[netHeader:], p.own[k][0])
			p.own[k] = p.own[k][1:]
		} else {
			if p.kind.large { // before one is made there is room for it
				if ok, err = p.hold(k, rx, netHeader+largeLen); err != nil {
					return err
				}
				if !ok {
					break
				}
			}
			if ln = f(k, h, b[netHeader:]); ln == 0 {
				break
			}
		}
		p.push(k, rx, netHeader+ln)
	}
	return rx.Publish()
}

// giveWhole gives the guest frames at pair k, each of which is in one buffer. It is all that the
// generator does for most rows, and what it takes is missing to the guest that it feeds.
func (p *port) giveWhole(k int, rx *vhostuser.Ring, f fill) error {
	c := &p.chain
	for range perTurn {
		ok, err := rx.Pop(c)
		if err != nil || !ok {
			return err
		}
		if len(c.Write) != 1 || len(c.Write[0]) < netHeader+1514 {
			return errBuffers
		}
		b := c.Write[0]
		h := (*[netHeader]byte)(b)
		clear(h[:])
		h[10] = 1 // num_buffers
		ln := f(k, h, b[netHeader:])
		if ln == 0 {
			p.held[k] = append(p.held[k], buffer{c.Head, b})
			return nil
		}
		rx.Push(c.Head, netHeader+ln)
	}
	return nil
}

var errBuffers = errors.New("the guest posts other buffers than whole ones")

// hold takes buffers of the guest's until they have room for n bytes, and reports whether they do.
func (p *port) hold(k int, rx *vhostuser.Ring, n int) (bool, error) {
	for _, h := range p.held[k] {
		n -= len(h.b)
	}
	for n > 0 {
		ok, err := rx.Pop(&p.chain)
		if err != nil || !ok {
			return false, err
		}
		if len(p.chain.Write) != 1 || len(p.chain.Write[0]) < netHeader+1514 {
			return false, errBuffers
		}
		p.held[k] = append(p.held[k], buffer{p.chain.Head, p.chain.Write[0]})
		n -= len(p.chain.Write[0])
	}
	return true, nil
}

// push gives the first buffers that are held back, with n bytes in them.
func (p *port) push(k int, rx *vhostuser.Ring, n int) {
	used := 0
	for first := p.held[k][0].b; n > 0; used++ {
		h := p.held[k][used]
		m := min(n, len(h.b))
		rx.Push(h.head, m)
		n -= m
		binary.LittleEndian.PutUint16(first[10:], uint16(used+1))
	}
	p.held[k] = append(p.held[k][:0], p.held[k][used:]...)
}

// answerARP answers for every address: the whole net lies behind this port.
func (p *port) answerARP(k int, f []byte) {
	if len(f) < 42 || binary.BigEndian.Uint16(f[20:]) != 1 || string(f[28:32]) == string(f[38:42]) {
		return
	}
	r := make([]byte, 60)
	copy(r[0:], f[6:12])
	copy(r[6:], p.mac[:])
	copy(r[12:], []byte{8, 6, 0, 1, 8, 0, 6, 4, 0, 2})
	copy(r[22:], p.mac[:])
	copy(r[28:], f[38:42])
	copy(r[32:], f[22:32])
	p.own[k] = append(p.own[k], r)
}
