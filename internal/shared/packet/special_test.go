package packet

import (
	"net/netip"
	"testing"
)

// TestNotForwarded: the blocks are those of the IANA registry whose column
// "Forwardable" says no, and an address on either side of each border is where
// it belongs.
func TestNotForwarded(t *testing.T) {
	are(t, NotForwarded[:], "169.254.0.0/16", "192.0.0.8/32", "192.0.0.11/32", "192.0.0.12/30", "192.0.0.16/28", "192.0.0.32/27", "192.0.0.64/26", "192.0.0.128/25")
}

// TestNotGlobal: the networks are those of the registry whose column "Globally
// Reachable" says no, multicast and reserved addresses.
func TestNotGlobal(t *testing.T) {
	are(t, NotGlobal[:], "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24", "192.168.0.0/16", "198.18.0.0/15", "224.0.0.0/3")
}

// are fails unless networks are these, and have the addresses at their borders.
func are(t *testing.T, nets []Net, prefixes ...string) {
	t.Helper()
	var want []netip.Prefix
	for _, s := range prefixes {
		want = append(want, netip.MustParsePrefix(s))
	}
	if len(nets) != len(want) {
		t.Fatalf("%d networks, want %d", len(nets), len(want))
	}
	for i, n := range nets {
		size := ^n.Mask
		for _, a := range []Addr{n.Addr, n.Addr | size, n.Addr - 1, (n.Addr | size) + 1, 0x08080808} {
			if got := n.Has(a); got != want[i].Contains(netip.AddrFrom16(a.To16()).Unmap()) {
				t.Errorf("%v has %#x: %v", want[i], a, got)
			}
		}
	}
}

// TestIsHost: at each border of what can be no host's.
func TestIsHost(t *testing.T) {
	for a, want := range map[Addr]bool{0: false, 0x00ffffff: false, 0x01000000: true, 0x7effffff: true, 0x7f000000: false, 0x7fffffff: false, 0x80000000: true,
		0xdfffffff: true, 0xe0000000: false, 0xefffffff: false, 0xf0000000: false, 0xffffffff: false} {
		if a.IsHost() != want {
			t.Errorf("%#x: %v", a, !want)
		}
	}
}
