package main

import (
	"encoding/binary"
	"net"
	"os"
	"sync"

	"github.com/thurward/thurward/internal/host/vhostuser"
)

const (
	netHeader = 12 // virtio-net header (virtio 1.2, 5.1.6)
	rxQueue   = 0  // into the guest
	txQueue   = 1  // out of it
	perTurn   = 64
)

// A port is one network device of the guest, played by this process.
type port struct {
	n    int // 0: LAN, 1: WAN
	mac  [6]byte
	path string
	l    *net.UnixListener

	mu    sync.Mutex // held by whoever uses the rings
	ring  [2]*vhostuser.Ring
	chain vhostuser.Chain
	err   error
	own   [][]byte // answers of ours that wait to be sent: ARP
}

func newPort(n int, dir string) (*port, error) {
	p := &port{n: n, mac: [6]byte{2, 0xbe, 0xef, 0, 0, byte(n)}, path: dir + "-" + [...]string{"lan", "wan"}[n] + ".sock"}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: p.path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	p.l = l
	go p.accept()
	return p, nil
}

// accept plays the device for one machine after the other.
func (p *port) accept() {
	for {
		c, err := p.l.AcceptUnix()
		if err != nil {
			return
		}
		err = vhostuser.Serve(c, vhostuser.Device{Features: vhostuser.FeatureVersion1 | vhostuser.FeatureEventIdx, Queues: 2}, p)
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
}

// up reports whether both rings run.
func (p *port) up() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ring[rxQueue] != nil && p.ring[txQueue] != nil
}

// turn takes what the guest has sent and gives it up to perTurn new frames. fill
// writes the next one and returns its length, 0 for no more; sink looks at
// one that came. Both may be nil.
func (p *port) turn(sink func(f []byte), fill func(f []byte) int) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err != nil {
		return p.err
	}
	tx, rx := p.ring[txQueue], p.ring[rxQueue]
	if tx == nil || rx == nil {
		return nil
	}
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
		if len(p.chain.Read) == 1 && len(p.chain.Read[0]) > netHeader+14 {
			f := p.chain.Read[0][netHeader:]
			if binary.BigEndian.Uint16(f[12:]) == 0x0806 {
				p.answerARP(f)
			} else if sink != nil {
				sink(f)
			}
		}
		tx.Push(p.chain.Head, 0)
	}
	if err := tx.Publish(); err != nil {
		return err
	}
	n, err := rx.Pending()
	if err != nil {
		return err
	}
	n = min(n, perTurn)
	if fill != nil {
		rx.Prefetch(n)
	}
	for range n {
		if len(p.own) == 0 && fill == nil {
			break
		}
		if _, err := rx.Pop(&p.chain); err != nil {
			return err
		}
		if len(p.chain.Write) != 1 || len(p.chain.Write[0]) < netHeader+1514 {
			continue // none of ours: the guest's driver posts whole buffers
		}
		b := p.chain.Write[0]
		clear(b[:netHeader])
		b[10] = 1 // num_buffers
		ln := 0
		if len(p.own) > 0 {
			ln = copy(b[netHeader:], p.own[0])
			p.own = p.own[1:]
		} else if ln = fill(b[netHeader:]); ln == 0 {
			ln = copy(b[netHeader:], nothing[:])
			fill = nil
		}
		rx.Push(p.chain.Head, netHeader+ln)
	}
	return rx.Publish()
}

// nothing is a frame for nobody: what a popped buffer gets when there is
// nothing to send.
var nothing = [60]byte{2, 0, 0, 0, 0, 0x99, 2, 0, 0, 0, 0, 0x98, 0x88, 0xb5}

// answerARP answers for every address: the whole net lies behind this port.
func (p *port) answerARP(f []byte) {
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
	p.own = append(p.own, r)
}
