// Package keys recognises Ctrl-Alt-Del in what a keyboard controller (i8042) sends:
// the only thing that machines without a keyboard use one for, to ask the guest to
// end. The kernel uses it.
package keys

// Scan codes, of the set 2 that keyboards send, as Firecracker's does, and of the
// set 1 that controllers make of it on other machines.
const (
	ctrl2, alt2, del2 = 0x14, 0x11, 0x71
	ctrl1, alt1, del1 = 0x1d, 0x38, 0x53

	extended = 0xe0 // the right-hand keys, and Del beside the keypad
	release2 = 0xf0 // the next code is of a key that is let go
	release1 = 0x80 // bit of a code that is
)

// A Chord keeps which keys are down. The zero Chord has none.
type Chord struct {
	ctrl, alt, up bool
}

// Press takes the next byte and reports whether it completes Ctrl-Alt-Del.
func (c *Chord) Press(b uint8) bool {
	switch b {
	case extended:
		return false
	case release2:
		c.up = true
		return false
	}
	down := !c.up
	c.up = false
	switch b {
	case ctrl2, ctrl1:
		c.ctrl = down
	case alt2, alt1:
		c.alt = down
	case ctrl1 | release1:
		c.ctrl = false
	case alt1 | release1:
		c.alt = false
	case del2, del1:
		return down && c.ctrl && c.alt
	}
	return false
}
