package vmm

import (
	"fmt"
	"strings"
)

// A Kind is how a network interface is connected. Zero is invalid.
type Kind uint8

// The kinds.
const (
	_         Kind = iota
	Demo           // the simulated network in this process
	User           // QEMU's user-mode network: no privileges, outgoing connections only
	Tap            // an existing TAP device
	Bridge         // a TAP device of our own on an existing bridge
	Unix           // a stream socket that speaks QEMU's framing
	VhostUser      // a vhost-user socket: shared memory, for generators and other virtual switches
)

// A Spec is what a network interface is connected to, as the user wrote it.
type Spec struct {
	Kind Kind
	Arg  string // device, bridge or socket; empty for demo and user
}

var kinds = map[string]Kind{"demo": Demo, "user": User, "tap": Tap, "bridge": Bridge, "unix": Unix, "vhost-user": VhostUser}

// SpecHelp lists the specs that ParseSpec accepts.
const SpecHelp = "demo, user, tap:NAME, bridge:NAME, unix:PATH or vhost-user:PATH"

// maxName is the length limit of a Linux interface name in bytes (IFNAMSIZ-1).
const maxName = 15

// maxPath is the length limit of a Unix socket's path in bytes (unix(7)).
const maxPath = 107

// ParseSpec reads a SPEC of the command line.
func ParseSpec(s string) (Spec, error) {
	name, arg, hasArg := strings.Cut(s, ":")
	k, ok := kinds[name]
	switch {
	case !ok:
		return Spec{}, fmt.Errorf("%q is not a kind of network (want %s)", name, SpecHelp)
	case k == Demo || k == User:
		if hasArg {
			return Spec{}, fmt.Errorf("%s takes no argument, got %q", name, arg)
		}
	case arg == "":
		return Spec{}, fmt.Errorf("%s needs an argument (want %s)", name, SpecHelp)
	case k == Tap || k == Bridge:
		if len(arg) > maxName || strings.ContainsAny(arg, "/, \t\n") {
			return Spec{}, fmt.Errorf("%q is not an interface name (at most %d characters, no slash, comma or space)", arg, maxName)
		}
	case len(arg) > maxPath:
		return Spec{}, fmt.Errorf("socket path of %d bytes; at most %d are possible: %s", len(arg), maxPath, arg)
	}
	return Spec{Kind: k, Arg: arg}, nil
}

// String returns the spec as ParseSpec reads it.
func (s Spec) String() string {
	for name, k := range kinds {
		if k == s.Kind {
			if s.Arg == "" {
				return name
			}
			return name + ":" + s.Arg
		}
	}
	return "invalid"
}
