// Ring 3's side of entering and leaving the kernel. There is one kernel
// stack on each processor: the kernel is never preempted, only interrupted to note
// something in pending. Addresses that are constants lead to the processor's own
// memory, those of symbols to what all share.
//
// inKernel, pending: see abi.Shared. Frames that the CPU pushed are read where
// ring 3 sees the trap page (const_trapFrameAt, const_irqFrameAt): read-only, of
// which IRETQ takes no notice.

#include "textflag.h"
#include "go_asm.h"

// JUMP goes to a function where BX is free. The linker adds up stack use along
// direct jumps, and these go round in a circle, each with a stack of its own.
#define JUMP(f) \
	LEAQ f(SB), BX; \
	JMP BX

// PUSHREGS and POPREGS save and restore what a frame holds below the vector.
#define PUSHREGS \
	PUSHQ AX; \
	PUSHQ BX; \
	PUSHQ CX; \
	PUSHQ DX; \
	PUSHQ SI; \
	PUSHQ DI; \
	PUSHQ BP; \
	PUSHQ R8; \
	PUSHQ R9; \
	PUSHQ R10; \
	PUSHQ R11; \
	PUSHQ R12; \
	PUSHQ R13; \
	PUSHQ R14; \
	PUSHQ R15

#define POPREGS \
	POPQ R15; \
	POPQ R14; \
	POPQ R13; \
	POPQ R12; \
	POPQ R11; \
	POPQ R10; \
	POPQ R9; \
	POPQ R8; \
	POPQ BP; \
	POPQ DI; \
	POPQ SI; \
	POPQ DX; \
	POPQ CX; \
	POPQ BX; \
	POPQ AX

// GOENV sets up what compiled Go code expects: the thread-local g, the zero
// register X15, a frame pointer that ends. g is a block of zeros whose stack
// limit never triggers: the stacks have guard pages instead.
#define GOENV \
	MOVQ $const_tlsEnd, CX; \
	WRFSBASEQ CX; \
	MOVQ $const_fakeG, R14; \
	XORPS X15, X15; \
	XORL BP, BP

#define USERFS \
	MOVQ const_userFS, CX; \
	WRFSBASEQ CX

// XSAVEALL and XRSTORALL use the area at CX and clobber AX and DX. They name
// the components instead of leaving it to XCR0: where ring 3 runs natively
// under a software KVM, XCR0 is the host's and may hold AMX tiles too (8 KB).
#define XSAVEALL \
	MOVL $const_xFeatures, AX; \
	XORL DX, DX; \
	XSAVE64 (CX)

#define XRSTORALL \
	MOVL $const_xFeatures, AX; \
	XORL DX, DX; \
	XRSTOR64 (CX)

// start is the first code in ring 3. One SYSCALL tells where it leads: to ring
// 0, as the architecture says, or, on hypervisors that run the guest's kernel
// unprivileged, to ring 3.
TEXT ·start(SB), NOSPLIT|NOFRAME, $0
	MOVQ $const_fakeG, AX
	MOVQ AX, const_tls
	SYSCALL                       // to syscallProbe
	MOVQ $const_kernelTop, SP
	GOENV
	SUBQ $16, SP
	CALL ·kmain(SB)
	MOVQ 0(SP), AX
	JUMP(·resume)

// startAP is the first code of a further processor in ring 3. The boot processor has
// filled in its page: see processors.go.
TEXT ·startAP(SB), NOSPLIT|NOFRAME, $0
	MOVQ $const_kernelTop, SP
	GOENV
	SUBQ $16, SP
	CALL ·kprocessor(SB)
	MOVQ 0(SP), AX
	JUMP(·resume)

// syscallProbe is LSTAR's first target. In ring 0 it runs before the monitor
// forbids ring 3's pages there.
TEXT ·syscallProbe(SB), NOSPLIT|NOFRAME, $0
	BYTE $0x8c; BYTE $0xc8        // MOVL CS, AX
	TESTL $3, AX
	JEQ  ring0
	MOVL $1, ·syscallNative(SB)
	JMP  CX
ring0:
	MOVQ SP, AX
	PUSHQ $const_userDS
	PUSHQ AX
	PUSHQ R11
	PUSHQ $const_userCS
	PUSHQ CX
	IRETQ

// monitorCall asks the monitor: the operation in AX (see abi.MonSet).
TEXT ·monitorCall(SB), NOSPLIT|NOFRAME, $0
	UD2
	RET

