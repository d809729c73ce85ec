package virtio

import "github.com/thurward/thurward/internal/guest/framebuf"

// The network device (virtio 1.2, 5.1).
const (
	netID = 1

	featCsum     = 1 << 0 // the device completes checksums
	featGuestCsm = 1 << 1 // and so does the driver
	featMTU      = 1 << 3
	featMAC      = 1 << 5
	featGuestTSO = 1 << 7  // the driver takes large TCP segments over IPv4
	featHostTSO  = 1 << 11 // and so does the device
	featMRGRxBuf = 1 << 15
	featStatus   = 1 << 16
	featCtrlVQ   = 1 << 17 // there is a control queue
	featMQ       = 1 << 22 // there may be several pairs of queues

	cfgMAC    = 0 // offsets in the device's configuration
	cfgStatus = 6
	cfgPairs  = 8
	cfgMTU    = 10

	netHeader   = 12 // struct virtio_net_hdr with num_buffers, always so in version 1
	hdrFlags    = 0
	hdrGSO      = 1 // gso_type
	hdrLen      = 2
	hdrSize     = 4 // gso_size
	hdrStart    = 6 // csum_start
	hdrOffset   = 8 // csum_offset
	hdrBuffers  = 10
	needsCsum   = 1
	gsoNone     = 0
	gsoTCPv4    = 1
	tcpChecksum = 16 // csum_offset of TCP
	minFrame    = 14
	linkUp      = 1
	rxQueue     = 0
	txQueue     = 1
	defaultSize = 256
)

// NetOptions are what a caller may choose about a network device.
type NetOptions struct {
	QueueSize int          // descriptors of each queue, a power of two; 0: 256
	Now       func() int64 // monotonic nanoseconds; needed for several pairs of queues
}

// NetCounters counts what a device did. Dropped frames are counted by cause.
type NetCounters struct {
	RxPackets, RxBytes   uint64
	TxPackets, TxBytes   uint64
	RxMalformed          uint64 // too short, or not as their headers of virtio say: see offload.go
	RxCompleted          uint64 // frames whose checksums were completed on arrival
	RxLarge, TxLarge     uint64 // large frames: segments of TCP that the links' ends cut
	RxNoBuffer           uint64 // times the receive queue could not be refilled, or a frame not be copied: the pool was empty
	TxFull               uint64 // frames refused because the transmit queue had no room
	TxKicks              uint64 // notifications because the transmit queue made no progress: see Kick
	Notifies, Interrupts uint64
	BadIndex, BadID      uint64 // violations by the device; each stops it
	BadLength            uint64
	Renewals             uint64 // times that the device was reset and set up again: see Renew
	RxLost, TxLost       uint64 // frames lost by that; those to send may have been sent
}

// Net is a pair of queues of a virtio network device, or a device with one. Only one goroutine
// may use it; see pairs.go for what is about the device.
type Net struct {
	t      Transport
	dev    *device
	pool   *framebuf.Pool
	rx, tx *queue
	c      NetCounters
	room   uint32 // bytes of a buffer that the device may write
	feat   uint64
	reason string
	armed  bool

	takes, sends bool // large frames, from and to the device
	long         longs
}

// A NetDevice is a network device that has not been started: its features are negotiated
// and its address is read.
type NetDevice struct {
	t      Transport
	feat   uint64
	mac    [6]byte
	hasMAC bool
	mtu    int
	pairs  int // of queues, that it has
}

// Wanted is what is taken of a network device that offers it.
type Wanted struct {
	Offloads bool // of checksums and of TCP segmentation
	Pairs    bool // several pairs of queues
}

// FindNet negotiates features with the device at t. It is called once for a device: some
// cannot be reset, and each register access costs an exit to the host.
func FindNet(t Transport, want Wanted) (*NetDevice, error) {
	feat, err := negotiateBy(t, netID, func(offered uint64) uint64 {
		f := uint64(featMTU | featMAC | featMRGRxBuf | featStatus | featEventIdx)
		if want.Offloads {
			f |= offloads(offered)
		}
		if want.Pairs && offered&featCtrlVQ != 0 && offered&featMQ != 0 {
			f |= featCtrlVQ | featMQ
		}
		return f
	})
	if err != nil {
		return nil, err
	}
	d := &NetDevice{t: t, feat: feat, hasMAC: feat&featMAC != 0}
	if d.pairs, err = readPairs(t, feat); err != nil {
		fail(t)
		return nil, err
	}
	if d.hasMAC {
		for i := range d.mac {
			d.mac[i] = t.Config8(cfgMAC + uint32(i))
		}
	}
	if feat&featMTU != 0 {
		d.mtu = int(t.Config16(cfgMTU))
	}
	return d, nil
}

