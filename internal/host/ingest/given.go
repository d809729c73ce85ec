package ingest

import (
	"fmt"
	"net"
	"strings"
)

// givenPrefix begins the abstract address of a launcher's socket that names its firewall.
const givenPrefix = "@thurward="

// maxGiven is the largest length of a given name in bytes.
const maxGiven = 32

// CheckGiven returns an error if a firewall cannot be given a name: letters, digits, dots,
// hyphens and underscores, at most 32.
func CheckGiven(name string) error {
	bad := strings.ContainsFunc(name, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("._-", r))
	})
	if name == "" || len(name) > maxGiven || bad {
		return fmt.Errorf("%q is no name for a firewall (want 1 to %d letters, digits, dots, hyphens, underscores)", name, maxGiven)
	}
	return nil
}

// GivenAddress returns the address to which a launcher binds its socket before it connects to
// a receiver, so that the receiver knows the firewall by name. It is abstract (unix(7)); unique
// distinguishes the connections of one network name space.
func GivenAddress(name, unique string) string { return givenPrefix + name + "/" + unique }

// given returns the name that the other end of a connection has been given, or "".
func given(c net.Conn) string {
	a := c.RemoteAddr()
	if a == nil {
		return ""
	}
	rest, ok := strings.CutPrefix(a.String(), givenPrefix)
	name, _, whole := strings.Cut(rest, "/")
	if !ok || !whole || CheckGiven(name) != nil {
		return ""
	}
	return name
}
