package framebuf

// Long buffers hold a large frame each, so that a device takes one descriptor for it where it
// would take 33. They are a second class of buffers of a pool, with numbers from Numbers on. Only
// a device that receives, a large frame and a device that sends own one: an ordinary frame
// is copied out of it, so that whatever else holds frames holds no long buffers.

// LongSize is the length of a long buffer in bytes, an odd number of cache lines like Size.
const LongSize = (Headroom+MaxTotal+63)&^63 | 64

// longs are the long buffers of a pool.
type longs struct {
	mem   []byte
	phys  uint64
	first uint32 // number of the first one
	free  []uint32
}

// AddLong adds len(mem)/LongSize long buffers over mem, whose bus address is phys. It is
// called once, before the pool is used.
func (p *Pool) AddLong(mem []byte, phys uint64) {
	n := len(mem) / LongSize
	p.long = longs{mem: mem, phys: phys, first: p.end, free: make([]uint32, n)}
	for i := range p.long.free {
		p.long.free[i] = p.long.first + uint32(n-1-i)
	}
	p.large = make([]Large, int(p.end)+n)
	p.next = make([]part, int(p.end)+n)
}

// FreeLong returns the number of free long buffers.
func (p *Pool) FreeLong() int { return len(p.long.free) }

// GetLong takes a long buffer from the pool. It reports false when none is left.
func (p *Pool) GetLong() (buf uint32, ok bool) {
	f := p.long.free
	if len(f) == 0 {
		return 0, false
	}
	p.long.free = f[:len(f)-1]
	return f[len(f)-1], true
}

func (l *longs) put(buf uint32) {
	n := len(l.free)
	if n == cap(l.free) || buf < l.first || buf-l.first >= uint32(cap(l.free)) {
		return
	}
	l.free = append(l.free, buf)
}

// IsLong reports whether a buffer is a long one.
func (p *Pool) IsLong(buf uint32) bool { return buf >= p.end }

// Whole returns the whole buffer, long or not.
func (p *Pool) Whole(buf uint32) []byte {
	if !p.IsLong(buf) {
		return p.Buffer(buf)
	}
	o := int(buf-p.long.first) * LongSize
	return p.long.mem[o : o+LongSize : o+LongSize]
}

// Bus returns the bus address of the first byte of a buffer, long or not.
func (p *Pool) Bus(buf uint32) uint64 {
	if !p.IsLong(buf) {
		return p.Phys(buf)
	}
	return p.long.phys + uint64(buf-p.long.first)*LongSize
}
