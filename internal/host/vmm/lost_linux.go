package vmm

import (
	"errors"
	"fmt"
	"net"
	"os"
	"time"
)

// lookEvery is the interval in which a machine's networks are looked at.
const lookEvery = time.Second

// A lostError is the end of a machine that the launcher ended because a device of the host had
// gone that joined it to a network. A hypervisor notices nothing, and a new device of the same
// name is none of its own: only a new machine gets it.
type lostError struct{ why string }

func (e lostError) Error() string { return "the machine has lost a network: " + e.why }

// whileThere returns a function that says why a TAP device is not what it was, "" while it is. A
// bridge other than "" must have it.
func whileThere(name, bridge string) []func() string {
	dev, err := net.InterfaceByName(name)
	if err != nil {
		return nil
	}
	index := dev.Index
	return []func() string{func() string {
		if d, err := net.InterfaceByIndex(index); err != nil || d.Name != name {
			return fmt.Sprintf("the device %s is gone", name)
		}
		if bridge == "" {
			return ""
		}
		if _, err := os.Stat("/sys/class/net/" + bridge + "/brif/" + name); errors.Is(err, os.ErrNotExist) {
			return fmt.Sprintf("the device %s is not on the bridge %s any more", name, bridge)
		}
		return ""
	}}
}

// lost returns a channel that gets why a machine has lost a network. It ends with the machine.
func (m *Machine) lost() <-chan error {
	c := make(chan error, 1)
	if len(m.there) == 0 {
		return c
	}
	m.look(lookEvery, func() (over bool) {
		for _, f := range m.there {
			if why := f(); why != "" {
				c <- lostError{why}
				return true
			}
		}
		return false
	})
	return c
}
