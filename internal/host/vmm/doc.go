// Package vmm boots a thurward image in QEMU's microvm machine and watches
// it: it checks the image, chooses the accelerator, joins the two network
// interfaces to whatever they are to reach, reads the console, and starts the
// machine again after a crash.
package vmm
