package main

import (
	"encoding/binary"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

// What an XDP program may return (linux/bpf.h).
const (
	xdpAborted = 0
	xdpDrop    = 1
	xdpPass    = 2
)

// frameRoom is the length of the buffer that the generator gets: a stream of
// several lengths shortens the longest.
func (s *stream) frameRoom() int {
	if s.size != 0 {
		return s.size
	}
	return len(s.template)
}

// pause is how many multiplications, one after the other, the generator does
// before each frame that Linux is to forward as fast as it can: about half a
// microsecond's. Without them it offers some ten
// million frames a second, and by what it does with those that fl0's ring has no
// room for it is in the other processor's way, as no NIC is: Linux then forwards
// 15 % less (16 flows and 64 k, 9 rounds in turn) to 40 % (3 rounds of runs by
// themselves). With them it still offers more than Linux can do; twice the pause
// gives Linux no more.
const pause = 500

// generatorProgram is stream.fill in the kernel: each run writes the stream's
// next frame over the one it is given and sends it to a device. What comes next
// is the first value of the map. The whole header is written anew, because the
// kernel uses a buffer again with what a firewall has made of it; of the payload,
// which it does not touch, the buffer must hold the stream's.
func generatorProgram(st *stream, next *ebpf.Map, ifindex, pause int) *ebpf.ProgramSpec {
	const ( // registers that calls leave alone
		ctx   = asm.R6
		ln    = asm.R7
		i     = asm.R8
		frame = asm.R9
	)
	p := asm.Instructions{
		asm.Mov.Reg(ctx, asm.R1),
		asm.Mov.Imm(asm.R1, 1),
	}
	for range pause {
		p = append(p, asm.Mul.Imm(asm.R1, 3))
	}
	p = append(p,
		asm.LoadMapValue(asm.R1, next.FD(), 0),
		asm.LoadMem(i, asm.R1, 0, asm.DWord),
		asm.Mov.Reg(asm.R2, i),
		asm.Add.Imm(asm.R2, 1),
		asm.StoreMem(asm.R1, 0, asm.R2, asm.DWord))
	if st.size != 0 {
		p = append(p, asm.Mov.Imm(ln, int32(st.size)))
	} else {
		p = append(p, asm.Mod.Imm(asm.R2, int32(len(imix))))
		for k, size := range imix {
			p = append(p, asm.Mov.Imm(ln, int32(size)), asm.JEq.Imm(asm.R2, int32(k), "cut"))
		}
		p = append(p,
			asm.Mov.Reg(asm.R1, ctx).WithSymbol("cut"),
			asm.Mov.Reg(asm.R2, ln),
			asm.Sub.Imm(asm.R2, int32(st.frameRoom())),
			asm.FnXdpAdjustTail.Call(),
			asm.JNE.Imm(asm.R0, 0, "abort"))
	}
	if !st.fresh {
		p = append(p, asm.Mod.Imm(i, int32(st.flows)))
	}
	p = append(p,
		asm.LoadMem(frame, ctx, 0, asm.Word),  // xdp_md.data
		asm.LoadMem(asm.R1, ctx, 4, asm.Word), // xdp_md.data_end
		asm.Mov.Reg(asm.R2, frame),
		asm.Add.Imm(asm.R2, 42),
		asm.JGT.Reg(asm.R2, asm.R1, "abort"))
	for o := 0; o < 24; o += 4 { // as far as the checksum all frames are alike, but for their length
		p = append(p, asm.StoreImm(frame, int16(o), int64(binary.LittleEndian.Uint32(st.template[o:])), asm.Word))
	}
	// R1: a scratch, R2: endpoint, then source port, R3: source, R4: destination,
	// R5: the sum of both addresses
	p = append(p,
		asm.Mov.Reg(asm.R2, i),
		asm.And.Imm(asm.R2, endpoints-1),
		asm.Mov.Reg(asm.R3, asm.R2),
		asm.RSh.Imm(asm.R3, 7),
		asm.LSh.Imm(asm.R3, 8),
		asm.Add.Imm(asm.R3, 10<<24|1<<16+1),
		asm.Mov.Reg(asm.R1, asm.R2),
		asm.And.Imm(asm.R1, 0x7f),
		asm.Add.Reg(asm.R3, asm.R1),
		asm.Mov.Reg(asm.R4, i),
		asm.RSh.Imm(asm.R4, 15),
		asm.And.Imm(asm.R4, 0x1ffff),
		asm.LoadImm(asm.R1, 198<<24|18<<16, asm.DWord),
		asm.Add.Reg(asm.R4, asm.R1),
		asm.Add.Imm(asm.R2, 1024),
		asm.Mov.Imm(asm.R5, 0))
	for _, address := range []asm.Register{asm.R3, asm.R4} {
		p = append(p,
			asm.Mov.Reg(asm.R1, address),
			asm.RSh.Imm(asm.R1, 16),
			asm.Add.Reg(asm.R5, asm.R1),
			asm.Mov.Reg(asm.R1, address),
			asm.And.Imm(asm.R1, 0xffff),
			asm.Add.Reg(asm.R5, asm.R1))
	}
	// The IP header.
	p = append(p, asm.Mov.Reg(asm.R0, ln), asm.Sub.Imm(asm.R0, 14))
	p = append(p, storeBE(frame, 16, asm.R0, asm.Half)...)
	p = append(p,
		asm.Mov.Reg(asm.R0, ln),
		asm.Add.Imm(asm.R0, int32(st.ipSum)-14),
		asm.Add.Reg(asm.R0, asm.R5))
	p = append(p, storeSum(frame, 24, asm.R0)...)
	p = append(p, storeBE(frame, 26, asm.R3, asm.Word)...)
	p = append(p, storeBE(frame, 30, asm.R4, asm.Word)...)
	// The UDP header.
	p = append(p, storeBE(frame, 34, asm.R2, asm.Half)...)
	p = append(p, asm.Mov.Imm(asm.R0, 9))
	p = append(p, storeBE(frame, 36, asm.R0, asm.Half)...)
	p = append(p, asm.Mov.Reg(asm.R0, ln), asm.Sub.Imm(asm.R0, 34))
	p = append(p, storeBE(frame, 38, asm.R0, asm.Half)...)
	p = append(p,
		asm.StoreImm(frame, 40, 0, asm.Half),
		asm.JNE.Imm(ln, 60, "send"), // the sum of no other payload is known
		asm.Mov.Reg(asm.R0, asm.R5),
		asm.Add.Reg(asm.R0, asm.R2),
		asm.Add.Imm(asm.R0, int32(17+2*(60-34)+9+payload60)))
	p = append(p, storeSum(frame, 40, asm.R0)...)
	p = append(p,
		asm.Mov.Imm(asm.R1, int32(ifindex)).WithSymbol("send"),
		asm.Mov.Imm(asm.R2, 0),
		asm.FnRedirect.Call(),
		asm.Return(),
		asm.Mov.Imm(asm.R0, xdpAborted).WithSymbol("abort"),
		asm.Return())
	return xdpProgram("generator", p)
}

// storeBE stores a register in network order. R1 is lost.
func storeBE(frame asm.Register, offset int16, v asm.Register, size asm.Size) asm.Instructions {
	return asm.Instructions{asm.Mov.Reg(asm.R1, v), asm.HostTo(asm.BE, asm.R1, size), asm.StoreMem(frame, offset, asm.R1, size)}
}

// storeSum stores the Internet checksum whose sum is in a register. The register
// and R1 are lost.
func storeSum(frame asm.Register, offset int16, sum asm.Register) asm.Instructions {
	p := asm.Instructions{}
	for range 2 {
		p = append(p, asm.Mov.Reg(asm.R1, sum), asm.RSh.Imm(asm.R1, 16), asm.And.Imm(sum, 0xffff), asm.Add.Reg(sum, asm.R1))
	}
	p = append(p, asm.Xor.Imm(sum, -1))
	return append(p, storeBE(frame, offset, sum, asm.Half)...)
}

// passProgram hands every frame to the stack.
func passProgram() *ebpf.ProgramSpec {
	return xdpProgram("pass", asm.Instructions{asm.Mov.Imm(asm.R0, xdpPass), asm.Return()})
}

// sinkProgram counts every frame in the first value of a map, for each processor
// by itself, and drops it.
func sinkProgram(count *ebpf.Map) *ebpf.ProgramSpec {
	return xdpProgram("sink", asm.Instructions{
		asm.StoreImm(asm.RFP, -4, 0, asm.Word),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, -4),
		asm.LoadMapPtr(asm.R1, count.FD()),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "drop"),
		asm.LoadMem(asm.R1, asm.R0, 0, asm.DWord),
		asm.Add.Imm(asm.R1, 1),
		asm.StoreMem(asm.R0, 0, asm.R1, asm.DWord),
		asm.Mov.Imm(asm.R0, xdpDrop).WithSymbol("drop"),
		asm.Return(),
	})
}

func xdpProgram(name string, p asm.Instructions) *ebpf.ProgramSpec {
	return &ebpf.ProgramSpec{Name: name, Type: ebpf.XDP, Instructions: p, License: "Apache-2.0"}
}

// nextMap is the map of generatorProgram, which begins with a frame.
func nextMap(first uint64) (*ebpf.Map, error) {
	m, err := ebpf.NewMap(&ebpf.MapSpec{Name: "next", Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 1})
	if err != nil {
		return nil, err
	}
	return m, m.Put(uint32(0), first)
}

// countMap is the map of sinkProgram.
func countMap() (*ebpf.Map, error) {
	return ebpf.NewMap(&ebpf.MapSpec{Name: "arrived", Type: ebpf.PerCPUArray, KeySize: 4, ValueSize: 8, MaxEntries: 1})
}

// total adds up a map of sinkProgram.
func total(count *ebpf.Map) (n uint64, err error) {
	var each []uint64
	err = count.Lookup(uint32(0), &each)
	for _, v := range each {
		n += v
	}
	return n, err
}
