package virtio

// fence is a full memory barrier towards the device (ADR 0013). On hardware both Go's
// atomic operations and MFENCE are one. But a device may be a thread of an emulator: for a
// machine with one processor QEMU's TCG translates locked instructions to plain loads and
// stores, and until version 8.1 ignores MFENCE, so that its devices' threads see stores
// late. There RDTSC is a barrier: QEMU takes a lock to read its clock, with a locked
// instruction of its own.
func fence()
