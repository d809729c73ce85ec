package vhostuser

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"
)

// Features of this package's rings, for a device to offer.
const (
	FeatureEventIdx = 1 << 29
	FeatureVersion1 = 1 << 32
	FeatureMQ       = 1 << 22 // of a network device: several pairs of queues (VIRTIO_NET_F_MQ)
)

// A Device is what a guest sees of a device.
type Device struct {
	Features uint64 // virtio feature bits that are offered
	Queues   int    // number of queues that the monitor passes to this process
	// Pairs is how many pairs of these queues a network device may have, for a monitor that asks;
	// 0: one that asks is told Queues. More than one needs FeatureMQ.
	Pairs  int
	Config []byte // configuration space; nil: of the monitor
	// Translated says that the guest's addresses go through an IOMMU of the monitor's:
	// VIRTIO_F_ACCESS_PLATFORM is offered, and the monitor asked where they lead.
	Translated bool
}

// A Handler runs a device's rings. Its methods are called one at a time.
type Handler interface {
	// Start starts a ring.
	Start(r *Ring)
	// Stop stops a ring: when it returns, the handler does not use the ring any
	// more. Methods of the ring, Wait among them, fail before Stop is called. If it
	// does not return within stopLimit the session ends.
	Stop(r *Ring)
}

// stopLimit is how long a handler may take to stop a ring. The monitor waits for it.
const stopLimit = 2 * time.Second

var errStuck = fmt.Errorf("vhost-user: a ring was not stopped within %v", stopLimit)

// session is one monitor's connection.
type session struct {
	conn  *net.UnixConn
	dev   Device
	h     Handler
	mem   *Memory
	tlb   *iotlb // nil: addresses are the guest's physical ones
	feat  uint64 // negotiated
	proto uint64
	vring []vring
	stuck chan struct{} // closed when a Stop that took too long returns; nil if there is none
}

// vring is what the monitor has set of one ring.
type vring struct {
	num               uint32
	base              uint16
	desc, used, avail uint64
	hasAddr, enabled  bool
	asked             uint64 // the last translation that was asked for
	kick, call        *os.File
	ring              *Ring // while it runs
}

// Serve is the device of one monitor until the monitor closes the connection, which
// is no error, or violates the protocol. It closes conn.
func Serve(conn *net.UnixConn, dev Device, h Handler) error {
	s := &session{conn: conn, dev: dev, h: h, vring: make([]vring, dev.Queues)}
	if dev.Translated {
		s.tlb, s.dev.Features = newIOTLB(), dev.Features|FeaturePlatform
	}
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
	s.conn.Close() // first: the monitor may wait for an answer
	if s.stopAll() == nil {
		s.release()
		return
	}
	var left []*Ring
	for i := range s.vring {
		if r := s.vring[i].ring; r != nil {
			r.end()
			left = append(left, r)
		}
	}
	go func() { // the memory stays mapped while it is used
		<-s.stuck
		for _, r := range left {
			s.h.Stop(r)
		}
		s.release()
	}()
}

// release closes and unmaps what the monitor has shared.
func (s *session) release() {
	for i := range s.vring {
		s.vring[i].drop()
	}
	if s.tlb != nil {
		s.tlb.close()
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

// handle handles a message, and answers it if it needs an answer.
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
		if s.tlb != nil {
			v |= protoBackRequests
		}
		if s.dev.Pairs > 1 {
			v |= protoMQ
		}
		return replyU64(s.conn, m.request, v)
	case reqGetQueueNum:
		return replyU64(s.conn, m.request, uint64(cmp.Or(s.dev.Pairs, s.dev.Queues)))
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
		if err := s.stop(int(i)); err != nil {
			return err
		}
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
			err = fmt.Errorf("vhost-user: features %#x were not offered", extra)
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
		return s.stopAll()
	case reqIOTLB:
		return s.translate(m)
	case reqSetBackRequests:
		if s.tlb == nil {
			return fmt.Errorf("vhost-user: request %d was not offered", m.request)
		}
		return s.tlb.listen(m)
	case reqSetMemTable:
		mem, err := mapMemory(m)
		if err != nil {
			return err
		}
		if err := s.stopAll(); err != nil { // before their memory is unmapped
			mem.Close()
			return err
		}
		if s.mem != nil {
			s.mem.Close()
		}
		s.mem = mem
		return s.startAll()
	}
	return s.setRing(m)
}

// setRing handles a message about one ring.
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
		r.desc, r.used, r.avail = le.Uint64(m.payload[8:]), le.Uint64(m.payload[16:]), le.Uint64(m.payload[24:])
		r.hasAddr, r.asked = true, ^uint64(0)
	case reqSetVringEnable:
		r.enabled = num != 0
		if !r.enabled {
			return s.stop(int(index))
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
		if err := s.stop(int(index)); err != nil {
			if f != nil {
				f.Close()
			}
			return err
		}
		if r.kick != nil {
			r.kick.Close()
		}
		r.kick = f
	}
	return s.start(int(index))
}

// setCall replaces the eventfd that interrupts the guest, also while the ring runs.
func (s *session) setCall(i int, f *os.File) error {
	r := &s.vring[i]
	running := r.ring != nil
	if err := s.stop(i); err != nil {
		if f != nil {
			f.Close()
		}
		return err
	}
	if r.call != nil {
		r.call.Close()
	}
	r.call = f
	if running {
		return s.start(i)
	}
	return nil
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
