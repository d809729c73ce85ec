#include "textflag.h"

// func prefetch(line *[128]uintptr, n int)
TEXT ·prefetch(SB), NOSPLIT, $0-16
	MOVQ line+0(FP), BX
	MOVQ n+8(FP), CX
	TESTQ CX, CX
	JLE  done
loop:
	MOVQ (BX), DX
	PREFETCHT0 (DX)
	ADDQ $8, BX
	DECQ CX
	JNZ  loop
done:
	RET
