package main

import (
	"github.com/thurward/thurward/internal/guest/kernel/keys"
)

// The keyboard controller (i8042), where there is one: Firecracker's
// SendCtrlAltDel arrives here.
const (
	keyData   = 0x60
	keyStatus = 0x64
	keyFull   = 1 // of the status: there is a byte
	keyPin    = 1 // of the I/O APIC
	maxKeys   = 16
)

var chord keys.Chord

// startKeyboard routes the controller's interrupt. Ports behind which there is
// nothing read as ones, or as zeros with Firecracker, which has a controller.
func startKeyboard() {
	if s := inb(keyStatus); s == 0xff || s == 0 {
		return
	}
	for i := 0; i < maxKeys && inb(keyStatus)&keyFull != 0; i++ {
		inb(keyData) // what the firmware has left
	}
	route(keyPin)
}

// keyboardInterrupt reads what was typed and reports whether it was Ctrl-Alt-Del.
func keyboardInterrupt() bool {
	hit := false
	for i := 0; i < maxKeys && inb(keyStatus)&keyFull != 0; i++ {
		hit = chord.Press(inb(keyData)) || hit
	}
	return hit
}
