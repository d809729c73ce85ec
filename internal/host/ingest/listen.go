package ingest

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"syscall"

	"github.com/mdlayher/vsock"
)

// ErrInUse is the error for an address on which another process listens.
var ErrInUse = errors.New("another process listens there")

// Listen opens an address for guests or followers:
//
//	unix:PATH    a Unix stream socket; its folder is made if it does not exist
//	vsock:PORT   the host's AF_VSOCK, any CID (needs vhost_vsock)
//
// A socket file on which no process listens any more is replaced. The socket is for
// its owner and root only, and must be in a folder in which no other user can
// replace it; vsock is for guests, not for processes of the host. If the address is
// in use the error wraps ErrInUse.
func Listen(address string) (net.Listener, error) {
	kind, where, _ := strings.Cut(address, ":")
	switch kind {
	case "unix":
		return listenUnix(where)
	case "vsock":
		p, err := strconv.ParseUint(where, 10, 32)
		if err != nil || p == 0 {
			return nil, fmt.Errorf("%q: not a vsock port (want vsock:9000)", address)
		}
		l, err := vsock.Listen(uint32(p), nil)
		if errors.Is(err, syscall.EADDRINUSE) {
			return nil, fmt.Errorf("%s: %w", address, ErrInUse)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w (modprobe vhost_vsock; or take unix:PATH_9000)", address, err)
		}
		return &listener{Listener: l, admit: isGuest}, nil
	}
	return nil, fmt.Errorf("%q: not an address (want unix:PATH or vsock:PORT)", address)
}