// MAC returns the device's hardware address; ok is false when it has none.
func (d *NetDevice) MAC() (mac [6]byte, ok bool) { return d.mac, d.hasMAC }

// MTU returns the size in bytes of the largest IP packet that the link carries as the device
// reports it, or 0 when it does not. Open refuses one below 68.
func (d *NetDevice) MTU() int { return d.mtu }

// MAC returns the device's hardware address; ok is false when it has none.
func (n *Net) MAC() (mac [6]byte, ok bool) { return n.dev.mac, n.dev.hasMAC }

// MTU returns the size in bytes of the largest IP packet that the link carries as the device
// reports it, or 0 when it does not.
func (n *Net) MTU() int { return n.dev.mtu }

// Large returns whether large frames may come from the device, and may be sent to it.
func (n *Net) Large() (takes, sends bool) { return n.takes, n.sends }

// LinkUp reports whether the link is up, which is assumed of devices without
// VIRTIO_NET_F_STATUS.
func (n *Net) LinkUp() bool { return !n.dev.down }

// Stopped returns why the driver gave the device up, or some pair of its queues, or "".
func (n *Net) Stopped() string {
	if why := n.dev.why.Load(); why != nil {
		return *why
	}
	return ""
}

// Lost returns how many frames renewals of the device have lost. It changes in Renew only.
func (n *Net) Lost() uint64 { return n.c.RxLost + n.c.TxLost }

// Counters returns the device's counters.
func (n *Net) Counters() *NetCounters {
	n.c.Notifies = n.rx.notifies + n.tx.notifies
	n.c.BadIndex = n.rx.badIndex + n.tx.badIndex
	n.c.BadID = n.rx.badID + n.tx.badID
	n.c.BadLength = n.rx.badLength // transmitted buffers have no length to check
	return &n.c
}

// refill posts buffers for reception: long ones while large frames come, or else as many as
// descriptors and pool allow.
func (n *Net) refill() {
	q := n.rx
	if n.long.credit > 0 {
		n.refillLong()
	}
	if k := q.room(); n.long.posted == 0 && k > 0 {
		bufs := n.pool.Take(k)
		q.postEmpty(bufs, n.pool.Phys(0)+framebuf.Headroom-netHeader, n.room)
		if len(bufs) < k {
			n.c.RxNoBuffer++
		}
	}
	if q.publish() {
		n.t.Notify(q.number)
	}
}

// Receive moves received frames to dst, whose buffers become the caller's,
// and returns their number. It posts new buffers in their place. With large frames among
// them it takes at most Burst buffers.
func (n *Net) Receive(dst []framebuf.Frame) int {
	q := n.rx
	avail := q.pending()
	if avail == 0 {
		if q.stopped != "" {
			n.giveUp(q.stopped)
		} else if int(q.size) == q.room() {
			n.refill() // the pool was empty and may have buffers again
		}
		return 0
	}
	n.fetch(min(avail, len(dst)))
	got, bytes, was := 0, uint64(0), n.c.RxLarge
	for before, end := avail, 0; avail > end && got < len(dst); avail-- {
		k, total := n.ordinary(dst[got:min(len(dst), got+avail-end)])
		got, bytes, avail = got+k, bytes+total, avail-k
		if avail == end || got == len(dst) {
			break
		}
		b, ln := q.take()
		if b == noBuf {
			q.badUsed()
			n.giveUp(q.stopped)
			break
		}
		room := n.room
		if n.pool.IsLong(b) {
			n.long.posted--
			room = framebuf.LongSize
		}
		if ln < netHeader || ln > room {
			n.lied(b)
			break
		}
		f, k, length := n.offloaded(b, ln, avail)
		if avail -= k; k > 0 {
			end = max(before-(Burst-framebuf.MaxParts)-1, 0)
		}
		if length != 0 {
			dst[got] = f
			bytes += uint64(length)
			got++
		}
		if q.stopped != "" {
			n.giveUp(q.stopped)
			break
		}
	}
	n.c.RxPackets += uint64(got)
	n.c.RxBytes += bytes
	if n.long.credit > 0 || n.c.RxLarge != was {
		n.long.saw(int(n.c.RxLarge-was), got)
	}
	n.refill()
	return got
}

