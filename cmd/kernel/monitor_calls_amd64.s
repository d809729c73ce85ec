// The monitor's calls: all that ring 3 can ask of ring 0. The list is closed.
// Arguments are hostile: each call states its invariant and checks what it is
// given against it. Interrupts are off, the stack is the trap page, registers
// need not be kept. abi.MonSet and those after it describe the arguments.

#include "textflag.h"
#include "go_asm.h"

// GAP: see monitor_amd64.s.
#define GAP \
	PCALIGN $2048; \
	UD2; \
	PCALIGN $2048; \
	UD2

// calls goes to the operation in AX.
TEXT ·calls(SB), NOSPLIT|NOFRAME, $0
	CMPQ AX, $const_monSet
	JEQ  set
	CMPQ AX, $const_monTimer
	JEQ  timer
	CMPQ AX, $const_monEOI
	JEQ  eoi
	CMPQ AX, $const_monHalt
	JEQ  halt
	CMPQ AX, $const_monFlush
	JEQ  flush
	CMPQ AX, $const_monCooperate
	JEQ  cooperate
	CMPQ AX, $const_monClock
	JEQ  clock
	CMPQ AX, $const_monEnter
	JEQ  enter
	CMPQ AX, $const_monClose
	JEQ  close
	CMPQ AX, $const_monSeal
	JEQ  seal
	CMPQ AX, $const_monReset
	JEQ  reset
	CMPQ AX, $const_monSend
	JEQ  send
	CMPQ AX, $const_monStop
	JEQ  stop
	CMPQ AX, $const_monShare
	JEQ  share
	CMPQ AX, $const_monFaults
	JEQ  faults
refuse:
	MOVL $const_monRefused, AX
	IRETQ
set:
	JMP  ·setPages(SB)
halt:
	JMP  ·haltCPU(SB)
stop:
	JMP  ·haltOthers(SB)
share:
	JMP  ·sharePage(SB)

// Invariant of timer and eoi: none is needed. They touch one register each of
// the local APIC, and can do no more than keep ring 3 from its interrupts.
timer:
	MOVL BX, const_lapicInitial0
	JMP  done
eoi:
	MOVL $0, const_lapicEOI0
	JMP  done

// flush, too, changes nothing that ring 3 can see.
flush:
	MOVQ CR3, AX
	MOVQ AX, CR3
	JMP  done

// cooperate's invariant: the flags of all ways to ring 3 are the constant 2
// (interrupts off), whatever is asked, and never on again.
cooperate:
	MOVL $2, const_faultFlags
	MOVL $2, const_crashFlags
	MOVL $2, const_irqFlags
	MOVL $2, const_bounceFlags
	ANDL $~0x200, 16(SP)          // the caller goes on with interrupts off
	JMP  done

// clock's invariant: the host is told no address but the clock page's.
clock:
	CMPL const_hasClock, $1
	JNE  refuse                   // there are no such registers
	XORL DX, DX
	TESTL BX, BX
	JNE  wall
	MOVL $0x4b564d01, CX          // kvmclock: system time
	MOVL $const_clockEnable, AX
	WRMSR
wall:
	MOVL $0x4b564d00, CX          // kvmclock: wall clock
	MOVL $const_clockWallAt, AX
	WRMSR
	JMP  done

// enter's invariant: SYSCALL leads to one of two addresses, CR4 gains bits and
// loses none, and not after closing.
enter:
	TESTL $2, const_rootWindow0
	JEQ  refuse
	MOVL CX, SI
	ANDL $0x300800, SI            // SMAP, SMEP, UMIP
	MOVQ CR4, AX
	ORQ  SI, AX
	MOVQ AX, CR4
	MOVQ AX, const_startCR4
	LEAQ ·syscallEntry(SB), AX
	CMPL BX, $1
	JEQ  lstar
	LEAQ ·syscallBounce(SB), AX
lstar:
	MOVQ AX, const_startLSTAR
	MOVL $0xc0000082, CX
	XORL DX, DX
	WRMSR
	JMP  done

// close's invariant: the bit is cleared and never set again: the entry lies in
// a table that can then be written in ring 0 only, and setPages does not reach
// it.
close:
	ANDL $~2, const_rootWindow0
	JMP  flush

// seal's invariant: the ports are those of the final bitmap, a constant, sharePage
// refuses from now on, and whatever close does.
seal:
	MOVQ $0, const_sharedTables
	MOVW $const_ioFinal, const_ioBase
	JMP  close

