package importer

// TCP's flags.
var flagNames = map[string]uint8{"FIN": 1, "SYN": 2, "RST": 4, "PSH": 8, "ACK": 16, "URG": 32, "ALL": 63, "NONE": 0}

// flagCond returns the condition that TCP's flags are such that has says so. Where
// it holds for some beginnings of connections, or some packets that follow, and not
// for others, it has no counterpart.
func flagCond(has func(flags uint8) bool, what string) cond {
	some, all := mask(0), tcpSYN|tcpOther|tcpBogus
	for n := range 256 {
		f := uint8(n)
		kind := tcpBogus
		switch f & 0x17 { // without PSH and URG
		case 2:
			kind = tcpSYN
		case 2 | 16, 16, 1 | 16, 4, 4 | 16:
			kind = tcpOther
		}
		if has(f) {
			some |= kind
		} else {
			all &^= kind
		}
	}
	if some == 0 {
		return cond{never: true}
	}
	c := withMask(fTCP, some)
	if (some&^all)&^tcpBogus != 0 {
		c = c.and(withHard(what))
	}
	return c
}