// syscallEntry is SYSCALL's target in ring 3: RCX holds the return address,
// R11 the flags, RSP is the program's. Only RAX, RCX and R11 may change, and
// the vector registers, which callers of system calls do not rely on.
TEXT ·syscallEntry(SB), NOSPLIT|NOFRAME, $0
	CMPL const_inKernel, $0
	JNE  lost
	MOVL $1, const_inKernel
	MOVQ SP, const_saveSP
	MOVQ const_curTop, SP
	PUSHQ $const_userDS
	PUSHQ const_saveSP
	PUSHQ R11
	PUSHQ $const_userCS
	PUSHQ CX
	SUBQ $16, SP
	PUSHREGS
	MOVQ SP, AX
	MOVQ $const_kernelTop, SP
	GOENV
	SUBQ $16, SP
	MOVQ AX, 0(SP)
	CALL ·ksyscall(SB)
	MOVQ 8(SP), AX
	TESTQ AX, AX
	JNE  other
	MOVQ const_userFS, CX          // back to the same thread
	WRFSBASEQ CX
	MOVQ const_curTop, SP
	SUBQ $const_frameSize, SP
	POPREGS
	MOVQ 40(SP), SP               // vec err rip cs rflags [rsp]
	MOVL $0, const_inKernel
	CMPL const_pending, $0
	JNE  late
	JMP  CX
other:
	JUMP(·resume)
lost:                              // not a system call: see exits below
	MOVQ const_exitSP, SP
	MOVQ const_exitRIP, R11
	JMP  R11
late:                              // an interrupt was noted meanwhile
	MOVL $1, const_inKernel
	MOVQ SP, const_saveSP
	MOVQ const_curTop, SP
	PUSHQ $const_userDS
	PUSHQ const_saveSP
	PUSHQ R11
	PUSHQ $const_userCS
	PUSHQ CX
	SUBQ $16, SP
	PUSHREGS
	JUMP(·pendingWork)

// resume continues the thread whose frame AX points to.
TEXT ·resume(SB), NOSPLIT|NOFRAME, $0
	USERFS
	MOVQ AX, SP
	MOVQ const_resumeXS, CX
	TESTQ CX, CX
	JEQ  regs
	XRSTORALL
	MOVQ $0, const_resumeXS
regs:
	POPREGS
	ADDQ $16, SP
	JMP  ·leaveKernel(SB)

// leaveKernel returns to the program through the frame at SP, with all
// registers live. It must fit into 64 bytes: see interrupt in the monitor. While
// inKernel is 0 no instruction outside of them may run: an interrupt there would be
// taken for the program's, and overwrite the frame at SP, which is the thread's.
TEXT ·leaveKernel(SB), NOSPLIT|NOFRAME, $0
	MOVL $0, const_inKernel
	CMPL const_pending, $0
	JNE  look
	IRETQ
look:                              // an interrupt was noted just before the return
	MOVL $1, const_inKernel
	JMP  ·lookAgain(SB)

// lookAgain does what is pending; SP points to the return frame.
TEXT ·lookAgain(SB), NOSPLIT|NOFRAME, $0
	MOVQ AX, const_saveAX
	MOVQ SP, AX
	JMP  ·saveFrame(SB)

// interruptEntry: the program was interrupted; the CPU's frame lies below
// IRQTop.
TEXT ·interruptEntry(SB), NOSPLIT|NOFRAME, $0
	MOVQ AX, const_saveAX
	MOVQ $const_irqFrameAt, AX
	JMP  ·saveFrame(SB)

// saveFrame completes the current thread's frame from the return frame at AX,
// the saved AX, and the live registers.
TEXT ·saveFrame(SB), NOSPLIT|NOFRAME, $0
	MOVQ const_curTop, SP
	PUSHQ 32(AX)
	PUSHQ 24(AX)
	PUSHQ 16(AX)
	PUSHQ 8(AX)
	PUSHQ 0(AX)
	SUBQ $16, SP
	MOVQ const_saveAX, AX
	PUSHREGS
	JUMP(·pendingWork)

// pendingWork handles what interrupts noted, the current thread's integer
// registers being saved.
TEXT ·pendingWork(SB), NOSPLIT|NOFRAME, $0
	MOVQ const_curXS, CX
	XSAVEALL
	MOVQ $const_kernelTop, SP
	GOENV
	SUBQ $16, SP
	CALL ·kpending(SB)
	MOVQ 0(SP), AX
	JUMP(·resume)

