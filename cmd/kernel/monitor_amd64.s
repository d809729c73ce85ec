// The monitor: everything that runs in ring 0. It takes the CPU from the
// loader's state to ring 3, passes exceptions and interrupts on to the kernel
// in ring 3, and does for it the few things that only ring 0 may do. It keeps
// no state but the variables named here and uses integer instructions only:
// hosts whose KVM emulates ring 0 lack the others.

#include "textflag.h"
#include "go_asm.h"

// entryLinux is the image's ELF entry point: 64-bit mode, RSI points to
// struct boot_params (Linux x86 boot protocol, 64-bit entry). The loader's
// page tables map the image at its own addresses, as ours do.
TEXT ·entryLinux(SB), NOSPLIT|NOFRAME, $0
	CLI
	CLD
	RDTSC
	SHLQ $32, DX
	ORQ  DX, AX
	MOVQ $const_bootPage, BX
	MOVQ SI, const_recStart(BX)
	MOVQ AX, const_recTSC(BX)
	MOVQ $const_bootLinux, AX
	MOVQ AX, const_recKind(BX)
	MOVQ CR4, AX
	ORQ  $0x20, AX                // PAE
	MOVQ AX, CR4
	MOVL $0xc0000080, CX          // EFER: SCE, LME, NXE
	RDMSR
	ORL  $0x901, AX
	WRMSR
	MOVQ $const_tables, AX
	MOVQ AX, CR3
	MOVQ CR0, AX
	ANDL $0x9ffffff3, AX          // not CD, NW, TS, EM
	ORL  $0x80010023, AX          // PG, WP, NE, MP, PE
	MOVQ AX, CR0
	MOVQ $const_crashTop, SP
	MOVQ $const_gdtr, AX
	LGDT (AX)
	MOVQ $const_kernelCS, AX
	PUSHQ AX
	MOVQ $·boot64(SB), AX
	PUSHQ AX
	RETFQ

// boot64 continues both entries: long mode, our page tables and GDT.
TEXT ·boot64(SB), NOSPLIT|NOFRAME, $0
	XORL AX, AX
	MOVW AX, DS
	MOVW AX, ES
	MOVW AX, FS
	MOVW AX, GS
	MOVW AX, SS
	MOVQ $const_crashTop, SP
	MOVQ $const_idtr, AX
	LIDT (AX)
	MOVL $const_tssSel, AX
	LTR  AX
	// Firmware leaves the 8259s at vectors that are exceptions here. Ring 3
	// runs with interrupts on, so they are masked before it is entered.
	MOVL $0xff, AX
	MOVL $0x21, DX
	OUTB
	MOVL $0xa1, DX
	OUTB
	MOVL $1, AX
	CPUID
	BTL  $26, CX                  // XSAVE
	JCC  noxsave
	MOVL $7, AX
	XORL CX, CX
	CPUID
	BTL  $0, BX                   // FSGSBASE
	JCC  nofsgsbase
	MOVQ CR4, AX
	ORQ  $0x50600, AX             // OSXSAVE, FSGSBASE, OSXMMEXCPT, OSFXSR
	MOVQ AX, CR4
	MOVL $13, AX
	XORL CX, CX
	CPUID
	ANDL $const_xFeatures, AX
	XORL DX, DX
	XORL CX, CX
	XSETBV
	MOVL $0xc0000081, CX          // STAR: SYSCALL enters KernelCS
	XORL AX, AX
	MOVL $const_starHigh, DX
	WRMSR
	MOVL $0xc0000082, CX          // LSTAR
	MOVQ $·syscallProbe(SB), AX
	XORL DX, DX
	WRMSR
	// SFMASK clears AC, TF and DF, but not IF: where SYSCALL stays in
	// ring 3, nothing could set IF again.
	MOVL $0xc0000084, CX
	MOVL $0x40500, AX
	XORL DX, DX
	WRMSR
	MOVQ $const_userDS, AX
	PUSHQ AX
	MOVQ $const_kernelTop, AX
	PUSHQ AX
	MOVQ $0x202, AX
	PUSHQ AX
	MOVQ $const_userCS, AX
	PUSHQ AX
	MOVQ $·start(SB), AX
	PUSHQ AX
	IRETQ
