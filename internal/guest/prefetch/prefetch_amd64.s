#include "textflag.h"

// func Read(l []uintptr)
TEXT ·Read(SB), NOSPLIT, $0-24
	MOVQ l_base+0(FP), BX
	MOVQ l_len+8(FP), CX
	CMPQ CX, $128
	JHI  done
	SUBQ $4, CX
	JLT  rest
four:
	MOVQ 0(BX), AX
	MOVQ 8(BX), DX
	PREFETCHT0 (AX)
	PREFETCHT0 (DX)
	MOVQ 16(BX), AX
	MOVQ 24(BX), DX
	PREFETCHT0 (AX)
	PREFETCHT0 (DX)
	ADDQ $32, BX
	SUBQ $4, CX
	JGE  four
rest:
	ADDQ $4, CX
	JEQ  done
loop:
	MOVQ (BX), DX
	PREFETCHT0 (DX)
	ADDQ $8, BX
	DECQ CX
	JNZ  loop
done:
	RET

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
	MOVQ l_base+0(FP), BX
	MOVQ l_len+8(FP), CX
	CMPQ CX, $128
	JHI  done
	SUBQ $4, CX
	JLT  rest
four:
	MOVQ 0(BX), DX
	MOVQ 8(BX), SI
	BYTE $0x0f; BYTE $0x0d; BYTE $0x0a // PREFETCHW (DX), which the assembler does not know
	BYTE $0x0f; BYTE $0x0d; BYTE $0x0e // PREFETCHW (SI)
	MOVQ 16(BX), DX
	MOVQ 24(BX), SI
	BYTE $0x0f; BYTE $0x0d; BYTE $0x0a
	BYTE $0x0f; BYTE $0x0d; BYTE $0x0e
	ADDQ $32, BX
	SUBQ $4, CX
	JGE  four
rest:
	ADDQ $4, CX
	JEQ  done
one:
	MOVQ (BX), DX
	BYTE $0x0f; BYTE $0x0d; BYTE $0x0a
	ADDQ $8, BX
	DECQ CX
	JNZ  one
done:
	RET

// func Write3(a, b, c uintptr)
TEXT ·Write3(SB), NOSPLIT, $0-24
	MOVQ a+0(FP), DX
	BYTE $0x0f; BYTE $0x0d; BYTE $0x0a // PREFETCHW (DX)
	MOVQ b+8(FP), DX
	BYTE $0x0f; BYTE $0x0d; BYTE $0x0a
	MOVQ c+16(FP), DX
	BYTE $0x0f; BYTE $0x0d; BYTE $0x0a
	RET
