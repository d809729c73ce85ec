// Single moves of one width, which Go does not promise for its loads and
// stores, and which must not be exchanges: those would cost two exits.

#include "textflag.h"

// func load32(a uintptr) uint32
TEXT ·load32(SB), NOSPLIT, $0-12
	MOVQ a+0(FP), AX
	MOVL (AX), AX
	MOVL AX, ret+8(FP)
	RET

// func store32(a uintptr, v uint32)
TEXT ·store32(SB), NOSPLIT, $0-12
	MOVQ a+0(FP), AX
	MOVL v+8(FP), CX
	MOVL CX, (AX)
	RET

// func load8(a uintptr) uint8
TEXT ·load8(SB), NOSPLIT, $0-9
	MOVQ a+0(FP), AX
	MOVB (AX), AX
	MOVB AX, ret+8(FP)
	RET

// func load16(a uintptr) uint16
TEXT ·load16(SB), NOSPLIT, $0-10
	MOVQ a+0(FP), AX
	MOVW (AX), AX
	MOVW AX, ret+8(FP)
	RET

// func store8(a uintptr, v uint8)
TEXT ·store8(SB), NOSPLIT, $0-9
	MOVQ a+0(FP), AX
	MOVB v+8(FP), CX
	MOVB CX, (AX)
	RET

// func store16(a uintptr, v uint16)
TEXT ·store16(SB), NOSPLIT, $0-10
	MOVQ a+0(FP), AX
	MOVW v+8(FP), CX
	MOVW CX, (AX)
	RET
