package vhostuser

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// maxRegions is how many stretches of memory a monitor may share.
const maxRegions = 8

// A region is one stretch of the guest's memory.
type region struct {
	guest uint64 // guest-physical address
	user  uint64 // the monitor's virtual address
	mem   []byte
	whole []byte // what was mapped: from the file's beginning
}

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
		return nil, fmt.Errorf("vhost-user: %d regions of memory in %d bytes with %d descriptors", n, len(p), len(m.fds))
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
		// Beyond the file's end every access would be a fault.
		if size == 0 || end < off || end > uint64(st.Size) || r.guest+size < r.guest || r.user+size < r.user {
			mem.Close()
			return nil, fmt.Errorf("vhost-user: memory region %d: %d bytes at %d of a file of %d", i, size, off, st.Size)
		}
		b, err := unix.Mmap(m.fds[i], 0, int(end), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		if err != nil {
			mem.Close()
			return nil, fmt.Errorf("vhost-user: memory region %d: %w", i, err)
		}
		r.whole, r.mem = b, b[off:]
		mem.regions = append(mem.regions, r)
	}
	return mem, nil
}

// Close unmaps the memory. Nothing that Slice returned may be used afterwards.
func (m *Memory) Close() {
	for i := range m.regions {
		unix.Munmap(m.regions[i].whole) //nolint:errcheck // it was mapped
	}
	m.regions = nil
}

// Slice returns n bytes of memory at a guest-physical address, or false when
// they do not lie in one region.
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

// user returns n bytes at an address of the monitor's, as rings are given.
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
