package virtio

// fence is a full memory barrier towards the device, as an instruction of its
// own. On the machine itself Go's atomic operations are one, but a device may
// be a thread of an emulator: QEMU makes plain loads and stores of a locked
// instruction when its machine has one processor, which its devices' threads
// then see in another order. It keeps to MFENCE (since 7.2.5 and 8.0.4).
func fence()
