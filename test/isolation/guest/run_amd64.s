#include "textflag.h"

// func run(code uintptr, r *regs)
// Calls code with the registers of r and puts into r what they are afterwards.
// A fault ends the call: handler makes the thread go on at landed.
TEXT ·run(SB), NOSPLIT|NOFRAME, $0-16
	MOVQ 8(SP), R8
	MOVQ 16(SP), R9
	PUSHQ BP
	PUSHQ R14
	PUSHQ R15
	MOVQ SP, ·savedSP(SB)
	MOVQ R9, ·savedRegs(SB)
	MOVQ $0, ·gotSignal(SB)
	MOVQ 0(R9), AX
	MOVQ 8(R9), BX
	MOVQ 16(R9), CX
	MOVQ 24(R9), DX
	MOVQ 32(R9), SI
	MOVQ 40(R9), DI
	CALL R8
	JMP  ·landed(SB)

TEXT ·landed(SB), NOSPLIT|NOFRAME, $0
	MOVQ ·savedSP(SB), SP
	CLD
	MOVQ ·savedRegs(SB), R9
	MOVQ AX, 0(R9)
	MOVQ BX, 8(R9)
	MOVQ CX, 16(R9)
	MOVQ DX, 24(R9)
	MOVQ SI, 32(R9)
	MOVQ DI, 40(R9)
	PUSHFQ
	POPQ AX
	MOVQ AX, 48(R9)
	PUSHQ $0x202
	POPFQ
	BYTE $0x8c; BYTE $0xc8        // MOVL CS, AX
	MOVQ AX, 56(R9)
	MOVQ 0(SP), R15
	MOVQ 8(SP), R14
	XCHGQ BP, 16(SP)
	ADDQ $24, SP
	XORPS X15, X15
	RET

// func callMonitor(at, ax, bx, cx, dx, si uint64) uint64
// The monitor's call by any thread: it keeps nothing in shared memory, and must not fault.
TEXT ·callMonitor(SB), NOSPLIT, $0-56
	MOVQ at+0(FP), DI
	MOVQ ax+8(FP), AX
	MOVQ bx+16(FP), BX
	MOVQ cx+24(FP), CX
	MOVQ dx+32(FP), DX
	MOVQ si+40(FP), SI
	CALL DI
	MOVQ AX, ret+48(FP)
	RET

// handler is the handler of every signal that an exception can become: the
// thread goes on at landed. DX points to the ucontext.
TEXT ·handler(SB), NOSPLIT|NOFRAME, $0
	MOVQ DI, ·gotSignal(SB)
	LEAQ ·landed(SB), AX
	MOVQ AX, 168(DX)
	MOVQ ·savedSP(SB), AX
	MOVQ AX, 160(DX)
	RET

// reached is where forged frames and registers lead. It notes the ring that it
// runs in and goes on at landed, in ring 3.
TEXT ·reached(SB), NOSPLIT|NOFRAME, $0
	BYTE $0x8c; BYTE $0xc8        // MOVL CS, AX
	MOVQ AX, ·reachedCS(SB)
	MOVL $0, 0x106000             // abi.Shared's InKernel
	MOVQ ·savedSP(SB), SP
	PUSHQ $0x2b
	PUSHQ ·savedSP(SB)
	PUSHQ $0x202
	PUSHQ $0x33
	LEAQ ·landed(SB), AX
	PUSHQ AX
	IRETQ

#define CODE(name) TEXT name(SB), NOSPLIT|NOFRAME, $0

CODE(·doRead)
	MOVQ (DI), AX
	RET
CODE(·doWrite)                     // the value that is there already
	MOVQ (DI), AX
	MOVQ AX, (DI)
	RET
CODE(·doWrite32)
	MOVL (DI), AX
	MOVL AX, (DI)
	RET
CODE(·doRead32)
	MOVL (DI), AX
	RET
CODE(·doJump)
	JMP  DI
CODE(·doSyscall)
	SYSCALL
	RET
CODE(·doUndefined)
	UD2
CODE(·doDivide)
	XORL DX, DX
	XORL CX, CX
	DIVQ CX
	RET
CODE(·doNull)
	XORL DI, DI
	MOVQ (DI), AX
	RET
CODE(·doSpin)
	DECQ CX
	JNE  -1(PC)
	RET
CODE(·doCall)                      // the monitor's call: its address in DI
	CALL DI
	RET

// The same instructions with a stack pointer of DI's choice.
CODE(·doSyscallRSP)
	MOVQ DI, SP
	SYSCALL
	JMP  ·landed(SB)
CODE(·doDivideRSP)
	MOVQ DI, SP
	XORL DX, DX
	XORL CX, CX
	DIVQ CX
CODE(·doUndefinedRSP)
	MOVQ DI, SP
	UD2
CODE(·doFaultRSP)
	MOVQ DI, SP
	MOVQ (SP), AX
	PUSHQ AX
	JMP  ·landed(SB)
