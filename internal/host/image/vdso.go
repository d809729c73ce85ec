package image

import (
	"encoding/binary"

	"github.com/thurward/thurward/internal/shared/abi"
)

// vdso makes a minimal vDSO, the shared object in which Go's runtime looks for
// a clock that needs no system call: one function, __vdso_clock_gettime of
// version LINUX_2.6, whose code is the kernel's, at address fn.
//
// The fields follow the System V ABI (ELF-64) and the GNU symbol versioning
// extension. All offsets are relative to abi.VDSOPage.
func vdso(fn uint64) []byte {
	const (
		phdr    = 64
		dynamic = phdr + 2*56
		hash    = dynamic + 7*16
		symtab  = hash + 5*4 + 4 // padded to 8
		strtab  = symtab + 2*24
		version = "LINUX_2.6"
		name    = "__vdso_clock_gettime"
	)
	str := "\x00" + name + "\x00" + version + "\x00"
	versym := strtab + (len(str)+7)&^7
	verdef := versym + 8
	size := verdef + 20 + 8

	le := binary.LittleEndian
	b := make([]byte, size)
	copy(b, "\x7fELF\x02\x01\x01")
	le.PutUint16(b[16:], 3)  // ET_DYN
	le.PutUint16(b[18:], 62) // EM_X86_64
	le.PutUint32(b[20:], 1)
	le.PutUint64(b[32:], phdr)
	le.PutUint16(b[52:], 64)
	le.PutUint16(b[54:], 56)
	le.PutUint16(b[56:], 2)
	ph := func(i int, typ uint32, off, size uint64) {
		p := b[phdr+56*i:]
		le.PutUint32(p[0:], typ)
		le.PutUint32(p[4:], 4)
		le.PutUint64(p[8:], off)
		le.PutUint64(p[16:], off)
		le.PutUint64(p[24:], off)
		le.PutUint64(p[32:], size)
		le.PutUint64(p[40:], size)
		le.PutUint64(p[48:], 8)
	}
	ph(0, 1, 0, uint64(size))       // PT_LOAD
	ph(1, 2, dynamic, hash-dynamic) // PT_DYNAMIC
	for i, d := range [][2]uint64{
		{4, hash},                    // DT_HASH
		{5, strtab},                  // DT_STRTAB
		{6, symtab},                  // DT_SYMTAB
		{0x6ffffff0, uint64(versym)}, // DT_VERSYM
		{0x6ffffffc, uint64(verdef)}, // DT_VERDEF
		{0x6ffffffd, 1},              // DT_VERDEFNUM
		{0, 0},
	} {
		le.PutUint64(b[dynamic+16*i:], d[0])
		le.PutUint64(b[dynamic+16*i+8:], d[1])
	}
	// One bucket, whose chain is the one symbol.
	for i, v := range []uint32{1, 2, 1, 0, 0} {
		le.PutUint32(b[hash+4*i:], v)
	}
	s := b[symtab+24:]
	le.PutUint32(s[0:], 1) // name
	s[4] = 1<<4 | 2        // STB_GLOBAL, STT_FUNC
	le.PutUint16(s[6:], 1) // any section but SHN_UNDEF
	le.PutUint64(s[8:], fn-abi.VDSOPage)
	le.PutUint64(s[16:], 1)
	copy(b[strtab:], str)
	le.PutUint16(b[versym+2:], 2)
	v := b[verdef:]
	le.PutUint16(v[0:], 1)                    // vd_version
	le.PutUint16(v[4:], 2)                    // vd_ndx
	le.PutUint16(v[6:], 1)                    // vd_cnt
	le.PutUint32(v[8:], elfHash(version))     // vd_hash
	le.PutUint32(v[12:], 20)                  // vd_aux
	le.PutUint32(v[20:], uint32(len(name)+2)) // vda_name
	return b
}

// elfHash is the hash function of the System V ABI.
func elfHash(s string) uint32 {
	var h uint32
	for i := 0; i < len(s); i++ {
		h = h<<4 + uint32(s[i])
		g := h & 0xf0000000
		h ^= g >> 24
		h &^= g
	}
	return h
}
