package virtio

import (
	"encoding/binary"
	"errors"
	"strconv"
	"sync/atomic"
	"unsafe"
)

// The control queue of a network device (virtio 1.2, 5.1.6.5). It is used for one command, while
// the device is set up: how many pairs of queues there are (5.1.6.5.5).
const (
	ctrlMQ       = 4 // class VIRTIO_NET_CTRL_MQ
	ctrlMQSet    = 0 // command VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET
	ctrlOK       = 0 // VIRTIO_NET_OK, in the byte that the device writes
	ctrlUnset    = 0xff
	ctrlSize     = 4 // of the command: class, command, the number of pairs
	ctrlAck      = 64
	ctrlQueue    = 64 // descriptors that are asked for; two are used
	ctrlLimit    = int64(2e9)
	ctrlKick     = int64(100e6)
	ctrlBuf      = 0 // the number that stands for the command in the queue
	ctrlMemory   = ctrlAck + 4
	leastControl = 2
)

// A control is a control queue, with the memory of its command.
type control struct {
	q    *queue
	mem  []byte // the command; from ctrlAck on, in another cache line, the answer
	phys uint64
	now  func() int64
}

// newControl makes the control queue, which follows the queues of all pairs that the device
// has.
func newControl(t Transport, pairs int, event bool, alloc Alloc, now func() int64) (*control, error) {
	number := uint32(2 * pairs)
	q, err := setupQueue(t, number, ctrlQueue, event, alloc)
	if err != nil {
		return nil, err
	}
	if q.size < leastControl {
		return nil, errors.New("virtio: the control queue (queue " + strconv.Itoa(int(number)) + ") has room for no command")
	}
	m, err := alloc(ctrlMemory)
	if err != nil {
		return nil, errors.New("virtio: no memory for the control queue: " + err.Error())
	}
	return &control{q: q, mem: m.Mem, phys: m.Phys, now: now}, nil
}

// setPairs has the device use the first n pairs of queues, and waits for its answer for at most
// ctrlLimit.
func (c *control) setPairs(t Transport, n int) error {
	q := c.q
	c.mem[0], c.mem[1] = ctrlMQ, ctrlMQSet
	binary.LittleEndian.PutUint16(c.mem[2:], uint16(n))
	ack := (*uint32)(unsafe.Pointer(&c.mem[ctrlAck]))
	atomic.StoreUint32(ack, ctrlUnset)
	id := q.postFirst(c.phys, ctrlSize, ctrlBuf)
	answer := q.postNext(id, c.phys+ctrlAck, 1, ctrlBuf)
	q.desc[answer].flags = descWrite
	if q.publish() {
		t.Notify(q.number)
	}
	what := "virtio: the device does not take " + strconv.Itoa(n) + " pairs of queues: "
	kick := c.now() + ctrlKick
	for limit := c.now() + ctrlLimit; q.pending() == 0; {
		now := c.now()
		if q.stopped != "" {
			return errors.New(what + q.stopped)
		}
		if now >= limit {
			return errors.New(what + "no answer within " + strconv.Itoa(int(ctrlLimit/1e9)) + " s")
		}
		if now >= kick { // it may have missed the notification (ADR 0013)
			kick = now + ctrlKick
			t.Notify(q.number)
		}
	}
	b, head := q.takeSent()
	if b != ctrlBuf|chained {
		q.badUsed()
		return errors.New(what + q.stopped)
	}
	q.takeRest(head)
	if q.pending() != 0 || q.stopped != "" { // there was one request, of two descriptors
		return errors.New(what + q.stopped)
	}
	if v := atomic.LoadUint32(ack) & 0xff; v != ctrlOK {
		return errors.New(what + "it answers " + strconv.Itoa(int(v)))
	}
	return nil
}
