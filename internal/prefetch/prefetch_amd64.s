#include "textflag.h"

// func Ask(l *Lines, n int)
TEXT ·Ask(SB), NOSPLIT, $0-16
	MOVQ l+0(FP), BX
	MOVQ n+8(FP), CX
	CMPQ CX, $128
	JHI  done // also when negative
	TESTQ CX, CX
	JEQ  done
loop:
	MOVQ (BX), DX
	PREFETCHT0 (DX)
	ADDQ $8, BX
	DECQ CX
	JNZ  loop
done:
	RET
