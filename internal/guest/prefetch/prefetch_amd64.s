#include "textflag.h"

#define READ_DX PREFETCHT0 (DX)
#define READ_SI PREFETCHT0 (SI)
// PREFETCHW, which the assembler does not know.
#define WRITE_DX BYTE $0x0f; BYTE $0x0d; BYTE $0x0a
#define WRITE_SI BYTE $0x0f; BYTE $0x0d; BYTE $0x0e

// EACH prefetches the lines of l, four a round, by what does it for the line at DX and at SI.
#define EACH(DO_DX, DO_SI) \
	MOVQ l_base+0(FP), BX \
	MOVQ l_len+8(FP), CX \
	CMPQ CX, $128 \
	JHI  done \
	SUBQ $4, CX \
	JLT  rest \
four: \
	MOVQ 0(BX), DX \
	MOVQ 8(BX), SI \
	DO_DX \
	DO_SI \
	MOVQ 16(BX), DX \
	MOVQ 24(BX), SI \
	DO_DX \
	DO_SI \
	ADDQ $32, BX \
	SUBQ $4, CX \
	JGE  four \
rest: \
	ADDQ $4, CX \
	JEQ  done \
one: \
	MOVQ (BX), DX \
	DO_DX \
	ADDQ $8, BX \
	DECQ CX \
	JNZ  one \
done: \
	RET

// func Read(l []uintptr)
TEXT ·Read(SB), NOSPLIT, $0-24
	EACH(READ_DX, READ_SI)

// func ReadTwo(l []uintptr)
TEXT ·ReadTwo(SB), NOSPLIT, $0-24
	MOVQ l_base+0(FP), BX
	MOVQ l_len+8(FP), CX
	CMPQ CX, $128
	JHI  done
	TESTQ CX, CX
	JEQ  done
loop:
	MOVQ (BX), DX
	PREFETCHT0 (DX)
	PREFETCHT0 64(DX)
	ADDQ $8, BX
	DECQ CX
	JNZ  loop
done:
	RET

// func Write(l []uintptr)
TEXT ·Write(SB), NOSPLIT, $0-24
	EACH(WRITE_DX, WRITE_SI)

// func Write3(a, b, c uintptr)
TEXT ·Write3(SB), NOSPLIT, $0-24
	MOVQ a+0(FP), DX
	WRITE_DX
	MOVQ b+8(FP), DX
	WRITE_DX
	MOVQ c+16(FP), DX
	WRITE_DX
	RET
