package framebuf

// A large frame is a TCP segment that is longer than a link carries, with one set of
// headers: whoever puts it on a link cuts it (segmentation offload; virtio 1.2, 5.1.6). It
// lies in a chain of buffers, long ones or not, whose first has all headers. Its Frame has the
// number of the first buffer, and a Len of 0: code for ordinary frames finds no bytes in it, so that a
// large frame passes only where it is expected. The chain has one owner, like a buffer.
// A Frame without bytes that is no chain has no Parts.

// MaxParts is the largest number of buffers of a large frame: of 64 KB, behind the
// Ethernet and virtio headers, in buffers of Size bytes.
const MaxParts = (MaxTotal + Headroom + Size - 1) / Size

// MaxTotal is the length of the longest large frame in bytes: an IPv4 packet of the largest
// length behind an Ethernet header.
const MaxTotal = 14 + 65535

// A Large describes a large frame. Lengths and offsets are in bytes, offsets are from the
// frame's first byte. The driver that receives the frame sets Total, Parts, First, Size and
// Transport; who has read its headers sets Headers and Segments, before it is sent.
type Large struct {
	Total     uint32 // length of the frame
	First     uint32 // bytes of the frame in the first buffer
	Parts     uint16 // number of buffers; 0: there is no such frame
	Size      uint16 // payload of each segment but the last
	Transport uint16 // offset of the TCP header, whose checksum is that of the pseudo-header
	Headers   uint16 // length of all headers
	Segments  uint16 // number of segments on the link
}

// A part is a buffer of a chain after the first one. Its bytes begin at the buffer's first.
type part struct{ buf, n uint32 }

// IsLarge reports whether f is a large frame, or an empty one.
func (f Frame) IsLarge() bool { return f.Len == 0 }

// Large returns the description of the large frame f.
func (p *Pool) Large(f Frame) *Large { return &p.large[f.Buf] }

// First returns the bytes of the large frame f in its first buffer.
func (p *Pool) First(f Frame) []byte {
	l := &p.large[f.Buf]
	if l.Parts == 0 {
		return nil
	}
	if p.IsLong(f.Buf) {
		return p.Whole(f.Buf)[Headroom : Headroom+l.First]
	}
	return p.first(f.Buf, l.First)
}

// Chain makes the buffers in bufs, at most MaxParts of them, a large frame of which each
// buffer but the first has n[i] bytes, and the first l.First. It sets l.Parts and l.Total.
func (p *Pool) Chain(bufs []uint32, n []uint32, l Large) Frame {
	l.Parts, l.Total = uint16(len(bufs)), l.First
	for i := 1; i < len(bufs); i++ {
		k := min(n[i], uint32(len(p.Whole(bufs[i]))))
		p.next[bufs[i-1]] = part{bufs[i], k}
		l.Total += k
	}
	p.large[bufs[0]] = l
	return Frame{Buf: bufs[0]}
}

// Next returns the buffer after buf in its chain, and how many of its bytes belong to the
// frame. The caller counts with Parts.
func (p *Pool) Next(buf uint32) (next uint32, n uint32) {
	x := p.next[buf]
	return x.buf, x.n
}

// Release gives back all buffers of a frame, large or not.
func (p *Pool) Release(f Frame) {
	if f.IsLarge() && f.Buf < uint32(len(p.large)) {
		l := &p.large[f.Buf]
		buf := p.next[f.Buf].buf
		for ; l.Parts > 1; l.Parts-- {
			next := p.next[buf].buf
			p.Put(buf)
			buf = next
		}
		l.Parts = 0
	}
	p.Put(f.Buf)
}

// Sent forgets the large frame f, whose buffers belong to a device. After it, as after
// Release, its description but for Parts stays until another large frame has its first
// buffer.
func (p *Pool) Sent(f Frame) { p.large[f.Buf].Parts = 0 }

// Copy copies bytes of the large frame f, from offset off on, to dst, and returns how many
// there were.
func (p *Pool) Copy(dst []byte, f Frame, off int) int {
	l := &p.large[f.Buf]
	b := p.First(f)
	buf, done := f.Buf, 0
	for i := uint16(1); ; i++ {
		if off < len(b) {
			done += copy(dst[done:], b[off:])
			off = 0
		} else {
			off -= len(b)
		}
		if done == len(dst) || i >= l.Parts {
			return done
		}
		next, n := p.Next(buf)
		buf, b = next, p.Whole(next)[:n]
	}
}
