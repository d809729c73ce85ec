package netlab

import (
	"sync"

	"github.com/thurward/thurward/internal/guest/framebuf"
)

// A PoolPort is a switch's port as the data plane sees ports: frames in the
// buffers of a pool, taken and given in batches. Its methods, other than the
// switch's side, belong to the goroutine that polls, like the pool itself.
type PoolPort struct {
	pool *framebuf.Pool
	port *Port
	wake chan<- struct{}

	mu    sync.Mutex
	queue [][]byte
}

// NewPoolPort attaches a port to a switch. Each new frame is signalled on wake,
// which needs a buffer of one and may be shared between ports.
func NewPoolPort(sw *Switch, name string, pool *framebuf.Pool, wake chan<- struct{}) *PoolPort {
	p := &PoolPort{pool: pool, wake: wake}
	p.port = sw.Attach(name, p.deliver)
	return p
}

func (p *PoolPort) deliver(f []byte) {
	p.mu.Lock()
	room := len(p.queue) < queueLen && len(f) <= p.pool.MaxLen()
	if room {
		p.queue = append(p.queue, f)
	}
	p.mu.Unlock()
	if !room {
		p.port.drop(f)
		return
	}
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// Receive moves waiting frames into buffers of the pool, which are the
// caller's from then on.
func (p *PoolPort) Receive(dst []framebuf.Frame) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for n < len(dst) && n < len(p.queue) {
		b, ok := p.pool.Get()
		if !ok {
			break
		}
		copy(p.pool.Buffer(b)[framebuf.Headroom:], p.queue[n])
		dst[n] = framebuf.Frame{Buf: b, Len: uint32(len(p.queue[n]))}
		n++
	}
	p.queue = p.queue[:copy(p.queue, p.queue[n:])]
	return n
}

// HasRoom implements router.Port.
func (*PoolPort) HasRoom(int) bool { return true }

// Transmit puts all frames on the switch and their buffers back.
func (p *PoolPort) Transmit(src []framebuf.Frame) int {
	for _, f := range src {
		p.port.Send(append([]byte(nil), p.pool.Bytes(f)...))
		p.pool.Put(f.Buf)
	}
	return len(src)
}
