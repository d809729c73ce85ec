package netlab

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"
)

// QEMU's stream netdev puts the length of each frame before it, 4 bytes in
// network order (qemu net/stream.c). The older socket netdev does the same.
const lengthPrefix = 4

// maxFrame bounds a length prefix: the largest frame with segmentation offload
// (65535 bytes of IP) fits.
const maxFrame = 65536 + minFrame

// queueLen is the number of frames that wait for a slow reader. Frames beyond it
// are dropped.
const queueLen = 4096

// Serve attaches every connection that l accepts to the switch, under the
// given name: the other end is a virtual machine's NIC. It returns when l is
// closed.
func (s *Switch) Serve(l net.Listener, name string) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go s.ServeConn(c, name)
	}
}

// ServeConn attaches one connection to the switch until it ends. It returns nil
// if the other side closed it.
func (s *Switch) ServeConn(c net.Conn, name string) error {
	defer c.Close()
	queue := make(chan []byte, queueLen)
	var p *Port
	p = s.Attach(name, func(f []byte) {
		select {
		case queue <- f:
		default:
			p.drop(f)
		}
	})
	done := make(chan struct{})
	defer close(done)
	defer p.Detach()
	go writeFrames(c, queue, done)
	return readFrames(c, p.Send)
}

// readFrames calls f with each frame of a stream, in memory of its own.
func readFrames(r io.Reader, f func([]byte)) error {
	br := bufio.NewReaderSize(r, 1<<17)
	var head [lengthPrefix]byte
	for {
		if _, err := io.ReadFull(br, head[:]); err != nil {
			if err == io.EOF {
				return nil
			}
			return err
		}
		n := binary.BigEndian.Uint32(head[:])
		if n > maxFrame {
			return fmt.Errorf("frame of %d bytes in a QEMU stream; at most %d are possible", n, maxFrame)
		}
		frame := make([]byte, n)
		if _, err := io.ReadFull(br, frame); err != nil {
			return err
		}
		f(frame)
	}
}

// writeFrames writes queued frames, as many as there are in each system call,
// until done or until writing fails.
func writeFrames(w io.Writer, queue <-chan []byte, done <-chan struct{}) {
	bw := bufio.NewWriterSize(w, 1<<17)
	for {
		var f []byte
		select {
		case f = <-queue:
		default:
			if bw.Flush() != nil {
				return
			}
			select {
			case f = <-queue:
			case <-done:
				return
			}
		}
		if _, err := bw.Write(binary.BigEndian.AppendUint32(bw.AvailableBuffer(), uint32(len(f)))); err != nil {
			return
		}
		if _, err := bw.Write(f); err != nil {
			return
		}
	}
}

// ServeVM is ServeConn for a machine's NIC.
func (s *Switch) ServeVM(c net.Conn) {
	s.ServeConn(c, "vm") //nolint:errcheck // the launcher sees the machine end
}
