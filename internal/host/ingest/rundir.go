package ingest

import (
	"os"
	"path/filepath"
	"strconv"
	"syscall"
)

// DefaultPath returns the default path from which the names of sockets are made, in
// a folder of this user: /run/thurward/vsock for root, otherwise below
// $XDG_RUNTIME_DIR, otherwise below /run/user/UID if it exists, otherwise in /tmp. A
// receiver listens on GuestSocket of it for guests and on TailSocket for followers.
func DefaultPath() string {
	return filepath.Join(runDir(os.Geteuid(), os.Getenv("XDG_RUNTIME_DIR"), "/run/user"), "vsock")
}

// runDir returns the folder of a user; users is where the system makes one for each.
// A folder in /tmp may be another user's, which Listen checks.
func runDir(uid int, xdg, users string) string {
	id := strconv.Itoa(uid)
	switch own := filepath.Join(users, id); {
	case uid == 0:
		return "/run/thurward"
	case filepath.IsAbs(xdg):
		return filepath.Join(xdg, "thurward")
	case isOwn(own, uid):
		return filepath.Join(own, "thurward")
	}
	return "/tmp/thurward-" + id
}

// isOwn reports whether a path is a folder that only a user can write to.
func isOwn(path string, uid int) bool {
	fi, err := os.Lstat(path)
	return err == nil && fi.IsDir() && fi.Mode().Perm()&0o022 == 0 && int(fi.Sys().(*syscall.Stat_t).Uid) == uid
}

// Port is the vsock port to which the firewall connects on the host.
const Port = 9000

// GuestSocket returns the Unix socket to which guests are connected, in
// Firecracker's manner: the path, an underscore, and the port.
func GuestSocket(path string) string { return path + "_" + strconv.Itoa(Port) }

// TailSocket returns the Unix socket on which a receiver serves followers.
func TailSocket(path string) string { return path + "_tail" }
