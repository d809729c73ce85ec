// The monitor: everything that runs in ring 0. It takes the CPU from the
// loader's state to ring 3, passes exceptions and interrupts on to the kernel
// in ring 3, and does for it the few things that only ring 0 may do: see
// monitor_calls_amd64.s. Its state is abi.Monitor, abi.Trap and abi.Shared. It uses
// integer instructions only: hosts whose KVM emulates ring 0 lack the others, and
// take a microsecond for each of these.
//
// The linker gives the pages from monitorStart to monitorEnd to ring 0.

#include "textflag.h"
#include "go_asm.h"

// GAP is more than half a page, on a boundary of half a page, that is never run:
// a page boundary lies in it or before it, and so no code of ring 3 on a page of
// the monitor.
#define GAP \
	PCALIGN $2048; \
	UD2; \
	PCALIGN $2048; \
	UD2

TEXT ·monitorStart(SB), NOSPLIT|NOFRAME, $0
	GAP

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
	XORL AX, AX
	CPUID
	CMPL AX, $13                  // the leaf that says what XSAVE saves
	JCS  noxsave
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
	MOVQ AX, CR4                  // the rest follows in enter
	MOVQ $·syscallProbe(SB), SI
	MOVQ $·start(SB), DI
	JMP  ·toRing3(SB)
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

// boot64AP continues APEntry: a further processor in long mode, with page tables of its
// own. The boot processor has found that the processor has what is needed.
TEXT ·boot64AP(SB), NOSPLIT|NOFRAME, $0
	XORL AX, AX
	MOVW AX, DS
	MOVW AX, ES
	MOVW AX, FS
	MOVW AX, GS
	MOVW AX, SS
	MOVQ $const_trapTop, SP       // a page of ring 0: SMAP is on before ring 3 is entered
	MOVQ $const_idtr, AX
	LIDT (AX)
	ANDB $~2, const_tssType       // busy, by another processor. None writes to a TSS in long mode
	MOVL $const_tssSel, AX
	LTR  AX
	MOVQ const_startCR4, AX
	MOVQ AX, CR4
	MOVQ const_startLSTAR, SI
	MOVQ $·startAP(SB), DI
	JMP  ·toRing3(SB)

// toRing3 sets what a processor needs that runs ring 3, with SYSCALL's target SI, and
// goes to DI there.
TEXT ·toRing3(SB), NOSPLIT|NOFRAME, $0
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
	MOVQ SI, AX
	XORL DX, DX
	WRMSR
	// SFMASK clears AC, NT, TF and DF, but not IF: where SYSCALL stays in
	// ring 3, nothing could set IF again. (IRETQ fails with NT set.)
	MOVL $0xc0000084, CX
	MOVL $0x44500, AX
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
	PUSHQ DI
	IRETQ

// ---- SYSCALL ----

// syscallBounce is LSTAR's target where SYSCALL enters ring 0: back to ring 3
// at syscallEntry, with RCX and R11 as SYSCALL left them. Interrupts are on;
// they use a stack of their own (IST1) and are then only noted.
TEXT ·syscallBounce(SB), NOSPLIT|NOFRAME, $0
	MOVQ SP, const_bounceSP
	MOVQ $const_bounceFrame, SP
	IRETQ

// ---- exceptions ----

// A stub for each vector. The CPU has pushed its frame below TrapTop, with CS at
// the offset cs, 16 where there is an error code and 8 where not. The stub notes
// the vector and leaves for faultEntry in ring 3.
#define EXCEPTION(name, n, cs) \
TEXT name(SB), NOSPLIT|NOFRAME, $0 \
	MOVL  $n, const_trapVector; \
	TESTB $3, cs(SP); \
	JNE   2(PC); \
	JMP   ·monitorFault(SB); \
	ORL   $2, const_inKernel0; \
	MOVQ  $const_faultFrame, SP; \
	IRETQ

// monitorFault is where a fault of the monitor itself leads: there is nothing to
// go back to.
TEXT ·monitorFault(SB), NOSPLIT|NOFRAME, $0
	ORL  $8, const_inKernel0
	MOVQ $const_crashFrame, SP
	IRETQ

// The same for what may strike anywhere: straight to the crash report.
#define ABORT(name, n) \
TEXT name(SB), NOSPLIT|NOFRAME, $0 \
	MOVL $n, const_trapVector; \
	ORL  $4, const_inKernel0; \
	MOVQ $const_crashFrame, SP; \
	IRETQ