noxsave:
	MOVQ ·msgXSave+0(SB), SI
	MOVQ ·msgXSave+8(SB), BX
	JMP  fail
nofsgsbase:
	MOVQ ·msgFSGSBase+0(SB), SI
	MOVQ ·msgFSGSBase+8(SB), BX
fail:
	MOVL $0x3f8, DX
next:
	MOVB (SI), AX
	OUTB
	INCQ SI
	DECQ BX
	JNE  next
	MOVL $0x604, DX               // power off where a port does it (QEMU q35, pc)
	MOVL $0x2000, AX
	OUTW
	MOVL $0x64, DX
	MOVL $0xfe, AX
	OUTB
	MOVL $0xcf9, DX
	MOVL $6, AX
	OUTB
stop:
	HLT
	JMP  stop

// ---- SYSCALL ----

// syscallProbe is LSTAR's first target. The kernel executes one SYSCALL at
// start to learn where it leads: to ring 0, as the architecture says, or, on
// hypervisors that run the guest's kernel unprivileged, to ring 3.
TEXT ·syscallProbe(SB), NOSPLIT|NOFRAME, $0
	BYTE $0x8c; BYTE $0xc8        // MOVL CS, AX
	TESTL $3, AX
	JEQ  ring0
	MOVL $1, ·syscallNative(SB)
	JMP  CX
ring0:
	MOVQ SP, ·bounceFrame+24(SB)
	MOVQ CX, ·bounceFrame+0(SB)
	LEAQ ·bounceFrame(SB), SP
	IRETQ

// syscallBounce is LSTAR's target where SYSCALL enters ring 0: back to ring 3
// at syscallEntry, with RCX and R11 as SYSCALL left them. Interrupts are on;
// they use a stack of their own (IST1) and are then only noted.
TEXT ·syscallBounce(SB), NOSPLIT|NOFRAME, $0
	MOVQ SP, ·bounceFrame+24(SB)
	LEAQ ·bounceFrame(SB), SP
	IRETQ

// ---- exceptions ----

// A stub for each vector. The CPU has pushed its frame below TrapTop; the
// stub notes the vector and leaves for faultEntry in ring 3.
#define EXCEPTION(name, n) \
TEXT name(SB), NOSPLIT|NOFRAME, $0 \
	MOVL $n, ·trapVector(SB); \
	ORL  $2, ·inKernel(SB); \
	LEAQ ·faultFrame(SB), SP; \
	IRETQ

// The same for what may strike anywhere: straight to the crash report.
#define ABORT(name, n) \
TEXT name(SB), NOSPLIT|NOFRAME, $0 \
	MOVL $n, ·trapVector(SB); \
	ORL  $4, ·inKernel(SB); \
	LEAQ ·crashFrame(SB), SP; \
	IRETQ

EXCEPTION(·vector0, 0)
EXCEPTION(·vector1, 1)
ABORT(·vector2, 2)
EXCEPTION(·vector3, 3)
EXCEPTION(·vector4, 4)
EXCEPTION(·vector5, 5)
EXCEPTION(·vector7, 7)
ABORT(·vector8, 8)
EXCEPTION(·vector9, 9)
EXCEPTION(·vector10, 10)
EXCEPTION(·vector11, 11)
EXCEPTION(·vector12, 12)
EXCEPTION(·vector13, 13)
EXCEPTION(·vector15, 15)
EXCEPTION(·vector16, 16)
EXCEPTION(·vector17, 17)
ABORT(·vector18, 18)
EXCEPTION(·vector19, 19)
EXCEPTION(·vector20, 20)
EXCEPTION(·vector21, 21)
EXCEPTION(·vector22, 22)
EXCEPTION(·vector23, 23)
EXCEPTION(·vector24, 24)
EXCEPTION(·vector25, 25)
EXCEPTION(·vector26, 26)
EXCEPTION(·vector27, 27)
EXCEPTION(·vector28, 28)
EXCEPTION(·vector29, 29)
EXCEPTION(·vector30, 30)
EXCEPTION(·vector31, 31)