// faultEntry handles an exception, of the program or of the kernel; the CPU's
// frame lies below TrapTop, until the next call of the monitor. An exception
// inside it ends in crashEntry.
TEXT ·faultEntry(SB), NOSPLIT|NOFRAME, $0
	CMPL const_inFault, $0
	JNE  nested
	MOVL $1, const_inFault
	SUBQ $56, SP                  // vec to ss
	PUSHREGS
	MOVQ SP, BX
	MOVQ $const_trapFrameAt, CX
	MOVQ -8(CX), AX
	MOVQ AX, const_frameErr(BX)   // anything, where the exception has no error code
	MOVQ 0(CX), AX
	MOVQ AX, const_frameErr+8(BX)
	MOVQ 8(CX), AX
	MOVQ AX, const_frameErr+16(BX)
	MOVQ 16(CX), AX
	MOVQ AX, const_frameErr+24(BX)
	MOVQ 24(CX), AX
	MOVQ AX, const_frameErr+32(BX)
	MOVQ 32(CX), AX
	MOVQ AX, const_frameErr+40(BX)
	MOVQ $const_faultXS, CX
	XSAVEALL
	RDFSBASEQ R12
	GOENV
	PUSHQ R12
	SUBQ $24, SP
	MOVQ BX, 0(SP)
	CALL ·kfault(SB)
	MOVQ 8(SP), AX
	ADDQ $24, SP
	POPQ R12
	TESTQ AX, AX
	JNE  signal
	WRFSBASEQ R12
	MOVQ $const_faultXS, CX
	XRSTORALL
	POPREGS
	ADDQ $16, SP                  // vec, err
	MOVL $0, const_inFault
	TESTL $1, const_inKernel
	JNE  kernel
	JMP  ·leaveKernel(SB)         // clears inKernel inside the guarded window
kernel:
	ANDL $~2, const_inKernel
	IRETQ
signal:                            // the thread's frame is filled in; tell it
	MOVL $1, const_inKernel
	MOVL $0, const_inFault
	MOVQ $const_kernelTop, SP
	GOENV
	SUBQ $16, SP
	CALL ·ksignal(SB)
	MOVQ 0(SP), AX
	JUMP(·resume)
nested:
	MOVQ $const_crashTop, SP
	JMP  ·crashEntry(SB)

// crashEntry reports what cannot be handled, with the registers as they are.
TEXT ·crashEntry(SB), NOSPLIT|NOFRAME, $0
	ORL  $4, const_inKernel
	SUBQ $56, SP
	PUSHREGS
	MOVQ SP, BX
	GOENV
	SUBQ $16, SP
	MOVQ BX, 0(SP)
	CALL ·kabort(SB)
	UD2

// signalEntry runs in the thread that a signal interrupts: it keeps the vector
// registers across the handler (AX) and then asks for rt_sigreturn. BX points
// to the XSAVE area in the signal frame, SP to its ucontext; DI, SI and DX are
// the handler's arguments.
TEXT ·signalEntry(SB), NOSPLIT|NOFRAME, $0
	MOVQ AX, R12
	MOVQ DX, R13
	XORL AX, AX                   // XSAVE leaves what it does not save alone in its header, XRSTOR checks it
	MOVQ AX, 512(BX)
	MOVQ AX, 520(BX)
	MOVQ AX, 528(BX)
	MOVQ AX, 536(BX)
	MOVQ AX, 544(BX)
	MOVQ AX, 552(BX)
	MOVQ AX, 560(BX)
	MOVQ AX, 568(BX)
	MOVQ BX, CX
	XSAVEALL
	MOVQ R13, DX
	CALL R12
	MOVL $15, AX                  // rt_sigreturn, which restores them
	SYSCALL
	UD2

// vdsoClockGettime is __vdso_clock_gettime(clockid DI, *timespec SI) with the
// C calling convention. It must not use the stack beyond the return address.
TEXT ·vdsoClockGettime(SB), NOSPLIT|NOFRAME, $0
	CMPL DI, $1
	JHI  kernel
	MOVQ $const_clockPage, R8
again:
	MOVL 0(R8), R9                // version: odd while the host writes
	TESTL $1, R9
	JNE  again
	RDTSC
	SHLQ $32, DX
	ORQ  DX, AX
	SUBQ 8(R8), AX
	MOVBLSX 28(R8), CX
	TESTL CX, CX
	JLT  right
	SHLQ CX, AX
	JMP  scale
right:
	NEGL CX
	SHRQ CX, AX
scale:
	MOVL 24(R8), DX
	MULQ DX
	SHRQ $32, AX
	SHLQ $32, DX
	ORQ  DX, AX
	ADDQ 16(R8), AX
	CMPL R9, 0(R8)
	JNE  again
	TESTL DI, DI
	JNE  split                    // CLOCK_MONOTONIC
	ADDQ const_clockWall(R8), AX
