// Package vmm boots a thurward image in QEMU and supervises it: it checks the
// image, chooses the accelerator, connects the two network interfaces, reads the
// console, and restarts the machine after a crash.
package vmm
