package main

import (
	"unsafe"

	"github.com/thurward/thurward/internal/guest/kernel/vm"
	"github.com/thurward/thurward/internal/shared/abi"
)

// minMemory is the least RAM with which the kernel goes on: less cannot hold
// the image, its page tables and a Go heap, and would fail later and less
// clearly.
const minMemory = 12 << 20

// record returns what the entry code and the linker left for the kernel.
func record() *abi.BootRecord { return at[abi.BootRecord](abi.BootPage) }

// info returns the page that tells the program about its machine.
func info() *abi.Info { return at[abi.Info](abi.InfoPage) }

// ram is a stretch of usable memory.
type ram struct{ start, end uint64 }

// loaded is what the loader told, copied from low memory before anything
// there is reused.
var loaded struct {
	ram     [16]ram
	nram    int
	total   uint64
	rsdp    uint64 // 0: not told
	cmd     [abi.MaxCmdline]byte
	cmdLen  int
	damaged bool
}

// low is where the loader's structures are read: the direct map's first 2 MiB
// are mapped read-only until dropLow.
func low[T any](pa uint64) *T { return at[T](abi.DirectBase + pa) }

const lowMax = 1 << 20

// kmain brings up the machine and returns the first thread's frame.
func kmain() uint64 {
	for i := range cpus {
		cpus[i].thread, cpus[i].armed = noThread, never
	}
	enterMonitor()
	readLoader()
	findPower() // reads ACPI tables, so that a refusal can power off
	readProcessors()
	checkMemory()
	findGeneral()
	mapDirect()
	initFrames()
	dropLow()
	initIRQ()
	initClock()
	initXSave()
	seedRandom()
	findDevices()
	startIOMMU()
	findGenerations()
	startKeyboard()
	startButton()
	initAreas()
	startProcessors()
	routeQueues()
	frame := startProgram()
	releaseProcessors()
	leave()
	return frame
}

// enterMonitor tells the monitor what SYSCALL does here and has it turn on what
// the CPU can forbid ring 0 (SMEP, SMAP) and ring 3 (UMIP).
func enterMonitor() {
	_, b, c, _ := cpuid(7, 0)
	smep, smap, umip := b>>7&1, b>>20&1, c>>2&1
	if _, sig, _, _ := cpuid(0x40000000, 0); sig == 0x54474354 { // "TCGT"
		// Before version 9.1 QEMU's TCG takes the stack of an IRETQ from ring 3
		// to ring 3 for an access of ring 0.
		smap = 0
	}
	monitor(monEnter, uint64(syscallNative), uint64(smep<<20|smap<<21|umip<<11), 0, 0)
}

// addRAM notes a stretch of RAM given by the loader.
func addRAM(start, size uint64) {
	end := start + size
	if size == 0 || end < start || loaded.nram == len(loaded.ram) {
		return
	}
	loaded.total += size
	loaded.ram[loaded.nram] = ram{start, end}
	loaded.nram++
}

func addCmdline(s uint64, n int, isLow bool) {
	if loaded.cmdLen > 0 && loaded.cmdLen < len(loaded.cmd) {
		loaded.cmd[loaded.cmdLen] = ' '
		loaded.cmdLen++
	}
	for i := 0; i < n && loaded.cmdLen < len(loaded.cmd); i++ {
		c := byte(0)
		if isLow {
			c = *low[byte](s + uint64(i))
		} else {
			c = *at[byte](s + uint64(i))
		}
		if c == 0 {
			break
		}
		loaded.cmd[loaded.cmdLen] = c
		loaded.cmdLen++
	}
}

// readLoader reads hvm_start_info (the PVH boot ABI of Xen) or Linux's
// boot_params. Everything must lie in the first MiB, as all known loaders
// have it.
func readLoader() {
	r := record()
	if r.CmdLen > 0 {
		addCmdline(r.Cmdline, int(min(r.CmdLen, abi.MaxCmdline)), false)
	}
	s := r.Start
	if s >= lowMax-4096 {
		refuse("the loader's start structure lies above 1 MiB")
	}
	var cmd uint64
	switch r.Kind {
	case abi.BootPVH:
		if *low[uint32](s) != 0x336ec578 {
			refuse("the loader passed no PVH start structure (wrong magic)")
		}
		cmd = *low[uint64](s + 24)
		loaded.rsdp = *low[uint64](s + 32)
		if *low[uint32](s + 4) >= 1 {
			m, n := *low[uint64](s + 40), uint64(*low[uint32](s + 48))
			if m < lowMax && n <= 128 && m+24*n <= lowMax {
				for i := uint64(0); i < n; i++ {
					if e := m + 24*i; *low[uint32](e + 16) == 1 {
						addRAM(*low[uint64](e), *low[uint64](e + 8))
					}
				}
			}
		}
	default:
		cmd = uint64(*low[uint32](s + 0x228))
		loaded.rsdp = *low[uint64](s + 0x70)
		for i := uint64(0); i < uint64(*low[uint8](s + 0x1e8)) && i < 128; i++ {
			if e := s + 0x2d0 + 20*i; *low[uint32](e + 16) == 1 {
				addRAM(*low[uint64](e), *low[uint64](e + 8))
			}
		}
	}
	if cmd != 0 && cmd < lowMax-abi.MaxCmdline {
		addCmdline(cmd, abi.MaxCmdline, true)
	}
}

