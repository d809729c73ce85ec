package stream

import (
	"os"
	"path/filepath"
	"strconv"
)

// DefaultPath returns the path to which guests' sockets are relative when
// nothing else is said: /run/thurward/vsock for root, otherwise below
// $XDG_RUNTIME_DIR, otherwise in a folder of this user in /tmp. A receiver
// listens on GuestSocket of it, and offers TailSocket of it.
func DefaultPath() string {
	dir := "/tmp/thurward-" + strconv.Itoa(os.Getuid())
	if os.Getuid() == 0 {
		dir = "/run/thurward"
	} else if x := os.Getenv("XDG_RUNTIME_DIR"); x != "" {
		dir = filepath.Join(x, "thurward")
	}
	return filepath.Join(dir, "vsock")
}

// Port is the vsock port to which the firewall connects on the host.
const Port = 9000

// GuestSocket returns the Unix socket to which guests are connected, in
// Firecracker's manner: the path, an underscore, and the port.
func GuestSocket(path string) string { return path + "_" + strconv.Itoa(Port) }

// TailSocket returns the Unix socket on which the receiver passes on what it
// reads, to any number of followers.
func TailSocket(path string) string { return path + "_tail" }
