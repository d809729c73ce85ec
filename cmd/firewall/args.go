package main

import (
	"errors"
	"strconv"
	"strings"
)

// arguments are the boot arguments of the firewall. They describe its devices, and never
// affect the policy.
type arguments struct {
	lan, wan       [6]byte // hardware addresses of the interfaces
	hasLAN, hasWAN bool
	events         bool   // print events on the console
	probe          bool   // only report that the machine boots
	plain          bool   // take no offloads of the network devices
	workers        int    // at most; 0: as many as there can be
	vsockPort      uint32 // of the host, to which the stream goes
}

const argPrefix = "thurward."

// parseArgs parses the arguments whose names begin with "thurward."; all others are for the
// kernel or the loader. Of several with one name the last counts.
func parseArgs(cmdline string) (a arguments, err error) {
	a.vsockPort = telemetryPort
	for _, w := range strings.Fields(cmdline) {
		rest, ok := strings.CutPrefix(w, argPrefix)
		if !ok {
			continue
		}
		name, value, _ := strings.Cut(rest, "=")
		switch name {
		case "lan":
			a.lan, a.hasLAN = parseMAC(value)
			if !a.hasLAN {
				return a, errors.New("boot argument " + w + ": not a hardware address (want thurward.lan=02:00:00:00:00:01)")
			}
		case "wan":
			a.wan, a.hasWAN = parseMAC(value)
			if !a.hasWAN {
				return a, errors.New("boot argument " + w + ": not a hardware address (want thurward.wan=02:00:00:00:00:02)")
			}
		case "events":
			switch value {
			case "console":
				a.events = true
			case "none":
				a.events = false
			default:
				return a, errors.New("boot argument " + w + ": want console or none")
			}
		case "offload":
			switch value {
			case "auto":
				a.plain = false
			case "none":
				a.plain = true
			default:
				return a, errors.New("boot argument " + w + ": want auto or none")
			}
		case "workers":
			switch value {
			case "auto":
				a.workers = 0
			case "1", "2", "4", "8":
				a.workers = int(value[0] - '0')
			default:
				return a, errors.New("boot argument " + w + ": want auto, 1, 2, 4 or 8")
			}
		case "probe":
			a.probe = value == "1"
		case "vsock_port":
			p, err := strconv.ParseUint(value, 10, 32)
			if err != nil || p == 0 || p == 1<<32-1 { // VMADDR_PORT_ANY
				return a, errors.New("boot argument " + w + ": not a vsock port (want 1 to 4294967294)")
			}
			a.vsockPort = uint32(p)
		default:
			return a, errors.New("boot argument " + w + ": unknown (known are thurward.lan, .wan, .events, .offload, .workers, .probe, .vsock_port)")
		}
	}
	return a, nil
}

// parseMAC parses six bytes in hexadecimal, separated by colons. Group addresses and zero
// are invalid for an interface.
func parseMAC(s string) (m [6]byte, ok bool) {
	if len(s) != 17 {
		return m, false
	}
	for i := range m {
		hi, ok1 := hexDigit(s[3*i])
		lo, ok2 := hexDigit(s[3*i+1])
		if !ok1 || !ok2 || i < 5 && s[3*i+2] != ':' {
			return m, false
		}
		m[i] = hi<<4 | lo
	}
	return m, m[0]&1 == 0 && m != [6]byte{}
}

func hexDigit(c byte) (byte, bool) {
	switch {
	case c >= '0' && c <= '9':
		return c - '0', true
	case c|0x20 >= 'a' && c|0x20 <= 'f':
		return c | 0x20 - 'a' + 10, true
	}
	return 0, false
}

func formatMAC(m [6]byte) string {
	const d = "0123456789abcdef"
	b := make([]byte, 0, 17)
	for i, v := range m {
		if i > 0 {
			b = append(b, ':')
		}
		b = append(b, d[v>>4], d[v&15])
	}
	return string(b)
}