// checkMemory refuses a machine that is too small, before anything fails less
// clearly.
func checkMemory() {
	if loaded.nram == 0 {
		refuse("the loader described no memory")
	}
	if loaded.total < minMemory {
		puts("thurward: refusing to start: the machine has ")
		putu(alignUp(loaded.total, 1<<20) >> 20)
		puts(" MB of memory; at least ")
		putu(minMemory>>20 + 1) // the hole below 1 MB is not among what counts
		puts(" MB are needed (give it more: --memory)\n")
		power(abi.PowerOff)
	}
}

// maxRAM is how far up memory is used.
const maxRAM = 64 << 30

// initFrames gives the allocator all general RAM. Its bitmap lies in the first
// frames of it.
func initFrames() {
	start, end := general[0].start, max(general[0].end, general[1].end)
	bits := alignUp(vm.BitmapBytes((end-start)/vm.FrameSize), vm.FrameSize)
	if start == 0 || start+bits > general[0].end {
		refuse("not enough memory behind the image (give it more: --memory)")
	}
	frames.Init(start, (end-start)/vm.FrameSize, uintptr(abi.DirectBase+start))
	frames.Give(start+bits, (general[0].end-start-bits)/vm.FrameSize)
	frames.Give(general[1].start, (general[1].end-general[1].start)/vm.FrameSize)
	totalFrames = loaded.total / vm.FrameSize
}

// The program's first stack holds these pairs.
const (
	atNull        = 0
	atPageSize    = 6
	atRandom      = 25
	atSysinfoEHDR = 33
)

// startProgram builds the first thread and its stack: argc, argv, the
// environment, the auxiliary vector (docs/platform.md). Boot arguments
// of the form NAME=value whose name is in capitals go into the environment.
func startProgram() uint64 {
	in, r := info(), record()
	in.Magic = abi.InfoMagic
	in.EntryNS = int64(clockAt(r.EntryTSC))
	in.MemoryBytes = loaded.total
	in.FreeBytes = frames.Free() * vm.FrameSize
	in.Policy, in.PolicyLen = r.Policy, r.PolicyLen
	in.Native = syscallNative
	in.ClockSource = clockSource
	in.CmdlineLen = uint32(loaded.cmdLen)
	in.Cmdline = loaded.cmd

	stack := uint64(abi.UserTop)
	text := uint64(abi.UserTop + 0x400)
	push := func(v uint64) {
		*at[uint64](stack) = v
		stack += 8
	}
	pushText := func(s string) {
		if stack+64 >= abi.UserTop+0x400 || text+uint64(len(s))+1 > abi.UserEnd {
			refuse("too many boot arguments")
		}
		push(text)
		copy(bytesAt(text, uint64(len(s))), s)
		*at[byte](text + uint64(len(s))) = 0
		text += uint64(len(s)) + 1
	}
	push(1)
	pushText("thurward")
	push(0)
	var limit [32]byte
	pushText(memoryLimit(&limit, in.FreeBytes/2))
	for i := 0; i < loaded.cmdLen; {
		j := i
		for j < loaded.cmdLen && loaded.cmd[j] != ' ' {
			j++
		}
		if isEnv(loaded.cmd[i:j]) {
			pushText(unsafe.String(&loaded.cmd[i], j-i))
		}
		i = j + 1
	}
	push(0)
	rnd := alignUp(text, 16)
	fillRandom(rnd, 16)
	push(atPageSize)
	push(4096)
	push(atRandom)
	push(rnd)
	push(atSysinfoEHDR)
	push(abi.VDSOPage)
	push(atNull)
	push(0)

	t := &threads[1]
	initThread(t)
	t.f.rip, t.f.rsp = r.Entry, abi.UserTop
	t.f.cs, t.f.ss, t.f.rflags = abi.UserCS, abi.UserDS, 0x202
	setCurrent(1)
	closeTables()
	return addr(&t.f)
}

// memoryLimit returns GOMEMLIMIT=n in b: Go cannot see how much memory there
// is, and would otherwise let its heap double until none is left.
func memoryLimit(b *[32]byte, n uint64) string {
	const name = "GOMEMLIMIT="
	k := copy(b[:], name)
	var d [20]byte
	i := len(d)
	for {
		i--
		d[i] = byte('0' + n%10)
		n /= 10
		if n == 0 {
			break
		}
	}
	k += copy(b[k:], d[i:])
	return unsafe.String(&b[0], k)
}

// isEnv reports whether a boot argument is an environment variable, as
// GODEBUG=gctrace=1 is.
func isEnv(s []byte) bool {
	for i, c := range s {
		if c == '=' {
			return i > 0
		}
		if c < 'A' || c > 'Z' {
			return false
		}
	}
	return false
}
