// Package virtio drives virtio 1.2 devices: the mmio (version 2) and PCI
// transports, split virtqueues with event suppression, and the network device.
//
// A queue is three tables in memory that driver and device share:
//
//	descriptors   avail ring (driver writes)     used ring (device writes)
//	┌────────────┐  ┌───────┬─────┬───────────┐  ┌───────┬─────┬────────────┐
//	│ addr, len  │  │ flags │ idx │ ring[idx] │  │ flags │ idx │ {id, len}  │
//	│ flags,next │  └───────┴─────┴───────────┘  └───────┴─────┴────────────┘
//	└────────────┘    … used_event                 … avail_event
//
// The driver puts the number of a descriptor into the avail ring; the device does its work
// and puts it into the used ring. Indexes run freely through 16 bits. used_event and
// avail_event are the indexes at which a side wants a notification (VIRTIO_F_EVENT_IDX).
//
// What the device writes is not trusted: an index, a descriptor number or a
// length out of range stops the queue and is counted; nothing is indexed by
// it.
package virtio
