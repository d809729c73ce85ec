package vhostuser

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"
)

// Features that the rings of this package have, to be offered by a device.
const (
	FeatureEventIdx = 1 << 29
	FeatureVersion1 = 1 << 32
)

// A Device is what a guest sees.
type Device struct {
	Features uint64 // virtio feature bits that are offered
	Queues   int    // number of queues that the monitor hands over
	Config   []byte // configuration space; nil: the monitor has it
}

// A Handler runs a device's rings. Its methods are called one at a time.
type Handler interface {
	// Start hands a ring over.
	Start(r *Ring)
	// Stop takes it back: when it returns, the ring is not used any more.
	// A Wait on the ring has been ended before.
	Stop(r *Ring)
}

// session is one monitor's connection.
type session struct {
	conn  *net.UnixConn
	dev   Device
	h     Handler
	mem   *Memory
	feat  uint64 // agreed on
	proto uint64
	vring []vring
}

// vring is what the monitor has said of one ring.
type vring struct {
	num               uint32
	base              uint16
	desc, used, avail uint64
	hasAddr, enabled  bool
	kick, call        *os.File
	ring              *Ring // while it runs
}

// Serve plays the device for one monitor until that closes the connection,
// which is no error, or breaks the protocol.
func Serve(conn *net.UnixConn, dev Device, h Handler) error {
	s := &session{conn: conn, dev: dev, h: h, vring: make([]vring, dev.Queues)}
	defer s.close()
	buf := make([]byte, maxPayload)
	for {
		m, err := receive(conn, buf)
		if err != nil {
			if errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) {
				return nil
			}
			return err
		}
		err = s.handle(&m)
		m.close()
		if err != nil {
			return err
		}
	}
}

func (s *session) close() {
	for i := range s.vring {
		s.stop(i)
		s.vring[i].drop()
	}
	if s.mem != nil {
		s.mem.Close()
	}
}

func (v *vring) drop() {
	for _, f := range []**os.File{&v.kick, &v.call} {
		if *f != nil {
			(*f).Close()
			*f = nil
		}
	}
}

// handle does what a message asks for, and answers it if it wants that.
func (s *session) handle(m *message) error {
	le := binary.LittleEndian
	switch m.request {
	case reqGetFeatures:
		return replyU64(s.conn, m.request, s.dev.Features|featProtocol)
	case reqGetProtoFeatures:
		v := uint64(protoAck)
		if s.dev.Config != nil {
			v |= protoConfig
		}
		return replyU64(s.conn, m.request, v)
	case reqGetQueueNum:
		return replyU64(s.conn, m.request, uint64(s.dev.Queues))
	case reqGetConfig:
		return s.config(m)
	case reqGetVringBase:
		i, _, err := m.state()
		if err != nil {
			return err
		}
		if int(i) >= len(s.vring) {
			return fmt.Errorf("vhost-user: ring %d of %d", i, len(s.vring))
		}
		s.stop(int(i))
		s.vring[i].drop()
		b := le.AppendUint32(nil, i)
		return reply(s.conn, m.request, le.AppendUint32(b, uint32(s.vring[i].base)))
	case reqGetStatus:
		return replyU64(s.conn, m.request, 0)
	}
	err := s.set(m)
	if m.flags&flagNeedAck != 0 && s.proto&protoAck != 0 {
		failed := uint64(0)
		if err != nil {
			failed = 1
		}
		if e := replyU64(s.conn, m.request, failed); err == nil {
			err = e
		}
	}
	return err
}

// set handles the messages that have no answer of their own.
func (s *session) set(m *message) error {
	switch m.request {
	case reqSetFeatures:
		v, err := m.u64()
		if extra := v &^ (s.dev.Features | featProtocol); err == nil && extra != 0 {
			err = fmt.Errorf("vhost-user: features %#x, which were not offered", extra)
		}
		s.feat = v
		return err
	case reqSetProtoFeatures:
		v, err := m.u64()
		s.proto = v
		return err
	case reqSetOwner, reqSetConfig, reqSetStatus:
		return nil
	case reqResetOwner, reqResetDevice:
		for i := range s.vring {
			s.stop(i)
		}
		return nil
	case reqSetMemTable:
		mem, err := mapMemory(m)
		if err != nil {
			return err
		}
		for i := range s.vring {
			s.stop(i) // its memory goes
		}
		if s.mem != nil {
			s.mem.Close()
		}
		s.mem = mem
		return s.startAll()
	}
	return s.setRing(m)
}

