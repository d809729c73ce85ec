package kernel

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/thurward/thurward/internal/shared/abi"
)

// linuxLoader is 32-bit code that does what Firecracker before 1.12 does: it
// enters the image by the 64-bit Linux boot protocol. Paging maps the first
// GiB at its own address in 2 MiB pages, RSI points to struct boot_params with
// an e820 map of 64 MB and a command line.
func linuxLoader(entry uint32) []byte {
	const (
		params  = 0x10000
		pml4    = 0x11000
		pdpt    = 0x12000
		pd      = 0x13000
		cmdline = 0x20000
	)
	le := binary.LittleEndian
	var b []byte
	op := func(bs ...byte) { b = append(b, bs...) }
	imm := func(v uint32) { b = le.AppendUint32(b, v) }
	store := func(addr, v uint32) { op(0xc7, 0x05); imm(addr); imm(v) } // mov dword [addr], v
	op(0xfa, 0xfc)                                                      // cli; cld
	op(0xbf)                                                            // mov edi, params
	imm(params)
	op(0xb9) // mov ecx, dwords up to the end of the page directory
	imm((pd + 4096 - params) / 4)
	op(0x31, 0xc0, 0xf3, 0xab) // xor eax, eax; rep stosd
	store(pml4, pdpt|3)
	store(pdpt, pd|3)
	op(0xbf) // mov edi, pd
	imm(pd)
	op(0xb8) // mov eax, 0x83: present, writable, 2 MiB
	imm(0x83)
	op(0xb9) // mov ecx, 512
	imm(512)
	loop := len(b)
	op(0x89, 0x07) // mov [edi], eax
	op(0x05)       // add eax, 2 MiB
	imm(2 << 20)
	op(0x83, 0xc7, 0x08)                  // add edi, 8
	op(0x49)                              // dec ecx
	op(0x75, byte(int8(loop-(len(b)+2)))) // jnz loop
	for i, s := range []string{"CHEC", "K=pa", "nic "} {
		store(cmdline+uint32(4*i), le.Uint32([]byte(s)))
	}
	store(cmdline+12, 0)
	store(params+0x1e8, 2)         // e820_entries
	store(params+0x228, cmdline)   // cmd_line_ptr
	store(params+0x2d0+8, 0x9fc00) // [0, 0x9fc00) RAM
	store(params+0x2d0+16, 1)      //
	store(params+0x2e4, 0x100000)  // [1 MiB, 64 MiB) RAM
	store(params+0x2e4+8, 63<<20)  //
	store(params+0x2e4+16, 1)      //
	op(0x0f, 0x20, 0xe0)           // mov eax, cr4
	op(0x83, 0xc8, 0x20)           // or eax, PAE
	op(0x0f, 0x22, 0xe0)           // mov cr4, eax
	op(0xb8)                       // mov eax, pml4
	imm(pml4)
	op(0x0f, 0x22, 0xd8) // mov cr3, eax
	op(0xb9)             // mov ecx, EFER
	imm(0xc0000080)
	op(0xb8) // mov eax, LME
	imm(0x100)
	op(0x31, 0xd2, 0x0f, 0x30) // xor edx, edx; wrmsr
	op(0x0f, 0x20, 0xc0)       // mov eax, cr0
	op(0x0d)                   // or eax, PG
	imm(0x80000000)
	op(0x0f, 0x22, 0xc0) // mov cr0, eax
	op(0x0f, 0x01, 0x15) // lgdt [image's GDT]
	imm(abi.DescPage + abi.GDTROff)
	op(0xea) // jmp KernelCS:next
	imm(abi.EntryPage + uint32(len(b)) + 6)
	b = le.AppendUint16(b, abi.KernelCS)
	op(0xbe) // mov esi, params
	imm(params)
	op(0xb8) // mov eax, entry
	imm(entry)
	op(0xff, 0xe0) // jmp rax
	return b
}

// TestLinuxEntry boots the image by its 64-bit entry point. Its PVH entry code
// is replaced by a loader that goes there.
func TestLinuxEntry(t *testing.T) {
	img, err := makeImage()
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(img)
	if err != nil {
		t.Fatal(err)
	}
	f, err := elf.NewFile(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	code := linuxLoader(uint32(f.Entry))
	if len(code) > 0x800 {
		t.Fatalf("the loader takes %d bytes", len(code))
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_LOAD && p.Vaddr == abi.EntryPage {
			copy(b[p.Off:], code)
		}
	}
	path := filepath.Join(t.TempDir(), "linux.img")
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
	each(t, func(t *testing.T, accel []string) {
		args := append([]string{"-M", "microvm", "-m", "64M", "-smp", "1", "-nodefaults", "-no-user-config", "-display", "none",
			"-serial", "stdio", "-no-reboot", "-kernel", path}, accel...)
		cmd := exec.Command("qemu-system-x86_64", args...)
		timer := time.AfterFunc(30*time.Second, func() { cmd.Process.Kill() })
		defer timer.Stop()
		out, _ := cmd.CombinedOutput()
		// The command line asks the guest to panic, which shows that it was
		// read; RDRAND and all else are as usual.
		for _, want := range []string{"guest: boot_us=", "memory=66714624", "panic: on purpose", "thurward: crash: the program exited with status 2"} {
			if !strings.Contains(string(out), want) {
				t.Errorf("no %q in the console:\n%.1500s", want, out)
			}
		}
	})
}