// lied gives the device up since it says it wrote what buffer b cannot hold.
func (n *Net) lied(b uint32) {
	n.rx.badLength++
	n.rx.stop("the device says it wrote more or less than a buffer holds")
	n.pool.Put(b)
	n.giveUp(n.rx.stopped)
}

// reclaim takes back the buffers that the device has sent.
func (n *Net) reclaim() {
	q := n.tx
	k := q.pending()
	q.fetch(k)
	for ; k > 0; k-- {
		if k -= n.reclaimOrdinary(k); k == 0 {
			break
		}
		b, id := q.takeSent()
		if b == noBuf {
			q.badUsed()
			break
		}
		if b&chained != 0 {
			b &^= chained
			n.reclaimRest(id)
		}
		n.pool.Put(b)
	}
	if q.stopped != "" {
		n.giveUp(q.stopped)
	}
}

// HasRoom reports whether Transmit would take k frames now, or half of what the queue holds
// if that is less. A device that was given up has room: its frames are dropped, not kept
// waiting.
func (n *Net) HasRoom(k int) bool {
	q := n.tx
	k = min(k, int(q.size)/2)
	if q.room() < k {
		n.reclaim()
	}
	return q.room() >= k || n.reason != ""
}

// Transmit takes the first n frames of src and returns n. The others stay the caller's and
// are counted in TxFull.
func (n *Net) Transmit(src []framebuf.Frame) int {
	q := n.tx
	if q.room() < len(src) {
		n.reclaim() // many at a time: each read of what the device has written costs a cache miss
	}
	if n.reason != "" {
		n.c.TxFull += uint64(len(src))
		return 0
	}
	k, bytes := n.postAll(src)
	if q.publish() {
		n.t.Notify(q.number)
	}
	n.c.TxPackets += uint64(k)
	n.c.TxBytes += bytes
	n.c.TxFull += uint64(len(src) - k)
	return k
}

// Arm enables interrupts and reports whether work is waiting already, in which case the
// caller must not sleep. Sent buffers alone do not interrupt: they are taken back at the
// next transmission. Their return matters only when the receive queue is empty because the
// transmit queue has all buffers.
func (n *Net) Arm() bool {
	if n.reason != "" {
		return false
	}
	n.reclaim()
	if n.rx.room() > 0 {
		n.refill()
	}
	n.armed = true
	work := n.rx.arm()
	if n.rx.room() > int(n.rx.size)/2 && n.long.posted < fewLong && n.tx.arm() {
		work = true
	}
	return work
}

// Disarm disables interrupts: the caller polls.
func (n *Net) Disarm() {
	if n.armed {
		n.armed = false
		n.rx.suppress()
		n.tx.suppress()
	}
}

// Ack acknowledges an interrupt. It is called before the queues are read, so that whatever
// is added afterwards interrupts again. Of a pair of queues but the first it reports that the
// first is to look at News.
func (n *Net) Ack() (news bool) {
	changed := n.t.Interrupt()
	n.c.Interrupts++
	if changed && n.dev.pairs[0] != n {
		n.dev.news.Store(true)
		return true
	}
	if changed {
		n.Changed()
	}
	return false
}

// Changed handles a configuration change interrupt.
func (n *Net) Changed() {
	if n.Look(); n.Stopped() == "" {
		n.dev.linkStatus()
	}
}

// Kick notifies the device of each queue that has made no progress since the last call
// although the device has buffers: it may have missed a notification (ADR 0013). Each
// notification costs an exit to the host. Kick is to be called a few times a second while
// the firewall is awake.
func (n *Net) Kick() {
	n.reclaim()
	if n.reason != "" {
		return
	}
	n.rx.kick(n.t)
	if n.tx.kick(n.t) {
		n.c.TxKicks++
	}
}

// giveUp stops the pair of queues until Renew, which the whole device then needs.
func (n *Net) giveUp(why string) {
	if n.reason == "" {
		n.halt(why)
		n.dev.why.CompareAndSwap(nil, &why)
		fail(n.t)
	}
}

// halt stops the pair of queues.
func (n *Net) halt(why string) {
	n.reason = why
	n.rx.stop(why)
	n.tx.stop(why)
}
