package replay

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"time"
)

// Block types of pcapng (draft-ietf-opsawg-pcapng section 4).
const (
	blockSection   = 0x0a0d0d0a
	blockInterface = 1
	blockPacket    = 2 // obsolete, still found
	blockSimple    = 3
	blockEnhanced  = 6
)

const (
	// maxBlock is the largest size of a block that is read: a frame with options.
	maxBlock = maxRecord + 64<<10
	// maxInterfaces is the largest number of interfaces of a section.
	maxInterfaces = 1 << 16
)

// An ngInterface is one interface of a section, by which its frames' times are
// computed.
type ngInterface struct {
	link      int
	perSecond uint64 // units of time
	offset    int64  // seconds
}

// An ngReader reads the newer format. All its frames must have the link type of
// the first interface.
type ngReader struct {
	r          *bufio.Reader
	order      binary.ByteOrder
	interfaces []ngInterface
	link       int // -1: no interface yet
	head       [12]byte
	buf        []byte
}

// openPcapng reads up to the first interface.
func openPcapng(r *bufio.Reader) (*ngReader, error) {
	n := &ngReader{r: r, link: -1}
	for n.link < 0 {
		switch _, ok, err := n.block(); {
		case err != nil:
			return nil, noEOF(err)
		case ok:
			return nil, errors.New("a frame before any interface is described")
		}
	}
	return n, nil
}

func (n *ngReader) next() (record, error) {
	for {
		if rec, ok, err := n.block(); ok || err != nil {
			return rec, err
		}
	}
}

// block reads a block, and returns the frame if it holds one.
func (n *ngReader) block() (rec record, ok bool, err error) {
	h := &n.head // type, length, and of a section the byte order
	if _, err := io.ReadFull(n.r, h[:8]); err != nil {
		return rec, false, err
	}
	have := 8
	if binary.BigEndian.Uint32(h[:]) == blockSection {
		if _, err := io.ReadFull(n.r, h[8:]); err != nil {
			return rec, false, noEOF(err)
		}
		have = 12
		switch binary.BigEndian.Uint32(h[8:]) {
		case 0x1a2b3c4d:
			n.order = binary.BigEndian
		case 0x4d3c2b1a:
			n.order = binary.LittleEndian
		default:
			return rec, false, fmt.Errorf("a section with the byte order %x", h[8:])
		}
		n.interfaces = n.interfaces[:0]
	} else if n.order == nil {
		return rec, false, errors.New("it does not begin with a section")
	}
	typ, length := n.order.Uint32(h[:]), n.order.Uint32(h[4:])
	if length%4 != 0 || length < uint32(have+4) {
		return rec, false, fmt.Errorf("a block of %d bytes", length)
	}
	rest := int64(length) - int64(have)
	switch typ {
	case blockInterface, blockPacket, blockEnhanced:
	case blockSimple:
		return rec, false, errors.New("a frame without a time (a simple packet block; capture with times)")
	default:
		return rec, false, n.skip(rest)
	}
	if rest > maxBlock {
		return rec, false, fmt.Errorf("a block of %d bytes; at most %d are possible", length, maxBlock)
	}
	if n.buf, err = readInto(n.buf, n.r, int(rest)); err != nil {
		return rec, false, err
	}
	body := n.buf[:rest-4]
	if typ == blockInterface {
		return rec, false, n.describe(body)
	}
	rec, err = n.packet(typ, body)
	return rec, err == nil, err
}

// skip skips n bytes. If the file ends before, it ends inside a block.
func (n *ngReader) skip(count int64) error {
	_, err := io.CopyN(io.Discard, n.r, count)
	return noEOF(err)
}

// describe decodes an interface description block (section 4.2).
func (n *ngReader) describe(b []byte) error {
	if len(b) < 8 || len(n.interfaces) == maxInterfaces {
		return fmt.Errorf("interface %d: it is cut short, or there are too many", len(n.interfaces))
	}
	i := ngInterface{link: int(n.order.Uint16(b)), perSecond: 1e6}
	for b = b[8:]; len(b) >= 4; {
		code, size := n.order.Uint16(b), int(n.order.Uint16(b[2:]))
		if code == 0 {
			break
		}
		padded := 4 + (size+3)&^3
		if len(b) < padded {
			return fmt.Errorf("interface %d: option %d is cut short", len(n.interfaces), code)
		}
		switch {
		case code == 9 && size == 1: // if_tsresol
			var err error
			if i.perSecond, err = resolution(b[4]); err != nil {
				return fmt.Errorf("interface %d: %w", len(n.interfaces), err)
			}
		case code == 14 && size == 8: // if_tsoffset
			i.offset = int64(n.order.Uint64(b[4:]))
		}
		b = b[padded:]
	}
	if n.link < 0 {
		n.link = i.link
	}
	n.interfaces = append(n.interfaces, i)
	return nil
}

// resolution returns how many units of time make a second.
func resolution(v byte) (uint64, error) {
	exp, unit := v&0x7f, uint64(1)
	if v&0x80 != 0 && exp < 64 {
		return 1 << exp, nil
	}
	if v&0x80 != 0 || exp > 19 {
		return 0, fmt.Errorf("times of resolution %#x", v)
	}
	for range exp {
		unit *= 10
	}
	return unit, nil
}

// packet decodes an enhanced packet block (section 4.3) or an obsolete packet block
// (appendix A).
func (n *ngReader) packet(typ uint32, b []byte) (rec record, err error) {
	const fixed = 20
	if len(b) < fixed {
		return rec, errors.New("a packet block is cut short")
	}
	id := n.order.Uint32(b)
	if typ == blockPacket {
		id = uint32(n.order.Uint16(b))
	}
	if uint64(id) >= uint64(len(n.interfaces)) {
		return rec, fmt.Errorf("it is of interface %d, and %d are described", id, len(n.interfaces))
	}
	if l := n.interfaces[id].link; l != n.link {
		return rec, fmt.Errorf("it is of interface %d, which has link type %d; the first has %d "+
			"(split the capture: tshark -Y 'frame.interface_id == 0' -w)", id, l, n.link)
	}
	size, long := n.order.Uint32(b[12:]), n.order.Uint32(b[16:])
	if size > maxRecord || int(size) > len(b)-fixed {
		return rec, fmt.Errorf("%d bytes in a block with room for %d", size, len(b)-fixed)
	}
	rec.at, err = n.interfaces[id].time(uint64(n.order.Uint32(b[4:]))<<32 | uint64(n.order.Uint32(b[8:])))
	rec.data, rec.long = b[fixed:fixed+size], int(long)
	return rec, err
}

// farFuture is the end of the year 9999, in seconds since 1970.
const farFuture = 253_402_300_800

func (i ngInterface) time(units uint64) (time.Time, error) {
	sec, part := units/i.perSecond, units%i.perSecond
	if sec > farFuture || i.offset > farFuture || i.offset < -farFuture {
		return time.Time{}, fmt.Errorf("its time is %d seconds and %d after 1970", sec, i.offset)
	}
	hi, lo := bits.Mul64(part, 1e9)
	ns, _ := bits.Div64(hi, lo, i.perSecond) // part is less than a second
	return time.Unix(int64(sec)+i.offset, int64(ns)).UTC(), nil
}
