package virtio

import (
	"errors"
	"strconv"
	"sync/atomic"

	"github.com/thurward/thurward/internal/guest/framebuf"
)

// Several pairs of queues (virtio 1.2, 5.1.5.1 and 5.1.6.5.5). Each pair is a Net of its own,
// with a pool of its own, for one worker; the device behind them is one. What is about the
// device as a whole is called of its first pair only, by one goroutine: Changed, News, Look,
// LinkUp, Stopped and Renew.

// MaxPairs is how many pairs of queues of a device are used at most.
const MaxPairs = 8

// mostPairs is the largest number of pairs that a device can have
// (VIRTIO_NET_CTRL_MQ_VQ_PAIRS_MAX).
const mostPairs = 0x8000

// A device is what the pairs of queues of one network device have in common.
type device struct {
	t       Transport
	feat    uint64
	mac     [6]byte
	hasMAC  bool
	mtu     int // as the device reports it; 0: it does not
	down    bool
	pairs   []*Net
	control *control               // nil with one pair
	why     atomic.Pointer[string] // why some pair was given up; nil: none was
	news    atomic.Bool            // another pair than the first has seen that the configuration may have changed
}

// readPairs returns how many pairs of queues a device has.
func readPairs(t Transport, feat uint64) (int, error) {
	if feat&featMQ == 0 {
		return 1, nil
	}
	n := int(t.Config16(cfgPairs))
	if n < 1 || n > mostPairs {
		return 0, errors.New("virtio: the device says that it has " + strconv.Itoa(n) + " pairs of queues (want 1 to " + strconv.Itoa(mostPairs) + ")")
	}
	return n, nil
}

// Pairs returns how many pairs of queues the device can use, 1 unless they were wanted.
func (d *NetDevice) Pairs() int { return min(max(d.pairs, 1), MaxPairs) }

// SharesInterrupt reports whether one interrupt stands for several pairs of queues, as over MMIO:
// who acknowledges it may do so for what has just come to another pair.
func (n *Net) SharesInterrupt() bool {
	_, mmio := n.t.(MMIO)
	return mmio && len(n.dev.pairs) > 1
}

// Open starts the device with one pair of queues, which receives into buffers of the pool.
// Frames that a buffer does not hold are dropped, and counted as malformed.
func (d *NetDevice) Open(alloc Alloc, pool *framebuf.Pool, opt NetOptions) (*Net, error) {
	ns, err := d.OpenPairs(alloc, []*framebuf.Pool{pool}, opt)
	if err != nil {
		return nil, err
	}
	return ns[0], nil
}

// OpenPairs is Open with a pair of queues for each of the pools, of which there are at most
// Pairs.
func (d *NetDevice) OpenPairs(alloc Alloc, pools []*framebuf.Pool, opt NetOptions) ([]*Net, error) {
	size := opt.QueueSize
	if size == 0 {
		size = defaultSize
	}
	if size < 2 || size > maxQueue || size&(size-1) != 0 {
		return nil, errors.New("virtio: queue size " + strconv.Itoa(size) + " is not a power of two from 2 to 1024")
	}
	if n := len(pools); n < 1 || n > d.Pairs() || n > 1 && opt.Now == nil {
		return nil, errors.New("virtio: " + strconv.Itoa(n) + " pairs of queues of " + strconv.Itoa(d.Pairs()) + ", or no clock")
	}
	dev := &device{t: d.t, feat: d.feat, mac: d.mac, hasMAC: d.hasMAC, mtu: d.mtu}
	if err := d.open(dev, alloc, pools, uint16(size), opt.Now); err != nil {
		fail(d.t)
		return nil, err
	}
	if err := dev.start(); err != nil {
		return nil, err
	}
	return dev.pairs, nil
}

// open makes the queues.
func (d *NetDevice) open(dev *device, alloc Alloc, pools []*framebuf.Pool, size uint16, now func() int64) (err error) {
	t, feat := d.t, d.feat
	if feat&featMTU != 0 && d.mtu < 68 {
		return errors.New("virtio: the device's MTU of " + strconv.Itoa(d.mtu) + " is below IPv4's minimum of 68")
	}
	event := feat&featEventIdx != 0
	for i, pool := range pools {
		n := &Net{t: t, dev: dev, pool: pool, feat: feat, room: pool.Size() - (framebuf.Headroom - netHeader)}
		if n.rx, err = setupQueue(t, uint32(2*i+rxQueue), size, event, alloc); err == nil {
			n.tx, err = setupQueue(t, uint32(2*i+txQueue), size, event, alloc)
		}
		if err == nil {
			err = n.startOffloads()
		}
		if err != nil {
			return err
		}
		dev.pairs = append(dev.pairs, n)
	}
	if len(pools) > 1 {
		dev.control, err = newControl(t, d.pairs, event, alloc, now)
	}
	return err
}

// start has the device use its queues, once they are set up, and posts buffers.
func (d *device) start() error {
	if err := start(d.t); err != nil {
		return err
	}
	if d.control != nil {
		if err := d.control.setPairs(d.t, len(d.pairs)); err != nil {
			fail(d.t)
			return err
		}
	}
	for _, n := range d.pairs {
		n.refill()
	}
	d.linkStatus()
	return nil
}

func (d *device) linkStatus() {
	if d.feat&featStatus != 0 {
		d.down = d.t.Config16(cfgStatus)&linkUp == 0
	}
}

// News handles a configuration change of which another pair of queues has learned.
func (n *Net) News() {
	if n.dev.news.Load() && n.dev.news.Swap(false) {
		n.Changed()
	}
}

// queues calls f for each queue of the device.
func (d *device) queues(f func(q *queue) error) error {
	for _, n := range d.pairs {
		if err := f(n.rx); err != nil {
			return err
		}
		if err := f(n.tx); err != nil {
			return err
		}
	}
	if d.control != nil {
		return f(d.control.q)
	}
	return nil
}
