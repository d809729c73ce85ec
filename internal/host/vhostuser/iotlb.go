package vhostuser

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"sync"
	"time"
)

// FeaturePlatform is VIRTIO_F_ACCESS_PLATFORM: see Device.Translated.
const FeaturePlatform = 1 << 33

// IOTLB messages (vhost-user protocol, "IOMMU support"): kinds, and what an entry allows.
const (
	iotlbMiss       = 1
	iotlbUpdate     = 2
	iotlbInvalidate = 3

	mayRead  = 1
	mayWrite = 2
)

const (
	iotlbBytes = 32
	// maxEntries is how many translations are kept: 8 GiB in pages of 2 MiB.
	maxEntries = 4096
	// missLimit is how long the monitor may take to answer for an address.
	missLimit = time.Second
)

// An entry translates a range of the device's addresses to the monitor's.
type entry struct {
	from, size, user uint64
	may              uint8
}

// iotlb has the translations that the monitor has told, and asks it for others. Rings and
// session use it at the same time.
type iotlb struct {
	mu      sync.Mutex
	entries []entry // by address, apart
	news    chan struct{}
	asks    *net.UnixConn // on which this side asks; nil before there is one
}

func newIOTLB() *iotlb { return &iotlb{news: make(chan struct{})} }

// find returns where n bytes at a device's address lie for the monitor, in one piece, and
// otherwise the first address that has no translation, or none that allows it.
func (t *iotlb) find(at uint64, n int, may uint8) (user, miss uint64, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	end := at + uint64(n)
	if end < at {
		return 0, at, false
	}
	for a := at; a < end || a == at; {
		i, _ := slices.BinarySearchFunc(t.entries, a, func(e entry, a uint64) int {
			if e.from+e.size-1 < a {
				return -1
			}
			return 1
		})
		if i == len(t.entries) || t.entries[i].from > a || t.entries[i].may&may != may {
			return 0, a, false
		}
		e := &t.entries[i]
		u := e.user + (a - e.from)
		if a == at {
			user = u
		} else if u != user+(a-at) {
			return 0, a, false // not in one piece: nothing here needs that
		}
		if a = e.from + e.size; a <= e.from {
			break // up to the last address
		}
	}
	return user, 0, true
}

// ask asks the monitor for a translation.
func (t *iotlb) ask(at uint64, may uint8) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.asks == nil {
		return errors.New("vhost-user: the monitor has given no channel for requests")
	}
	le := binary.LittleEndian
	b := le.AppendUint32(nil, reqBackIOTLB)
	b = le.AppendUint32(le.AppendUint32(b, flagVersion), iotlbBytes)
	b = le.AppendUint64(b, at)
	b = append(b, make([]byte, iotlbBytes-8)...)
	b[headerLen+24], b[headerLen+25] = may, iotlbMiss
	if err := t.asks.SetWriteDeadline(time.Now().Add(missLimit)); err != nil {
		return err
	}
	_, err := t.asks.Write(b)
	return err
}

// wait is find, but asks for what is missing. It gives up when over says so.
func (t *iotlb) wait(at uint64, n int, may uint8, over func() bool) (user uint64, err error) {
	limit := time.Now().Add(missLimit)
	asked, any := uint64(0), false
	for {
		t.mu.Lock()
		news := t.news
		t.mu.Unlock()
		user, miss, ok := t.find(at, n, may)
		if ok {
			return user, nil
		}
		if !any || miss != asked {
			if err := t.ask(miss, may); err != nil {
				return 0, err
			}
			asked, any = miss, true
		}
		tick := time.NewTimer(20 * time.Millisecond)
		select {
		case <-news:
		case <-tick.C:
		}
		tick.Stop()
		switch {
		case over():
			return 0, os.ErrDeadlineExceeded
		case time.Now().After(limit):
			return 0, fmt.Errorf("vhost-user: the IOMMU does not let the device reach %#x", miss)
		}
	}
}

// remove forgets what lies in [from, from+size).
func (t *iotlb) remove(from, size uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	last := from + size - 1
	if last < from {
		last = ^uint64(0)
	}
	t.entries = slices.DeleteFunc(t.entries, func(e entry) bool { return e.from <= last && e.from+e.size-1 >= from })
}

