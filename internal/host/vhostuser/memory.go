package vhostuser

import (
	"encoding/binary"
	"errors"
	"fmt"
	"runtime/debug"
	"unsafe"

	"golang.org/x/sys/unix"
)

// maxRegions is how many regions of memory a monitor may share.
const maxRegions = 8

// A region is a contiguous part of the guest's memory.
type region struct {
	guest uint64 // guest-physical address
	user  uint64 // the monitor's virtual address
	mem   []byte
	whole []byte // the mapping, from the file's beginning
	file  file
	off   uint64 // of mem in it
}

// A file identifies a file, whatever its descriptor.
type file struct{ dev, ino uint64 }

// Memory is the guest's memory, mapped into this process.
type Memory struct{ regions []region }

// mapMemory maps what SET_MEM_TABLE describes.
func mapMemory(m *message) (*Memory, error) {
	p := m.payload
	if len(p) < 8 {
		return nil, m.short()
	}
	n := int(binary.LittleEndian.Uint32(p))
	if n > maxRegions || len(p) < 8+32*n || n > len(m.fds) {
		return nil, fmt.Errorf("vhost-user: %d regions of memory in %d bytes with %d descriptors",
			n, len(p), len(m.fds))
	}
	mem := &Memory{}
	for i := range n {
		e := p[8+32*i:]
		r := region{guest: binary.LittleEndian.Uint64(e), user: binary.LittleEndian.Uint64(e[16:])}
		size, off := binary.LittleEndian.Uint64(e[8:]), binary.LittleEndian.Uint64(e[24:])
		var st unix.Stat_t
		if err := unix.Fstat(m.fds[i], &st); err != nil {
			mem.Close()
			return nil, fmt.Errorf("vhost-user: memory region %d: %w", i, err)
		}
		end := off + size
		// An access beyond the file's end would be a fault.
		if size == 0 || end < off || end > uint64(st.Size) || r.guest+size < r.guest || r.user+size < r.user {
			mem.Close()
			return nil, fmt.Errorf("vhost-user: memory region %d: %d bytes at %d of a file of %d",
				i, size, off, st.Size)
		}
		b, err := unix.Mmap(m.fds[i], 0, int(end), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		if err != nil {
			mem.Close()
			return nil, fmt.Errorf("vhost-user: memory region %d: %w", i, err)
		}
		seal(m.fds[i])
		// If the file was truncated between Fstat and the seal, the first access
		// is a fault, which Guard handles.
		r.whole, r.mem, r.file, r.off = b, b[off:], file{st.Dev, st.Ino}, off
		mem.regions = append(mem.regions, r)
	}
	return mem, nil
}

// seal prevents the file from being truncated, if it can be sealed: accesses beyond
// the end of the file would be faults. Files that are not memfds, or were made
// without sealing, are not changed; Guard handles faults in them.
func seal(fd int) {
	if s, err := unix.FcntlInt(uintptr(fd), unix.F_GET_SEALS, 0); err == nil && s&unix.F_SEAL_SHRINK == 0 {
		unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK) //nolint:errcheck // see above
	}
}

// ErrFault is the error of an access to guest memory whose file was truncated.
var ErrFault = errors.New("vhost-user: the guest's memory was truncated")

// Guard calls f, which uses the guest's memory. If f faults in it, Guard returns
// ErrFault instead of ending the process. Other panics are not recovered. f must
// unlock its locks in deferred calls.
func (m *Memory) Guard(f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		r := recover()
		if r == nil {
			return
		}
		if e, ok := r.(interface{ Addr() uintptr }); !ok || !m.has(e.Addr()) {
			panic(r)
		}
		err = ErrFault
	}()
	return f()
}

// has reports whether an address of this process is in the mapped memory.
func (m *Memory) has(a uintptr) bool {
	for i := range m.regions {
		b := m.regions[i].whole
		if a-uintptr(unsafe.Pointer(unsafe.SliceData(b))) < uintptr(len(b)) {
			return true
		}
	}
	return false
}

// An extent is a range of a file that is shared memory.
type extent struct {
	file     file
	from, to uint64
}

func (e extent) overlaps(o extent) bool { return e.file == o.file && e.from < o.to && o.from < e.to }

// extent returns the range in their file of n bytes at an address of the monitor. One
// file may be shared at several addresses.
func (m *Memory) extent(addr uint64, n int) extent {
	for i := range m.regions {
		r := &m.regions[i]
		if o := addr - r.user; o < uint64(len(r.mem)) {
			return extent{r.file, r.off + o, r.off + o + uint64(n)}
		}
	}
	return extent{}
}

// Close unmaps the memory. Slices of it must not be used afterwards.
func (m *Memory) Close() {
	for i := range m.regions {
		unix.Munmap(m.regions[i].whole) //nolint:errcheck // it was mapped
	}
	m.regions = nil
}

// Slice returns n bytes of memory at a guest-physical address, or false if they are
// not within one region.
func (m *Memory) Slice(guest uint64, n int) ([]byte, bool) {
	for i := range m.regions {
		r := &m.regions[i]
		if o := guest - r.guest; o < uint64(len(r.mem)) && uint64(n) <= uint64(len(r.mem))-o {
			return r.mem[o : o+uint64(n) : o+uint64(n)], true
		}
	}
	return nil, false
}

var errRing = errors.New("vhost-user: a ring lies outside the shared memory")

// user returns n bytes at an address of the monitor, by which rings are set.
func (m *Memory) user(addr uint64, n int) ([]byte, error) {
	if m == nil {
		return nil, errRing
	}
	for i := range m.regions {
		r := &m.regions[i]
		if o := addr - r.user; o < uint64(len(r.mem)) && uint64(n) <= uint64(len(r.mem))-o {
			return r.mem[o : o+uint64(n) : o+uint64(n)], nil
		}
	}
	return nil, errRing
}
