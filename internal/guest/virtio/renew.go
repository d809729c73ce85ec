package virtio

import (
	"errors"
	"strconv"
	"sync/atomic"

	"github.com/thurward/thurward/internal/guest/framebuf"
)

// A device that asks for a reset, has reset itself or has broken virtio's rules is reset and
// set up again (virtio 1.2, 2.1.2 and 2.4). Its queues keep their memory. Frames that it had
// not returned are lost, and counted; their buffers return to the pool only once the status
// says that the reset is over, after which the device must not touch them.

// Look reads the device's status, and gives the device up when it asks for a reset or runs no
// more. It costs an exit to the host, and is called about once a second, since a device that
// resets itself does not interrupt.
func (n *Net) Look() {
	if n.Stopped() != "" {
		return
	}
	if why := trouble(n.t.Status()); why != "" {
		n.giveUp(why)
	}
}

// trouble says why a device with this status does not work, "" if it does.
func trouble(status uint32) string {
	switch {
	case status&statusNeedsReset != 0:
		return "the device asks for a reset"
	case status&statusDriverOK == 0:
		return "the device has reset itself"
	}
	return ""
}

// Renew resets a device that was given up, and starts it again as it was: with the same
// features, address and queues. After an error it stays given up. Nobody may use any of its
// pairs of queues meanwhile.
func (n *Net) Renew() error {
	d := n.dev
	for _, p := range d.pairs {
		if p.reason == "" {
			p.halt(n.Stopped())
		}
	}
	if err := reset(d.t); err != nil {
		return err
	}
	for _, p := range d.pairs {
		p.c.RxLost += uint64(p.rx.unread())
		p.c.TxLost += uint64(p.tx.requests() - p.tx.unread())
		p.rx.takeBack(p.pool)
		p.long = longs{}
		p.tx.takeBack(p.pool)
	}
	if d.control != nil {
		d.control.q.clear()
	}
	if err := d.again(); err != nil {
		fail(d.t)
		return err
	}
	for _, p := range d.pairs {
		p.reason, p.armed = "", false
	}
	if err := d.start(); err != nil {
		for _, p := range d.pairs {
			p.halt(n.Stopped())
		}
		return err
	}
	d.why.Store(nil)
	n.c.Renewals++
	return nil
}

// again negotiates what was negotiated before, and gives the device its queues.
func (d *device) again() error {
	feat, err := negotiate(d.t, netID, d.feat)
	if err != nil {
		return err
	}
	if feat != d.feat {
		return errors.New("virtio: the device offers other features than before: 0x" + strconv.FormatUint(feat, 16) + ", not 0x" + strconv.FormatUint(d.feat, 16))
	}
	for i := range d.mac {
		if d.hasMAC && d.t.Config8(cfgMAC+uint32(i)) != d.mac[i] {
			return errors.New("virtio: the device has another hardware address than before")
		}
	}
	if d.control != nil {
		if now, err := readPairs(d.t, feat); err != nil || 2*now != int(d.control.q.number) {
			return errors.New("virtio: the device has another number of queues than before")
		}
	}
	return d.queues(func(q *queue) error { return q.enable(d.t) })
}

// reset resets a device and waits until that is over.
func reset(t Transport) error {
	if t.Status() != 0 {
		t.SetStatus(0)
	}
	for range resetReads {
		if t.Status() == 0 {
			return nil
		}
	}
	return errors.New("virtio: the device's reset does not end (status 0x" + strconv.FormatUint(uint64(t.Status()), 16) + ")")
}

// unread returns how many buffers the device has returned that were not taken, as far as what it
// says can be.
func (q *queue) unread() int {
	k := int(uint16(atomic.LoadUint32(q.usedHead)>>16) - q.usedIdx)
	if k > int(q.size)-q.nfree {
		return 0
	}
	return k
}

// takeBack returns all buffers that the device had to the pool.
func (q *queue) takeBack(pool *framebuf.Pool) {
	for i := range q.buf[:q.size] {
		b := q.buf[i]
		if b == noBuf {
			continue
		}
		if b&chained != 0 {
			for buf, next, ok := q.takeRest(uint16(i)); ok; buf, next, ok = q.takeRest(next) {
				pool.Put(buf)
			}
		}
		pool.Put(b &^ chained)
	}
	q.clear()
}

// requests returns how many requests the device has.
func (q *queue) requests() (k int) {
	for _, b := range q.buf[:q.size] {
		if b != noBuf {
			k++
		}
	}
	return k
}

// clear makes a queue as it was when it was new. Its counters stay.
func (q *queue) clear() {
	clear(q.desc)
	clear(q.avail)
	clear(q.used)
	*q.availHead, *q.usedHead, *q.usedEvent, *q.availEvent = 0, 0, 0, 0
	q.availIdx, q.next, q.usedIdx, q.looked, q.noIRQ = 0, 0, 0, 0, 0
	q.stopped, q.nfree = "", int(q.size)
	for i := range q.free[:q.size] {
		q.free[i] = q.size - 1 - uint16(i)
	}
	for i := range q.buf {
		q.buf[i] = noBuf
	}
	q.suppress()
}

// enable gives a queue to the device again.
func (q *queue) enable(t Transport) error {
	m, enabled := t.Queue(q.number)
	if enabled || m < uint32(q.size) {
		return errors.New("virtio: queue " + strconv.Itoa(int(q.number)) + " is not as it was before the reset")
	}
	availOff, usedOff, _ := ringBytes(int(q.size))
	return t.Enable(q.size, q.phys, q.phys+uint64(availOff), q.phys+uint64(usedOff))
}
