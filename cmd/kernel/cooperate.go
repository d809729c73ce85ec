package main

// Cooperative mode: ring 3 runs with interrupts off. They are taken only while
// the CPU sleeps, in ring 0; timers are looked at when a thread makes a system
// call. It exists for software KVM, where an interrupt of ring 3 can make a
// thread go on in another's place (ADR 0004). A program that asks for it must
// not compute for long without a system call.

var (
	cooperative bool
	sliceEnd    uint64
)

// sysCooperate: see abi.SysCooperate.
func sysCooperate() uint64 {
	cooperative = true
	sliceEnd = now() + slice
	monitor(monCooperate, 0, 0, 0, 0)
	return 0
}

// cooperate wakes threads whose time has come and reports whether the current
// one has had its share while others are ready.
func cooperate() bool {
	expire()
	return runHead != noThread && now() >= sliceEnd
}