// add notes a translation in place of those that it overlaps.
func (t *iotlb) add(e entry) error {
	if e.size == 0 || e.from+e.size-1 < e.from || e.user+e.size-1 < e.user {
		return fmt.Errorf("vhost-user: a translation of %d bytes from %#x to %#x", e.size, e.from, e.user)
	}
	t.remove(e.from, e.size)
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.entries) == maxEntries {
		return fmt.Errorf("vhost-user: more than %d translations", maxEntries)
	}
	i, _ := slices.BinarySearchFunc(t.entries, e.from, func(o entry, a uint64) int {
		if o.from < a {
			return -1
		}
		return 1
	})
	t.entries = slices.Insert(t.entries, i, e)
	close(t.news)
	t.news = make(chan struct{})
	return nil
}

// listen takes the channel on which this side asks.
func (t *iotlb) listen(m *message) error {
	if len(m.fds) == 0 {
		return fmt.Errorf("vhost-user: request %d came without a file descriptor", m.request)
	}
	f := os.NewFile(uintptr(m.fds[0]), "requests")
	m.fds[0] = -1
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return fmt.Errorf("vhost-user: the channel for requests: %w", err)
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		c.Close()
		return errors.New("vhost-user: the channel for requests is no Unix socket")
	}
	t.close()
	t.mu.Lock()
	t.asks = u
	t.mu.Unlock()
	return nil
}

func (t *iotlb) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.asks != nil {
		t.asks.Close()
		t.asks = nil
	}
}

// translate handles an IOTLB message.
func (s *session) translate(m *message) error {
	if s.tlb == nil {
		return fmt.Errorf("vhost-user: request %d, and VIRTIO_F_ACCESS_PLATFORM was not offered", m.request)
	}
	if len(m.payload) < 26 {
		return m.short()
	}
	le := binary.LittleEndian
	e := entry{le.Uint64(m.payload), le.Uint64(m.payload[8:]), le.Uint64(m.payload[16:]), m.payload[24]}
	switch m.payload[25] {
	case iotlbUpdate:
		if err := s.tlb.add(e); err != nil {
			return err
		}
		return s.startAll() // those that waited for it
	case iotlbInvalidate:
		if err := s.stopAll(); err != nil {
			return err
		}
		s.tlb.remove(e.from, e.size)
		return s.startAll()
	}
	return fmt.Errorf("vhost-user: an IOTLB message of kind %d", m.payload[25])
}

// places returns where the parts of a ring lie for the monitor. Where translations are
// missing it asks for them, and all is false: the ring starts when they come.
func (s *session) places(v *vring) (desc, used, avail uint64, all bool, err error) {
	if s.tlb == nil {
		return v.desc, v.used, v.avail, true, nil
	}
	all = true
	of := func(at uint64, n int, may uint8) uint64 {
		user, miss, ok := s.tlb.find(at, n, may)
		if !ok {
			all = false
			if miss != v.asked {
				v.asked = miss
				err = errors.Join(err, s.tlb.ask(miss, may))
			}
		}
		return user
	}
	n := int(min(v.num, MaxRing))
	desc, avail = of(v.desc, 16*n, mayRead), of(v.avail, 6+2*n, mayRead)
	return desc, of(v.used, 6+8*n, mayRead|mayWrite), avail, all, err
}

// buffer returns n bytes at an address of the guest's descriptors that is translated. One that
// is not lies outside the guest's memory.
func (r *Ring) buffer(at uint64, n int, write bool) ([]byte, error) {
	if r.tlb == nil {
		return nil, fmt.Errorf("vhost-user: ring %d: a buffer of %d bytes at %#x lies outside the guest's memory", r.Index, n, at)
	}
	may := uint8(mayRead)
	if write {
		may = mayWrite
	}
	user, err := r.tlb.wait(at, n, may, r.over.Load)
	if err != nil {
		return nil, err
	}
	return r.Mem.user(user, n)
}

// seen returns n bytes of mem at an address that is known to be translated, for what is no more
// than a hint.
func (t *iotlb) seen(mem *Memory, at uint64, n int) ([]byte, bool) {
	user, _, ok := t.find(at, n, 0)
	if !ok {
		return nil, false
	}
	b, err := mem.user(user, n)
	return b, err == nil
}