CODE(·doInt3RSP)
	MOVQ DI, SP
	BYTE $0xcc
	JMP  ·landed(SB)

// The same with flags of DI's choice.
CODE(·doSyscallFlags)
	PUSHQ DI
	POPFQ
	SYSCALL
	JMP  ·landed(SB)
CODE(·doUndefinedFlags)
	PUSHQ DI
	POPFQ
	UD2
CODE(·doFlags)
	PUSHQ DI
	POPFQ
	NOP
	NOP
	RET
CODE(·doCallFlags)                 // the monitor's call at SI
	PUSHQ DI
	POPFQ
	CALL SI
	JMP  ·landed(SB)
CODE(·doCallRSP)                   // the monitor's call at SI, with DI as the stack
	MOVQ DI, SP
	JMP  SI

// Instructions of ring 0.
CODE(·doLGDT)
	LGDT (DI)
	RET
CODE(·doLIDT)
	LIDT (DI)
	RET
CODE(·doLLDT)
	XORL AX, AX
	BYTE $0x0f; BYTE $0x00; BYTE $0xd0
	RET
CODE(·doLTR)
	MOVL $0x38, AX
	LTR  AX
	RET
CODE(·doReadCR0)
	MOVQ CR0, AX
	RET
CODE(·doReadCR3)
	MOVQ CR3, AX
	RET
CODE(·doReadCR4)
	MOVQ CR4, AX
	RET
CODE(·doWriteCR0)
	MOVQ $0x80010023, AX
	MOVQ AX, CR0
	RET
CODE(·doWriteCR3)
	MOVQ DI, CR3
	RET
CODE(·doWriteCR4)
	MOVQ $0x50620, AX
	MOVQ AX, CR4
	RET
CODE(·doWriteCR8)
	XORL AX, AX
	BYTE $0x44; BYTE $0x0f; BYTE $0x22; BYTE $0xc0
	RET
CODE(·doWriteDR0)
	MOVQ DI, DR0
	RET
CODE(·doWriteDR7)
	MOVQ DI, DR7
	RET
CODE(·doReadDR7)
	MOVQ DR7, AX
	RET
CODE(·doRDMSR)
	RDMSR
	RET
CODE(·doWRMSR)
	WRMSR
	RET
CODE(·doCLI)
	CLI
	RET
CODE(·doSTI)
	STI
	RET
CODE(·doHLT)
	HLT
	RET
CODE(·doINVD)
	INVD
	RET
CODE(·doWBINVD)
	WBINVD
	RET
CODE(·doINVLPG)
	INVLPG (DI)
	RET
CODE(·doCLTS)
	CLTS
	RET
CODE(·doLMSW)
	MOVL $0x23, AX
	BYTE $0x0f; BYTE $0x01; BYTE $0xf0
	RET
CODE(·doXSETBV)
	XORL CX, CX
	XORL DX, DX
	MOVL $7, AX
	XSETBV
	RET
CODE(·doSWAPGS)
	SWAPGS
	RET
CODE(·doRDPMC)
	XORL CX, CX
	RDPMC
	RET
CODE(·doSYSRET)
	LEAQ ·reached(SB), CX
	MOVL $0x202, R11
	BYTE $0x48; BYTE $0x0f; BYTE $0x07
	RET
CODE(·doSYSEXIT)
	LEAQ ·reached(SB), DX
	MOVQ SP, CX
	BYTE $0x48; BYTE $0x0f; BYTE $0x35
	RET
CODE(·doSYSENTER)
	BYTE $0x0f; BYTE $0x34
	RET
CODE(·doIRET)                      // to CS DI, SS SI
	MOVQ SP, AX
	PUSHQ SI
	PUSHQ AX
	PUSHQ $0x202
	PUSHQ DI
	LEAQ ·reached(SB), AX
	PUSHQ AX
	IRETQ
CODE(·doIRETFlags)                 // to ring 3 with the flags DI
	MOVQ SP, AX
	PUSHQ $0x2b
	PUSHQ AX
	PUSHQ DI
	PUSHQ $0x33
	LEAQ ·landed(SB), AX
	PUSHQ AX
	IRETQ
CODE(·doIRETRIP)                   // to ring 3 at DI
	MOVQ SP, AX
	PUSHQ $0x2b
	PUSHQ AX
	PUSHQ $0x202
	PUSHQ $0x33
	PUSHQ DI
	IRETQ
CODE(·doRETF)
	PUSHQ DI
	LEAQ ·reached(SB), AX
	PUSHQ AX
	RETFQ
CODE(·doLoadSS)
	MOVL DI, AX
	MOVW AX, SS
	RET
CODE(·doLoadDS)
	MOVL DI, AX
	MOVW AX, DS
	XORL AX, AX
	MOVW AX, DS
	RET
CODE(·doINTDivide)
	BYTE $0xcd; BYTE $0x00
	RET
