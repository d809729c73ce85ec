package main

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// prime sends one frame of every flow and answers what reaches [wan], so that
// the flows are established as their packets are measured: a flow that never had
// an answer is "new" to the rules for ever, and each packet takes another way
// through them.
//
// At most [window] frames are under way. More overflow fl0's ring of 256, which
// is filled faster than new flows are admitted; the flows that were lost would be
// admitted while others are measured. Whether all went well is seen at lan0: an
// answer that comes back there has made its flow established.
func (l *linux) prime(st *stream, flows int) error {
	wan, err := packetSocket(l.wan, "wan0")
	if err != nil {
		return err
	}
	defer unix.Close(wan) //nolint:errcheck // at the end
	size := st.size
	st.size = 60
	defer func() { st.size = size }()
	var in, out [2048]byte
	answered, lost, last := 0, 0, time.Now()
	for sent := 0; answered+lost < flows; {
		if sent < flows && sent-answered-lost < window {
			n := st.fill(out[:])
			if _, err := unix.Write(l.tx, out[:n]); err != nil {
				return err
			}
			sent++
		}
		if err := received(wan, in[:], func(f []byte) error {
			if f[30] != 198 {
				return nil
			}
			_, err := unix.Write(wan, answer(f))
			return err
		}); err != nil {
			return err
		}
		if err := received(l.tx, in[:], func(f []byte) error {
			if f[26] == 198 {
				answered++
				last = time.Now()
			}
			return nil
		}); err != nil {
			return err
		}
		if time.Since(last) > 200*time.Millisecond {
			lost, last = sent-answered, time.Now()
		}
	}
	return allAnswered(answered, flows)
}

// received calls f with each UDP packet that waits at a packet socket.
func received(fd int, b []byte, f func(frame []byte) error) error {
	for {
		n, _, err := unix.Recvfrom(fd, b, unix.MSG_DONTWAIT)
		switch {
		case err == unix.EAGAIN:
			return nil
		case err != nil && err != unix.EINTR:
			return err
		case err == nil && isUDP(b[:n]):
			if err := f(b[:n]); err != nil {
				return err
			}
		}
	}
}

// allAnswered refuses a measurement in which too many flows are not established.
func allAnswered(answered, flows int) error {
	if (flows-answered)*50 > flows {
		return fmt.Errorf("%d of %d flows got no answer, which is more than 2 %%", flows-answered, flows)
	}
	return nil
}