TEXT ·vector14(SB), NOSPLIT|NOFRAME, $0
	MOVQ AX, ·r0AX(SB)
	MOVQ CR2, AX
	MOVQ AX, ·trapCR2(SB)
	MOVQ ·r0AX(SB), AX
	MOVL $14, ·trapVector(SB)
	ORL  $2, ·inKernel(SB)
	LEAQ ·faultFrame(SB), SP
	IRETQ

// vector6 (#UD) is also the way to call the monitor: an UD2 at monitorCall,
// the operation in AX. Sealing the page tables will add its operations here.
TEXT ·vector6(SB), NOSPLIT|NOFRAME, $0
	MOVQ AX, ·r0AX(SB)
	LEAQ ·monitorCall(SB), AX
	CMPQ AX, 0(SP)
	JNE  invalid
	ADDQ $2, 0(SP)                // past the UD2
	MOVQ ·r0AX(SB), AX
	CMPL AX, $const_monHalt
	JNE  wrmsr
	CMPL ·pending(SB), $0
	JNE  done                     // an interrupt came since the kernel looked
	STI
	HLT
	CLI
	IRETQ
wrmsr:
	CMPL AX, $const_monWRMSR
	JNE  flush
	MOVQ BX, AX                   // MSR in CX, value in BX
	MOVQ BX, DX
	SHRQ $32, DX
	WRMSR
	IRETQ
flush:
	CMPL AX, $const_monFlush
	JNE  mask
	MOVQ CR3, AX
	MOVQ AX, CR3
done:
	IRETQ
mask:
	CMPL AX, $const_monMask
	JNE  reset
	ANDL $~0x200, 16(SP)          // the caller goes on with interrupts off
	IRETQ
reset:
	CMPL AX, $const_monReset
	JNE  done
	MOVQ $const_gdtStart, AX      // a limit of zero: no exception can be delivered any more
	LIDT (AX)
	UD2
invalid:
	MOVQ ·r0AX(SB), AX
	MOVL $6, ·trapVector(SB)
	ORL  $2, ·inKernel(SB)
	LEAQ ·faultFrame(SB), SP
	IRETQ

// ---- interrupts ----

#define INTERRUPT(name, bit) \
TEXT name(SB), NOSPLIT|NOFRAME, $0 \
	ORL $bit, ·pending(SB); \
	JMP ·interrupt(SB)

INTERRUPT(·vector32, 0x0001)
INTERRUPT(·vector33, 0x0002)
INTERRUPT(·vector34, 0x0004)
INTERRUPT(·vector35, 0x0008)
INTERRUPT(·vector36, 0x0010)
INTERRUPT(·vector37, 0x0020)
INTERRUPT(·vector38, 0x0040)
INTERRUPT(·vector39, 0x0080)
INTERRUPT(·vector40, 0x0100)
INTERRUPT(·vector41, 0x0200)
INTERRUPT(·vector42, 0x0400)
INTERRUPT(·vector43, 0x0800)
INTERRUPT(·vector44, 0x1000)
INTERRUPT(·vector45, 0x2000)
INTERRUPT(·vector46, 0x4000)
INTERRUPT(·vector47, 0x8000)

// interrupt goes to the kernel at once when the program was interrupted. In
// ring 0 and in the kernel it is only noted, in pending: the kernel looks
// there before it returns. leaveKernel's 32 bytes are the window between
// that look and the return; there it is made to look again.
TEXT ·interrupt(SB), NOSPLIT|NOFRAME, $0
	TESTB $3, 8(SP)
	JEQ  noted
	CMPL ·inKernel(SB), $0
	JNE  noted
	MOVQ AX, ·r0AX(SB)
	LEAQ ·leaveKernel(SB), AX
	NEGQ AX
	ADDQ 0(SP), AX
	CMPQ AX, $32
	JCS  again
	MOVL $1, ·inKernel(SB)
	MOVQ ·r0AX(SB), AX
	LEAQ ·irqFrame(SB), SP
	IRETQ
again:
	LEAQ ·leaveKernel(SB), AX
	MOVQ AX, 0(SP)
	MOVQ ·r0AX(SB), AX
noted:
	IRETQ

// spurious is where vectors lead that nothing should raise, the LAPIC's
// spurious vector among them.
TEXT ·spurious(SB), NOSPLIT|NOFRAME, $0
	IRETQ
