package virtio

import (
	"encoding/binary"
	"errors"
	"strconv"
)

// The socket device (virtio 1.2, 5.10). The firewall makes one connection at a time, to the
// host, and only sends: received data is discarded. It accepts no connections.
const (
	vsockID    = 19
	vsockRx    = 0
	vsockTx    = 1
	vsockEvent = 2
	cfgCID     = 0 // offset in the device's configuration

	// HostCID is the host's context id.
	HostCID = 2

	vsockRxBuffers, vsockRxSize = 32, 256
	vsockTxBuffers, vsockTxSize = 16, 8192
	vsockControl                = 4 // of the transmit buffers, kept for packets without data
	vsockEvents, vsockEventSize = 4, 8
)

// VsockCounters counts what the device did. Violations by the peer or the device are
// counted by cause.
type VsockCounters struct {
	TxPackets, TxBytes   uint64 // bytes: of data
	RxPackets, RxIgnored uint64 // ignored: bytes of data, all discarded
	Connects, Resets     uint64 // connections established; connections reset by either end
	TransportResets      uint64
	BadPacket            uint64 // too short, a length beyond the buffer, an unknown type, operation or address
	BadCredit            uint64 // an impossible fwd_cnt; the connection is reset
	Unasked              uint64 // for a connection that does not exist; answered with RST
	NoRoom               uint64 // RSTs not sent: no buffer
	TxKicks              uint64 // notifications because the transmit queue made no progress: see Kick
	Notifies, Interrupts uint64
	BadIndex, BadID      uint64 // violations by the device; each stops it
	BadLength            uint64
	Renewals             uint64 // times that the device was reset and set up again: see Renew
}

// Vsock is a socket device with at most one connection. Only one goroutine may use it.
type Vsock struct {
	t          Transport
	feat       uint64
	rx, tx, ev *queue
	rxMem      DMA
	txMem      DMA
	evMem      DMA
	txFree     []uint8
	cid        uint64
	reason     string
	armed      bool
	c          VsockCounters
	conn       conn
}

// OpenVsock starts the device at t. The first connection's port is derived from seed, which
// should differ at each boot.
func OpenVsock(t Transport, alloc Alloc, seed uint32) (*Vsock, error) {
	feat, err := negotiate(t, vsockID, featEventIdx)
	if err != nil {
		return nil, err
	}
	v := &Vsock{t: t, feat: feat}
	v.conn.local = seed
	event := feat&featEventIdx != 0
	for _, q := range [...]struct {
		to     **queue
		number uint32
		n      int
		size   int
		mem    *DMA
	}{
		{&v.rx, vsockRx, vsockRxBuffers, vsockRxSize, &v.rxMem},
		{&v.tx, vsockTx, vsockTxBuffers, vsockTxSize, &v.txMem},
		{&v.ev, vsockEvent, vsockEvents, vsockEventSize, &v.evMem},
	} {
		if *q.to, err = setupQueue(t, q.number, uint16(q.n), event, alloc); err != nil {
			fail(t)
			return nil, err
		}
		if *q.mem, err = alloc(q.n * q.size); err != nil {
			fail(t)
			return nil, errors.New("virtio: no memory for the buffers of queue " + strconv.Itoa(int(q.number)) + ": " + err.Error())
		}
	}
	for i := range int(v.tx.size) {
		v.txFree = append(v.txFree, uint8(i))
	}
	v.readCID()
	if err := start(t); err != nil {
		return nil, err
	}
	v.postAll()
	return v, nil
}

// postAll gives the device all buffers for what it receives.
func (v *Vsock) postAll() {
	for i := range v.rx.size {
		v.postRx(uint32(i))
	}
	for i := range v.ev.size {
		v.postEvent(uint32(i))
	}
	v.publish(v.rx)
	v.publish(v.ev)
}

// VsockBytes is the memory of the device's buffers in bytes.
const VsockBytes = vsockRxBuffers*vsockRxSize + vsockTxBuffers*vsockTxSize + vsockEvents*vsockEventSize

func (v *Vsock) readCID() {
	v.cid = uint64(v.t.Config32(cfgCID)) | uint64(v.t.Config32(cfgCID+4))<<32
}

// CID returns the guest's context id.
func (v *Vsock) CID() uint64 { return v.cid }

// Stopped returns why the driver gave the device up, or "".
func (v *Vsock) Stopped() string { return v.reason }