split:
	XORL DX, DX
	MOVQ $1000000000, CX
	DIVQ CX
	MOVQ AX, 0(SI)
	MOVQ DX, 8(SI)
	XORL AX, AX
	RET
kernel:
	MOVL $228, AX                 // clock_gettime
	SYSCALL
	RET

// ---- instructions that Go has no word for ----

// func rdtsc() uint64
TEXT ·rdtsc(SB), NOSPLIT, $0-8
	RDTSC
	SHLQ $32, DX
	ORQ  DX, AX
	MOVQ AX, ret+0(FP)
	RET

// func rdrand() (v uint64, ok bool)
TEXT ·rdrand(SB), NOSPLIT, $0-9
	RDRANDQ AX
	SETCS ok+8(FP)
	MOVQ AX, v+0(FP)
	RET

// func rdtscInOrder() uint64
TEXT ·rdtscInOrder(SB), NOSPLIT, $0-8
	LFENCE
	RDTSC
	LFENCE
	SHLQ $32, DX
	ORQ  DX, AX
	MOVQ AX, ret+0(FP)
	RET

// func pause()
TEXT ·pause(SB), NOSPLIT, $0-0
	PAUSE
	RET

// func cpuid(leaf, sub uint32) (a, b, c, d uint32)
TEXT ·cpuid(SB), NOSPLIT, $0-24
	MOVL leaf+0(FP), AX
	MOVL sub+4(FP), CX
	CPUID
	MOVL AX, a+8(FP)
	MOVL BX, b+12(FP)
	MOVL CX, c+16(FP)
	MOVL DX, d+20(FP)
	RET

// func outw(port, v uint16)
TEXT ·outw(SB), NOSPLIT, $0-4
	MOVW port+0(FP), DX
	MOVW v+2(FP), AX
	OUTW
	RET

// func outsb(port uint16, p uintptr, n uint64)
// One instruction, and with it few exits to the host, for a whole line.
TEXT ·outsb(SB), NOSPLIT, $0-24
	MOVW port+0(FP), DX
	MOVQ p+8(FP), SI
	MOVQ n+16(FP), CX
	CLD
	REP; OUTSB
	RET

// Exits to the host's user space. Software KVM, which runs ring 3 natively, has
// been seen to come back from one with RIP and RSP as they were at the last
// SYSCALL, that is at syscallEntry, all other registers being right. So every
// device access is made in the kernel (the program asks for it by a system
// call), and leaves its stack pointer and where to go on; syscallEntry, reached
// while the kernel runs, goes there.

#define EXIT(done) \
	MOVQ SP, const_exitSP; \
	LEAQ done(SB), R11; \
	MOVQ R11, const_exitRIP

// func load32(a uintptr) uint32
// A device register must be read with one 32-bit move.
TEXT ·load32(SB), NOSPLIT|NOFRAME, $0-12
	EXIT(·load32Done)
	MOVQ 8(SP), AX
	MOVL (AX), AX
	JMP  ·load32Done(SB)

TEXT ·load32Done(SB), NOSPLIT|NOFRAME, $0
	MOVL AX, 16(SP)
	RET

// func store32(a uintptr, v uint32)
TEXT ·store32(SB), NOSPLIT|NOFRAME, $0-12
	EXIT(·exitDone)
	MOVQ 8(SP), AX
	MOVL 16(SP), CX
	MOVL CX, (AX)
	RET

TEXT ·exitDone(SB), NOSPLIT|NOFRAME, $0
	RET

// func load16(a uintptr) uint16
TEXT ·load16(SB), NOSPLIT|NOFRAME, $0-10
	EXIT(·load16Done)
	MOVQ 8(SP), AX
	MOVW (AX), AX
	JMP  ·load16Done(SB)

TEXT ·load16Done(SB), NOSPLIT|NOFRAME, $0
	MOVW AX, 16(SP)
	RET

// func load8(a uintptr) uint8
TEXT ·load8(SB), NOSPLIT|NOFRAME, $0-9
	EXIT(·load8Done)
	MOVQ 8(SP), AX
	MOVB (AX), AX
	JMP  ·load8Done(SB)

TEXT ·load8Done(SB), NOSPLIT|NOFRAME, $0
	MOVB AX, 16(SP)
	RET