// setRing handles what is said of one ring.
func (s *session) setRing(m *message) error {
	var index, num uint32
	var v uint64
	var err error
	switch m.request {
	case reqSetVringKick, reqSetVringCall, reqSetVringErr:
		v, err = m.u64()
		index = uint32(v & 0xff)
	case reqSetVringNum, reqSetVringBase, reqSetVringEnable, reqSetVringAddr:
		index, num, err = m.state()
	default:
		return fmt.Errorf("vhost-user: request %d is not known", m.request)
	}
	if err != nil {
		return err
	}
	if int(index) >= len(s.vring) {
		return fmt.Errorf("vhost-user: ring %d of %d", index, len(s.vring))
	}
	r := &s.vring[index]
	switch m.request {
	case reqSetVringNum:
		r.num = num
	case reqSetVringBase:
		r.base = uint16(num)
	case reqSetVringAddr:
		if len(m.payload) < 40 {
			return m.short()
		}
		le := binary.LittleEndian
		r.desc, r.used, r.avail, r.hasAddr = le.Uint64(m.payload[8:]), le.Uint64(m.payload[16:]), le.Uint64(m.payload[24:]), true
	case reqSetVringEnable:
		r.enabled = num != 0
		if !r.enabled {
			s.stop(int(index))
			return nil
		}
	case reqSetVringErr:
		return nil // errors end the session
	case reqSetVringKick, reqSetVringCall:
		var f *os.File
		if v&noFD == 0 {
			if f, err = m.event(); err != nil {
				return err
			}
		}
		if m.request == reqSetVringCall {
			return s.setCall(int(index), f)
		}
		s.stop(int(index))
		if r.kick != nil {
			r.kick.Close()
		}
		r.kick = f
	}
	return s.start(int(index))
}

// setCall replaces the way to interrupt the guest, also while the ring runs.
func (s *session) setCall(i int, f *os.File) error {
	r := &s.vring[i]
	running := r.ring != nil
	s.stop(i)
	if r.call != nil {
		r.call.Close()
	}
	r.call = f
	if running {
		return s.start(i)
	}
	return nil
}

func (s *session) startAll() error {
	for i := range s.vring {
		if err := s.start(i); err != nil {
			return err
		}
	}
	return nil
}

// start runs a ring once all is known of it.
func (s *session) start(i int) error {
	v := &s.vring[i]
	if v.ring != nil || s.mem == nil || !v.hasAddr || v.num == 0 || v.kick == nil || s.feat&featProtocol != 0 && !v.enabled {
		return nil
	}
	r, err := newRing(s.mem, v.num, v.desc, v.used, v.avail, v.base, s.feat&FeatureEventIdx != 0)
	if err != nil {
		return err
	}
	if err := v.kick.SetReadDeadline(time.Time{}); err != nil { // stop may have set one
		return fmt.Errorf("vhost-user: ring %d: %w", i, err)
	}
	r.Index, r.kick, r.call = i, v.kick, v.call
	v.ring = r
	s.h.Start(r)
	return nil
}

// stop takes a ring back from the handler and remembers how far it came.
func (s *session) stop(i int) {
	v := &s.vring[i]
	if v.ring == nil {
		return
	}
	v.ring.kick.SetReadDeadline(time.Unix(1, 0)) //nolint:errcheck // start has made sure that it takes one
	s.h.Stop(v.ring)
	v.base, v.ring = v.ring.next, nil
}

// config answers GET_CONFIG: offset, size, flags, then the bytes.
func (s *session) config(m *message) error {
	if len(m.payload) < 12 {
		return m.short()
	}
	off, size := binary.LittleEndian.Uint32(m.payload), binary.LittleEndian.Uint32(m.payload[4:])
	if size > maxPayload-12 || len(m.payload) < 12+int(size) {
		return m.short()
	}
	out := append([]byte(nil), m.payload[:12+size]...)
	clear(out[12:])
	if uint64(off) < uint64(len(s.dev.Config)) {
		copy(out[12:], s.dev.Config[off:])
	}
	return reply(s.conn, m.request, out)
}