CODE(·doINTDebug)
	BYTE $0xcd; BYTE $0x01
	RET
CODE(·doINTNMI)
	BYTE $0xcd; BYTE $0x02
	RET
CODE(·doINTUndefined)
	BYTE $0xcd; BYTE $0x06
	RET
CODE(·doINTDouble)
	BYTE $0xcd; BYTE $0x08
	RET
CODE(·doINTPage)
	BYTE $0xcd; BYTE $0x0e
	RET
CODE(·doINTTimer)
	BYTE $0xcd; BYTE $0x20
	RET
CODE(·doINTSpurious)
	BYTE $0xcd; BYTE $0x3f
	RET
CODE(·doINTLinux)
	BYTE $0xcd; BYTE $0x80
	RET
CODE(·doINT3)
	BYTE $0xcc
	RET
CODE(·doICEBP)
	BYTE $0xf1
	RET
CODE(·doSGDT)
	BYTE $0x0f; BYTE $0x01; BYTE $0x07 // SGDT (DI)
	RET
CODE(·doSIDT)
	BYTE $0x0f; BYTE $0x01; BYTE $0x0f // SIDT (DI)
	RET
CODE(·doSTR)
	BYTE $0x0f; BYTE $0x00; BYTE $0xc8 // STR AX
	RET
CODE(·doCPUID)
	XORL CX, CX
	CPUID
	RET
CODE(·doIN)
	MOVL DI, DX
	INB
	RET
CODE(·doIN32)
	MOVL DI, DX
	INL
	RET
CODE(·doOUT)
	MOVL DI, DX
	MOVL SI, AX
	OUTB
	RET
CODE(·doOUT32)
	MOVL DI, DX
	MOVL SI, AX
	OUTL
	RET

#define ADDR(f) \
	LEAQ f(SB), AX; \
	MOVQ AX, (DI); \
	ADDQ $8, DI

// func addresses(p *[numCodes]uintptr)
// In the order of the constants in codes.go. (A func value would lead to a wrapper.)
TEXT ·addresses(SB), NOSPLIT, $0-8
	MOVQ p+0(FP), DI
	ADDR(·handler)
	ADDR(·reached)
	ADDR(·doRead)
	ADDR(·doWrite)
	ADDR(·doWrite32)
	ADDR(·doRead32)
	ADDR(·doJump)
	ADDR(·doSyscall)
	ADDR(·doUndefined)
	ADDR(·doDivide)
	ADDR(·doNull)
	ADDR(·doSpin)
	ADDR(·doCall)
	ADDR(·doSyscallRSP)
	ADDR(·doDivideRSP)
	ADDR(·doUndefinedRSP)
	ADDR(·doFaultRSP)
	ADDR(·doInt3RSP)
	ADDR(·doSyscallFlags)
	ADDR(·doUndefinedFlags)
	ADDR(·doFlags)
	ADDR(·doCallFlags)
	ADDR(·doCallRSP)
	ADDR(·doLGDT)
	ADDR(·doLIDT)
	ADDR(·doLLDT)
	ADDR(·doLTR)
	ADDR(·doReadCR0)
	ADDR(·doReadCR3)
	ADDR(·doReadCR4)
	ADDR(·doWriteCR0)
	ADDR(·doWriteCR3)
	ADDR(·doWriteCR4)
	ADDR(·doWriteCR8)
	ADDR(·doWriteDR0)
	ADDR(·doWriteDR7)
	ADDR(·doReadDR7)
	ADDR(·doRDMSR)
	ADDR(·doWRMSR)
	ADDR(·doCLI)
	ADDR(·doSTI)
	ADDR(·doHLT)
	ADDR(·doINVD)
	ADDR(·doWBINVD)
	ADDR(·doINVLPG)
	ADDR(·doCLTS)
	ADDR(·doLMSW)
	ADDR(·doXSETBV)
	ADDR(·doSWAPGS)
	ADDR(·doRDPMC)
	ADDR(·doSYSRET)
	ADDR(·doSYSEXIT)
	ADDR(·doSYSENTER)
	ADDR(·doIRET)
	ADDR(·doIRETFlags)
	ADDR(·doIRETRIP)
	ADDR(·doRETF)
	ADDR(·doLoadSS)
	ADDR(·doLoadDS)
	ADDR(·doINTDivide)
	ADDR(·doINTDebug)
	ADDR(·doINTNMI)
	ADDR(·doINTUndefined)
	ADDR(·doINTDouble)
	ADDR(·doINTPage)
	ADDR(·doINTTimer)
	ADDR(·doINTSpurious)
	ADDR(·doINTLinux)
	ADDR(·doINT3)
	ADDR(·doICEBP)
	ADDR(·doSGDT)
	ADDR(·doSIDT)
	ADDR(·doSTR)
	ADDR(·doCPUID)
	ADDR(·doIN)
	ADDR(·doIN32)
	ADDR(·doOUT)
	ADDR(·doOUT32)
	RET