// Counters returns the device's counters.
func (v *Vsock) Counters() *VsockCounters {
	v.c.Notifies = v.rx.notifies + v.tx.notifies + v.ev.notifies
	v.c.BadIndex = v.rx.badIndex + v.tx.badIndex + v.ev.badIndex
	v.c.BadID = v.rx.badID + v.tx.badID + v.ev.badID
	v.c.BadLength = v.rx.badLength // the other queues have no length to check
	return &v.c
}

func (v *Vsock) postRx(b uint32) {
	v.rx.post(v.rxMem.Phys+uint64(b)*vsockRxSize, vsockRxSize, descWrite, b)
}

func (v *Vsock) postEvent(b uint32) {
	v.ev.post(v.evMem.Phys+uint64(b)*vsockEventSize, vsockEventSize, descWrite, b)
}

func (v *Vsock) publish(q *queue) {
	if q.publish() {
		v.t.Notify(q.number)
	}
}

// Poll handles received packets and events, and takes back sent buffers. Its work is
// bounded by the queues' sizes; nothing is pending in a device that was given up.
func (v *Vsock) Poll() {
	v.reclaim()
	for k := v.rx.pending(); k > 0; k-- {
		b, n := v.rx.take()
		if b == noBuf {
			v.rx.badUsed()
			break
		}
		if n > vsockRxSize {
			v.rx.badLength++
			v.rx.stop("the device says it wrote more than a buffer holds")
			break
		}
		v.receive(v.rxMem.Mem[int(b)*vsockRxSize:][:n])
		v.postRx(b)
	}
	for k := v.ev.pending(); k > 0; k-- {
		b, n := v.ev.take()
		if b == noBuf {
			v.ev.badUsed()
			break
		}
		if n >= 4 && n <= vsockEventSize && binary.LittleEndian.Uint32(v.evMem.Mem[int(b)*vsockEventSize:]) == 0 {
			v.transportReset()
		}
		v.postEvent(b)
		// Firecracker sends no packets after a reset until it is notified of the buffer,
		// whatever the indexes say.
		v.ev.publish()
		v.t.Notify(vsockEvent)
	}
	for _, q := range [...]*queue{v.rx, v.tx, v.ev} {
		if q.stopped != "" {
			v.giveUp(q.stopped)
			return
		}
	}
	v.publish(v.rx)
	v.Flush()
}

// transportReset handles a migration or a restored snapshot: all connections are gone, and
// the context id may have changed (virtio 1.2, 5.10.6.7).
func (v *Vsock) transportReset() {
	v.c.TransportResets++
	v.readCID()
	v.conn.drop()
}

// reclaim takes back the buffers that the device has sent.
func (v *Vsock) reclaim() {
	for k := v.tx.pending(); k > 0; k-- {
		b, _ := v.tx.take()
		if b == noBuf {
			v.tx.badUsed()
			return
		}
		v.txFree = append(v.txFree, uint8(b))
	}
}

// Flush makes sent packets visible to the device.
func (v *Vsock) Flush() {
	if v.reason == "" {
		v.publish(v.tx)
	}
}

// Kick notifies the device of each of its queues that has made no progress since the last call
// although the device has buffers: it may have missed a notification (see Net.Kick), and is
// notified of nothing more then, since it seems to be at work. Kick is to be called about once a
// second.
func (v *Vsock) Kick() {
	if v.reason != "" {
		return
	}
	v.rx.kick(v.t)
	if v.tx.kick(v.t) {
		v.c.TxKicks++
	}
}

// Arm enables interrupts and reports whether work is waiting already, in which case none
// may come. Sent buffers interrupt only while the transmit queue is full.
func (v *Vsock) Arm() bool {
	if v.reason != "" {
		return false
	}
	v.armed = true
	work := v.rx.arm()
	work = v.ev.arm() || work
	if len(v.txFree) <= vsockControl {
		work = v.tx.arm() || work
	}
	return work
}

// Disarm disables interrupts.
func (v *Vsock) Disarm() {
	if v.armed {
		v.armed = false
		v.rx.suppress()
		v.tx.suppress()
		v.ev.suppress()
	}
}

// Ack acknowledges an interrupt. It is called before Poll.
func (v *Vsock) Ack() {
	changed := v.t.Interrupt()
	v.c.Interrupts++
	if changed {
		v.Changed()
	}
}

// Changed handles a configuration change interrupt.
func (v *Vsock) Changed() {
	if v.t.Status()&statusNeedsReset != 0 {
		v.giveUp("the device asks for a reset")
	}
}

// giveUp stops the device until Renew.
func (v *Vsock) giveUp(why string) {
	if v.reason == "" {
		v.reason = why
		v.conn.drop()
		for _, q := range [...]*queue{v.rx, v.tx, v.ev} {
			q.stop(why)
		}
		fail(v.t)
	}
}