// send's invariant: it interrupts another processor that runs, by one of two vectors.
// Neither does more there than the kernel's look at its queue, or what flush does.
send:
	CMPQ BX, const_processors0
	JCC  refuse
	CMPQ BX, const_number0
	JEQ  refuse
	MOVL $const_icrWake, AX
	CMPQ CX, $const_sendWake
	JEQ  command
	MOVL $const_icrFlush, AX
	CMPQ CX, $const_sendFlush
	JNE  refuse
command:
	MOVL const_apic0(BX*4), DX
	MOVL DX, const_lapicICRHigh0
	MOVL AX, const_lapicICR0
	JMP  done

// faults' invariant: it writes two constants, which clear bits that say that there were
// faults, to two registers of the IOMMU.
faults:
	MOVQ const_faultRecord, DI
	TESTQ DI, DI
	JEQ  refuse
	MOVL $const_faultBit, (DI)
	MOVL $1, const_faultStatus0   // the overflow
	JMP  done

reset:
	MOVQ $const_gdtStart, AX      // a limit of zero: no exception can be delivered any more
	LIDT (AX)
	UD2
done:
	XORL AX, AX
	IRETQ

// haltCPU waits for an interrupt, unless one was noted since the kernel looked,
// with the timer set to BX. Its invariant is that of timer.
TEXT ·haltCPU(SB), NOSPLIT|NOFRAME, $0
	TESTL BX, BX
	JEQ  halt
	MOVL BX, const_lapicInitial0
halt:
	CMPL const_pending0, $0
	JNE  awake
	STI
	HLT
	CLI
awake:
	XORL AX, AX
	IRETQ

// haltOthers makes all other processors stand still for ever, by an NMI. Its invariant
// is that one processor does so: a second one, at the same time or later, stands still
// itself.
TEXT ·haltOthers(SB), NOSPLIT|NOFRAME, $0
	MOVL const_number0, BX
	INCL BX
	XORL AX, AX
	LOCK
	CMPXCHGL BX, const_stopping
	JEQ  first
	CMPL AX, BX
	JEQ  done                     // again
	MOVL BX, AX
	JMP  ·stand(SB)
first:
	XORL CX, CX
next:
	CMPQ CX, const_processors0
	JCC  done
	MOVL CX, AX
	INCQ CX
	CMPL CX, BX
	JEQ  next
	MOVL const_apic0(AX*4), DX
	MOVL DX, const_lapicICRHigh0
	MOVL $const_icrNMI, const_lapicICR0
	JMP  next
done:
	XORL AX, AX
	IRETQ

// sharePage writes one entry of the IOMMU's tables: devices may reach the 2 MiB at the
// physical address BX, by the same address. Its invariants:
//
//   - They are general RAM, as setPages has it: none of the image, of any tables, of
//     devices.
//   - Nothing is shared once the machine is sealed.
TEXT ·sharePage(SB), NOSPLIT|NOFRAME, $0
	MOVQ const_sharedTables, DI
	TESTQ DI, DI
	JEQ  refuse
	TESTL $0x1fffff, BX
	JNE  refuse
	LEAQ 0x200000(BX), AX
	CMPQ AX, BX
	JCS  refuse                   // it went round
	CMPQ BX, const_highStart
	JCC  high
	CMPQ BX, const_lowStart
	JCS  refuse
	CMPQ AX, const_lowEnd
	JHI  refuse
	JMP  entry
high:
	CMPQ AX, const_highEnd
	JHI  refuse
entry:
	MOVQ BX, AX
	ORQ  $const_shareBits, AX
	SHRQ $21, BX
	MOVQ AX, const_ring0(DI)(BX*8)
	XORL AX, AX
	IRETQ
refuse:
	MOVL $const_monRefused, AX
	IRETQ

// setPages writes DX entries of one page table: for the addresses from BX on,
// the frames from CX on, as SI says. Its invariants:
//
//   - Only addresses of the program's zeroed data and those between UserStart
//     and UserEnd change. Text, constants, policy, kernel, monitor, tables and
//     devices have no address there.
//   - Only frames of general RAM are mapped. Those of the image, of the tables
//     and of their pool, and addresses of devices, are none of it.
//   - No page is executable, or ring 0's: each entry has NX and U.
//
// Ranges are checked, not entries.
TEXT ·setPages(SB), NOSPLIT|NOFRAME, $0
	// The addresses: whole pages, 1 to 512, within one page table.
	TESTL $0xfff, BX
	JNE  refuse
	LEAQ -1(DX), AX
	CMPQ AX, $512
	JCC  refuse
	MOVQ BX, AX
	SHRQ $12, AX
	ANDL $511, AX
	ADDQ DX, AX
	CMPQ AX, $512
	JHI  refuse
	MOVQ DX, R9                   // the number of pages
	SHLQ $12, DX
	LEAQ (BX)(DX*1), R8           // the end
	// [BX, R8) lies in the program's zeroed data or from UserStart to UserEnd,
	// where a table ends: with BX below it all of the pages are.
	CMPQ BX, const_userEnd
	JCC  refuse
	CMPQ BX, const_userStart
	JCC  frames
	CMPQ BX, const_zeroStart
	JCS  refuse
	CMPQ R8, const_zeroEnd
	JHI  refuse
