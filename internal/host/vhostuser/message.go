package vhostuser

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// Requests of the monitor.
const (
	reqGetFeatures      = 1
	reqSetFeatures      = 2
	reqSetOwner         = 3
	reqResetOwner       = 4
	reqSetMemTable      = 5
	reqSetVringNum      = 8
	reqSetVringAddr     = 9
	reqSetVringBase     = 10
	reqGetVringBase     = 11
	reqSetVringKick     = 12
	reqSetVringCall     = 13
	reqSetVringErr      = 14
	reqGetProtoFeatures = 15
	reqSetProtoFeatures = 16
	reqGetQueueNum      = 17
	reqSetVringEnable   = 18
	reqSetBackRequests  = 21
	reqIOTLB            = 22
	reqGetConfig        = 24
	reqSetConfig        = 25
	reqResetDevice      = 34
	reqSetStatus        = 39
	reqGetStatus        = 40

	reqBackIOTLB = 1 // of this side
)

// Header flags and feature bits.
const (
	flagVersion       = 1
	flagReply         = 1 << 2
	flagNeedAck       = 1 << 3
	versionMask       = 3
	featProtocol      = 1 << 30 // VHOST_USER_F_PROTOCOL_FEATURES
	protoMQ           = 1 << 0  // the monitor asks for the number of queues
	protoConfig       = 1 << 9
	protoAck          = 1 << 3
	protoBackRequests = 1 << 5 // this side may ask
	noFD              = 1 << 8 // in the argument of kick, call and err
)

const (
	headerLen  = 12
	maxPayload = 4096 // the largest payload known takes 312 bytes
	maxFDs     = 8
)

// A message is one request with the file descriptors that came with it.
type message struct {
	request uint32
	flags   uint32
	payload []byte
	fds     []int
}

// close closes the descriptors that were not taken.
func (m *message) close() {
	for _, fd := range m.fds {
		if fd >= 0 {
			unix.Close(fd) //nolint:errcheck // nothing can be done
		}
	}
	m.fds = nil
}

// event takes the eventfd that came with the message, and makes it non-blocking, so
// that a Read waits in Go's poller and can be interrupted.
func (m *message) event() (*os.File, error) {
	if len(m.fds) == 0 {
		return nil, fmt.Errorf("vhost-user: request %d came without a file descriptor", m.request)
	}
	fd := m.fds[0]
	if !isEventfd(fd) {
		return nil, fmt.Errorf("vhost-user: request %d came with a file descriptor that is not an eventfd", m.request)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, fmt.Errorf("vhost-user: request %d: %w", m.request, err)
	}
	m.fds[0] = -1
	return os.NewFile(uintptr(fd), "eventfd"), nil
}

// isEventfd reports whether a descriptor is an eventfd. A file, a pipe or a device
// could be always ready, or never.
func isEventfd(fd int) bool {
	name, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
	if err == nil {
		return name == "anon_inode:[eventfd]"
	}
	var st unix.Stat_t // without /proc: such an inode has no type
	return unix.Fstat(fd, &st) == nil && st.Mode&unix.S_IFMT == 0
}

func (m *message) u64() (uint64, error) {
	if len(m.payload) < 8 {
		return 0, m.short()
	}
	return binary.LittleEndian.Uint64(m.payload), nil
}

// state decodes an index and a number.
func (m *message) state() (index, num uint32, err error) {
	if len(m.payload) < 8 {
		return 0, 0, m.short()
	}
	return binary.LittleEndian.Uint32(m.payload), binary.LittleEndian.Uint32(m.payload[4:]), nil
}

func (m *message) short() error {
	return fmt.Errorf("vhost-user: request %d has only %d bytes", m.request, len(m.payload))
}

// receive reads the next message. Its payload is in buf.
func receive(c *net.UnixConn, buf []byte) (m message, err error) {
	oob := make([]byte, unix.CmsgSpace(4*maxFDs))
	var head [headerLen]byte
	// Descriptors come with the first byte of their message.
	n, oobn, flags, _, err := c.ReadMsgUnix(head[:], oob)
	if err != nil {
		return m, err
	}
	if m.fds, err = rights(oob[:oobn]); err != nil {
		return m, err
	}
	if n == 0 {
		return m, io.EOF
	}
	defer func() {
		if err != nil {
			m.close()
		}
	}()
	if flags&unix.MSG_CTRUNC != 0 {
		return m, fmt.Errorf("vhost-user: more than %d file descriptors", maxFDs)
	}
	if _, err = io.ReadFull(c, head[n:]); err != nil {
		return m, err
	}
	m.request, m.flags = binary.LittleEndian.Uint32(head[:]), binary.LittleEndian.Uint32(head[4:])
	size := binary.LittleEndian.Uint32(head[8:])
	if m.flags&versionMask != flagVersion {
		return m, fmt.Errorf("vhost-user: protocol version %d, want 1", m.flags&versionMask)
	}
	if size > uint32(len(buf)) {
		return m, fmt.Errorf("vhost-user: request %d has %d bytes; at most %d are supported", m.request, size, len(buf))
	}
	m.payload = buf[:size]
	_, err = io.ReadFull(c, m.payload)
	return m, err
}

// rights returns the descriptors in ancillary data.
func rights(oob []byte) (fds []int, err error) {
	if len(oob) == 0 {
		return nil, nil
	}
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, fmt.Errorf("vhost-user: ancillary data: %w", err)
	}
	for i := range msgs {
		if f, err := unix.ParseUnixRights(&msgs[i]); err == nil {
			fds = append(fds, f...)
		}
	}
	for _, fd := range fds {
		unix.CloseOnExec(fd)
	}
	return fds, nil
}

// reply answers a request.
func reply(c *net.UnixConn, request uint32, payload []byte) error {
	b := make([]byte, headerLen, headerLen+len(payload))
	binary.LittleEndian.PutUint32(b, request)
	binary.LittleEndian.PutUint32(b[4:], flagVersion|flagReply)
	binary.LittleEndian.PutUint32(b[8:], uint32(len(payload)))
	_, err := c.Write(append(b, payload...))
	return err
}

func replyU64(c *net.UnixConn, request uint32, v uint64) error {
	return reply(c, request, binary.LittleEndian.AppendUint64(nil, v))
}