EXCEPTION(·vector0, 0, 8)
EXCEPTION(·vector1, 1, 8)
EXCEPTION(·vector3, 3, 8)
EXCEPTION(·vector4, 4, 8)
EXCEPTION(·vector5, 5, 8)
EXCEPTION(·vector7, 7, 8)
ABORT(·vector8, 8)
EXCEPTION(·vector9, 9, 8)
EXCEPTION(·vector10, 10, 16)
EXCEPTION(·vector11, 11, 16)
EXCEPTION(·vector12, 12, 16)
EXCEPTION(·vector13, 13, 16)
EXCEPTION(·vector15, 15, 8)
EXCEPTION(·vector16, 16, 8)
EXCEPTION(·vector17, 17, 16)
ABORT(·vector18, 18)
EXCEPTION(·vector19, 19, 8)
EXCEPTION(·vector20, 20, 8)
EXCEPTION(·vector21, 21, 16)
EXCEPTION(·vector22, 22, 8)
EXCEPTION(·vector23, 23, 8)
EXCEPTION(·vector24, 24, 8)
EXCEPTION(·vector25, 25, 8)
EXCEPTION(·vector26, 26, 8)
EXCEPTION(·vector27, 27, 8)
EXCEPTION(·vector28, 28, 8)
EXCEPTION(·vector29, 29, 16)
EXCEPTION(·vector30, 30, 16)
EXCEPTION(·vector31, 31, 8)

// vector2 is the NMI: the host's, at which the kernel reports where it was, or that of a
// processor that has stopped the others.
TEXT ·vector2(SB), NOSPLIT|NOFRAME, $0
	CMPL const_stopping, $0
	JNE  stopped
report:
	MOVL $2, const_trapVector
	ORL  $4, const_inKernel0
	MOVQ $const_crashFrame, SP
	IRETQ
stopped:
	MOVL const_number0, AX
	INCL AX
	CMPL AX, const_stopping
	JEQ  report
	PUSHQ BP                      // below the frame, where an error code would be: see putOthers
	JMP  ·stand(SB)

// stand is where a processor stays that another has stopped, AX being its number and
// one. Its frame is kept, and told.
TEXT ·stand(SB), NOSPLIT|NOFRAME, $0
	MOVL $1, (const_stoppedAt0-4)(AX*4)
halt:
	CLI
	HLT
	JMP  halt

TEXT ·vector14(SB), NOSPLIT|NOFRAME, $0
	MOVQ AX, const_r0AX
	MOVQ CR2, AX
	MOVQ AX, const_trapCR2
	MOVQ const_r0AX, AX
	MOVL $14, const_trapVector
	TESTB $3, 16(SP)
	JNE  2(PC)
	JMP  ·monitorFault(SB)
	ORL  $2, const_inKernel0
	MOVQ $const_faultFrame, SP
	IRETQ

// vector6 (#UD) is also the way to call the monitor: an UD2 at monitorCall.
TEXT ·vector6(SB), NOSPLIT|NOFRAME, $0
	MOVQ AX, const_r0AX
	LEAQ ·monitorCall(SB), AX
	CMPQ AX, 0(SP)
	JNE  invalid
	ADDQ $2, 0(SP)                // past the UD2
	MOVQ const_r0AX, AX
	JMP  ·calls(SB)
invalid:
	MOVQ const_r0AX, AX
	MOVL $6, const_trapVector
	TESTB $3, 8(SP)
	JNE  2(PC)
	JMP  ·monitorFault(SB)
	ORL  $2, const_inKernel0
	MOVQ $const_faultFrame, SP
	IRETQ

// ---- interrupts ----

#define INTERRUPT(name, bit) \
TEXT name(SB), NOSPLIT|NOFRAME, $0 \
	ORL $bit, const_pending0; \
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

// interrupt goes to the kernel at once when the program was interrupted; the
// kernel ends it with MonEOI, until when no other can overwrite its frame. In
// ring 0 and in the kernel it is only noted, in pending: the kernel looks
// there before it returns. leaveKernel's 64 bytes are the window between
// that look and the return; there it is made to look again.
TEXT ·interrupt(SB), NOSPLIT|NOFRAME, $0
	TESTB $3, 8(SP)
	JEQ  noted
	CMPL const_inKernel0, $0
	JNE  noted
	MOVQ AX, const_r0AX
	LEAQ ·leaveKernel(SB), AX
	NEGQ AX
	ADDQ 0(SP), AX
	CMPQ AX, $64
	JCS  again
	MOVL $1, const_inKernel0
	MOVL $1, const_owesEOI0
	MOVQ const_r0AX, AX
	MOVQ $const_irqFrame, SP
	IRETQ
again:
	LEAQ ·leaveKernel(SB), AX
	MOVQ AX, 0(SP)
	MOVQ const_r0AX, AX
noted:
	MOVL $0, const_lapicEOI0
	IRETQ

// vector48 is FlushVector: another processor has changed mappings, and waits until this
// one has forgotten its own. It comes at any time, also while an interrupt of the other
// class has not been ended, and leaves no trace.
TEXT ·vector48(SB), NOSPLIT|NOFRAME, $0
	PUSHQ AX
	MOVQ CR3, AX
	MOVQ AX, CR3
	MOVL const_number0, AX
	INCL const_flushed0(AX*4)     // only this processor writes there
	MOVL $0, const_lapicEOI0
	POPQ AX
	IRETQ

// spurious is where vectors lead that nothing should raise, the LAPIC's
// spurious vector among them.
TEXT ·spurious(SB), NOSPLIT|NOFRAME, $0
	IRETQ