frames:
	XORL R10, R10                 // the first entry
	XORL R11, R11                 // what the next ones add
	CMPQ SI, $const_setNothing
	JEQ  walk
	CMPQ SI, $const_setRead
	JEQ  whole
	CMPQ SI, $const_setWrite
	JNE  refuse
whole:
	// [CX, CX+DX) lies in one of the two stretches of RAM.
	TESTL $0xfff, CX
	JNE  refuse
	LEAQ (CX)(DX*1), AX
	CMPQ AX, CX
	JCS  refuse                   // it went round
	CMPQ CX, const_highStart
	JCC  high
	CMPQ CX, const_lowStart
	JCS  refuse
	CMPQ AX, const_lowEnd
	JHI  refuse
	JMP  entry
high:
	CMPQ AX, const_highEnd
	JHI  refuse
entry:
	MOVQ $const_pageBits, R10     // NX, D, A, U
	ORQ  SI, R10                  // P, and W for SetWrite
	ORQ  CX, R10
	MOVL $4096, R11
walk:
	MOVQ $const_tables, DI
	MOVL $39, CX
level:
	// DI is a table's physical address; it becomes that of the next one.
	MOVQ BX, AX
	SHRQ CX, AX
	ANDL $511, AX
	LEAQ (DI)(AX*8), DI
	MOVQ const_ring0(DI), AX
	TESTL $1, AX
	JEQ  make
below:
	MOVQ $const_addressBits, DI
	ANDQ AX, DI
	SUBL $9, CX
	CMPL CX, $12
	JNE  level
	SHRQ $9, BX                   // 8 bytes for each page
	ANDL $0xff8, BX
	LEAQ const_ring0(DI)(BX*1), DI
	MOVQ R10, AX
	MOVQ R9, CX
	CLD
fill:
	STOSQ
	ADDQ R11, AX
	LOOP fill
	XORL AX, AX
	IRETQ
make:
	// A table from the pool, whose frames nobody else has had. The kernel zeroed
	// them before it closed the tables. The entry allows all; the last level
	// decides.
	TESTQ R10, R10
	JEQ  nothing                  // nothing is mapped there
	CMPL const_processors0, $1
	JNE  shared
	MOVQ const_poolNext, AX
	CMPQ AX, const_poolEnd
	JCC  full
	ADDQ $4096, const_poolNext
	ORQ  $const_tableBits, AX     // A, U, W, P
	MOVQ AX, const_ring0(DI)
	JMP  below
shared:
	// Where there are others, one at a time takes a table. It is empty and stays
	// where it is, so that nobody needs the lock to go through it.
	MOVL $1, AX
	XCHGL AX, const_tableLock
	TESTL AX, AX
	JEQ  locked
	PAUSE
	JMP  shared
locked:
	MOVQ const_ring0(DI), AX
	TESTL $1, AX
	JNE  unlock                   // another was faster
	MOVQ const_poolNext, AX
	CMPQ AX, const_poolEnd
	JCC  unlockFull
	ADDQ $4096, const_poolNext
	ORQ  $const_tableBits, AX
	MOVQ AX, const_ring0(DI)
	CMPL CX, $39
	JNE  unlock
	// An entry of the root table: each processor has its own of those.
	MOVL const_processors0, R8
root:
	DECL R8
	JEQ  unlock
	MOVQ const_roots0(R8*8), R12
	LEAQ -const_tables(R12)(DI*1), R12
	MOVQ AX, const_ring0(R12)
	JMP  root
unlock:
	MOVL $0, const_tableLock
	JMP  below
unlockFull:
	MOVL $0, const_tableLock
	JMP  full
nothing:
	XORL AX, AX
	IRETQ
full:
	MOVL $const_monNoTable, AX
	IRETQ
refuse:
	MOVL $const_monRefused, AX
	IRETQ

TEXT ·monitorEnd(SB), NOSPLIT|NOFRAME, $0
	GAP
