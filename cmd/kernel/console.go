package main

// com1 is the first serial port. Its line settings do not matter: hypervisors
// take every byte written to it.
const com1 = 0x3f8

// line collects a message, so that it goes out with one instruction: each
// exit to the host costs tens of microseconds.
var (
	line    [1024]byte
	lineLen int
)

func flushLine() {
	if lineLen > 0 {
		consoleWrite(addr(&line), uint64(lineLen))
		lineLen = 0
	}
}

func putc(c byte) {
	if lineLen == len(line) {
		flushLine()
	}
	line[lineLen] = c
	lineLen++
	if c == '\n' {
		flushLine()
	}
}

func puts(s string) {
	for i := 0; i < len(s); i++ {
		putc(s[i])
	}
}

func putu(v uint64) {
	var b [20]byte
	i := len(b)
	for {
		i--
		b[i] = byte('0' + v%10)
		v /= 10
		if v == 0 {
			break
		}
	}
	for ; i < len(b); i++ {
		putc(b[i])
	}
}

func putx(v uint64) {
	puts("0x")
	for i := 60; i >= 0; i -= 4 {
		if v>>uint(i) != 0 || i == 0 {
			putc("0123456789abcdef"[v>>uint(i)&15])
		}
	}
}

// consoleWrite sends n bytes at address a to the serial port, in pieces that
// bound how long one instruction occupies the CPU.
func consoleWrite(a, n uint64) {
	for n > 0 {
		k := min(n, 256)
		outsb(com1, uintptr(a), k)
		a, n = a+k, n-k
	}
}
