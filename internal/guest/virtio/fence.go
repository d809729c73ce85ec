package virtio

// fence is a full memory barrier towards the device (ADR 0013). On the machine
// itself Go's atomic operations are one, and so is MFENCE. But a device may be a
// thread of an emulator: for a machine with one processor QEMU's TCG makes plain
// loads and stores of locked instructions, and until 8.1 nothing at all of
// MFENCE, so that its devices' threads see stores late. There RDTSC is a barrier:
// QEMU takes a lock to read its clock, with a locked instruction of its own.
func fence()