// func store16(a uintptr, v uint16)
TEXT ·store16(SB), NOSPLIT|NOFRAME, $0-10
	EXIT(·exitDone)
	MOVQ 8(SP), AX
	MOVW 16(SP), CX
	MOVW CX, (AX)
	RET

// func store8(a uintptr, v uint8)
TEXT ·store8(SB), NOSPLIT|NOFRAME, $0-9
	EXIT(·exitDone)
	MOVQ 8(SP), AX
	MOVB 16(SP), CX
	MOVB CX, (AX)
	RET

// func inb(port uint16) uint8
TEXT ·inb(SB), NOSPLIT|NOFRAME, $0-9
	EXIT(·load8Done)
	MOVW 8(SP), DX
	INB
	JMP  ·load8Done(SB)

// func inw(port uint16) uint16
TEXT ·inw(SB), NOSPLIT|NOFRAME, $0-10
	EXIT(·load16Done)
	MOVW 8(SP), DX
	INW
	JMP  ·load16Done(SB)

// func outb(port uint16, v uint8)
TEXT ·outb(SB), NOSPLIT|NOFRAME, $0-3
	EXIT(·exitDone)
	MOVW 8(SP), DX
	MOVB 10(SP), AX
	OUTB
	RET

// func inl(port uint16) uint32
TEXT ·inl(SB), NOSPLIT|NOFRAME, $0-12
	EXIT(·load32Done)
	MOVW 8(SP), DX
	INL
	JMP  ·load32Done(SB)

// func outl(port uint16, v uint32)
TEXT ·outl(SB), NOSPLIT|NOFRAME, $0-8
	EXIT(·exitDone)
	MOVW 8(SP), DX
	MOVL 12(SP), AX
	OUTL
	RET

// func monitor(op, bx, cx, dx, si uint64) uint64
TEXT ·monitor(SB), NOSPLIT, $0-48
	MOVQ op+0(FP), AX
	MOVQ bx+8(FP), BX
	MOVQ cx+16(FP), CX
	MOVQ dx+24(FP), DX
	MOVQ si+32(FP), SI
	CALL ·monitorCall(SB)
	MOVQ AX, ret+40(FP)
	RET

// func signalEntryAddr() uintptr
TEXT ·signalEntryAddr(SB), NOSPLIT, $0-8
	LEAQ ·signalEntry(SB), AX
	MOVQ AX, ret+0(FP)
	RET

// anchor is where the linker starts to look for what is needed; it names what
// only the image linker refers to. It never runs.
#define KEEP(f) MOVQ $f(SB), AX
TEXT ·anchor(SB), NOSPLIT|NOFRAME, $0
	KEEP(·monitorStart)
	KEEP(·monitorEnd)
	KEEP(·faultEntry)
	KEEP(·crashEntry)
	KEEP(·interruptEntry)
	KEEP(·syscallEntry)
	KEEP(·syscallProbe)
	KEEP(·start)
	KEEP(·startAP)
	KEEP(·boot64AP)
	KEEP(·entryLinux)
	KEEP(·boot64)
	KEEP(·vdsoClockGettime)
	KEEP(·spurious)
	KEEP(·vector0)
	KEEP(·vector1)
	KEEP(·vector2)
	KEEP(·vector3)
	KEEP(·vector4)
	KEEP(·vector5)
	KEEP(·vector6)
	KEEP(·vector7)
	KEEP(·vector8)
	KEEP(·vector9)
	KEEP(·vector10)
	KEEP(·vector11)
	KEEP(·vector12)
	KEEP(·vector13)
	KEEP(·vector14)
	KEEP(·vector15)
	KEEP(·vector16)
	KEEP(·vector17)
	KEEP(·vector18)
	KEEP(·vector19)
	KEEP(·vector20)
	KEEP(·vector21)
	KEEP(·vector22)
	KEEP(·vector23)
	KEEP(·vector24)
	KEEP(·vector25)
	KEEP(·vector26)
	KEEP(·vector27)
	KEEP(·vector28)
	KEEP(·vector29)
	KEEP(·vector30)
	KEEP(·vector31)
	KEEP(·vector32)
	KEEP(·vector33)
	KEEP(·vector34)
	KEEP(·vector35)
	KEEP(·vector36)
	KEEP(·vector37)
	KEEP(·vector38)
	KEEP(·vector39)
	KEEP(·vector40)
	KEEP(·vector41)
	KEEP(·vector42)
	KEEP(·vector43)
	KEEP(·vector44)
	KEEP(·vector45)
	KEEP(·vector46)
	KEEP(·vector47)
	KEEP(·vector48)
	UD2
