package differential

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/thurward/thurward/internal/shared/packet"
)

// TestSegmentsAreLinux compares what packet.PutSegment makes of a large TCP segment with what
// Linux does, byte by byte: a large frame is written to a TAP device with a virtio header,
// crosses a bridge, and leaves by a TAP device without offloads, so that Linux cuts it.
func TestSegmentsAreLinux(t *testing.T) {
	ns := fmt.Sprintf("thdseg%d", os.Getpid()%100000)
	if out, err := exec.Command("ip", "netns", "add", ns).CombinedOutput(); err != nil {
		t.Skipf("network namespaces may not be made here: %s", bytes.TrimSpace(out))
	}
	t.Cleanup(func() { exec.Command("ip", "netns", "del", ns).Run() }) //nolint:errcheck // at the end
	in, out := tapIn(t, ns, "in0", unix.IFF_VNET_HDR), tapIn(t, ns, "out0", 0)
	for _, a := range []string{"link add br0 type bridge", "link set br0 up", "link set in0 master br0 up", "link set out0 master br0 up"} {
		cmd := exec.Command("ip", append([]string{"-n", ns}, strings.Fields(a)...)...)
		if b, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("ip %s: %v: %s", a, err, b)
		}
	}
	r := rand.New(rand.NewPCG(7, 7))
	cut := 0
	for i := range 300 {
		f, headers, size := largeSegment(r)
		var p packet.Packet
		n, why := packet.ParseLarge(f, len(f), 34, &p)
		if why != 0 || n != headers {
			t.Fatalf("%v, %d bytes of headers, want %d", why, n, headers)
		}
		h := make([]byte, 10, 10+len(f))
		h[0], h[1] = 1, 1 // NEEDS_CSUM, TCPV4
		for k, v := range []int{headers, size, 34, 16} {
			binary.LittleEndian.PutUint16(h[2+2*k:], uint16(v))
		}
		if _, err := in.Write(append(h, f...)); err != nil {
			t.Fatal(err)
		}
		for k := 0; k*size < int(p.Payload); k++ {
			want := make([]byte, min(headers+size, len(f)-k*size))
			copy(want[headers:], f[headers+k*size:])
			packet.PutSegment(want, f[:headers], &p, k, size)
			got, err := nextTo(out, f[:6])
			if err != nil {
				t.Fatalf("frame %d, segment %d: %v", i, k, err)
			}
			if !bytes.Equal(got, want) {
				t.Fatalf("frame %d, segment %d of %d bytes of payload in %d: Linux made\n%x, we\n%x", i, k, p.Payload, size, got[:min(len(got), 100)], want[:min(len(want), 100)])
			}
			cut++
		}
	}
	if cut < 1000 {
		t.Errorf("only %d segments", cut)
	}
}

// largeSegment makes the frame of a large segment, with the checksum of its pseudo-header.
func largeSegment(r *rand.Rand) (f []byte, headers, size int) {
	opts := []int{0, 12, 20, 40}[r.IntN(4)]
	headers = 34 + 20 + opts
	size = 48 + r.IntN(1460-opts-48)
	n := size + 1 + r.IntN(min(40*size, 65535-20-20-opts-size))
	f = make([]byte, headers+n)
	for i := headers; i < len(f); i++ {
		f[i] = byte(r.Uint32())
	}
	copy(f, []byte{2, 0, 0, 0, 9, 1, 2, 0, 0, 0, 9, 2, 8, 0})
	packet.PutIPv4(f[14:], packet.Addr(r.Uint32()), packet.Addr(r.Uint32()), packet.TCP, uint8(1+r.IntN(255)), 20+opts+n)
	packet.SetID(f[14:], uint16(r.Uint32()))
	packet.SetTOS(f[14:], uint8(r.Uint32()))
	if r.IntN(2) == 0 {
		packet.SetDF(f[14:])
	}
	l4 := f[34:]
	for i := range 20 + opts {
		l4[i] = byte(r.Uint32())
	}
	l4[1], l4[3] = l4[1]|1, l4[3]|1
	l4[12] = byte(20+opts) / 4 << 4
	l4[13] = packet.ACK | l4[13]&(packet.FIN|packet.PSH|0x40|packet.CWR)
	for i := range opts {
		l4[20+i] = 1
	}
	var b [12]byte
	copy(b[:8], f[26:])
	b[9] = packet.TCP
	binary.BigEndian.PutUint16(b[10:], uint16(20+opts+n))
	binary.BigEndian.PutUint16(l4[16:], packet.Sum(b[:], 0))
	return f, headers, size
}

// tapIn makes a TAP device in a namespace, without offloads.
func tapIn(t *testing.T, ns, name string, flags uint16) *os.File {
	t.Helper()
	fd, err := -1, error(nil)
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked: the thread stays in the namespace
		var n *os.File
		if n, err = os.Open("/run/netns/" + ns); err != nil {
			return
		}
		defer n.Close()
		if err = unix.Setns(int(n.Fd()), unix.CLONE_NEWNET); err != nil {
			return
		}
		if fd, err = unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0); err != nil {
			return
		}
		var ifr *unix.Ifreq
		if ifr, err = unix.NewIfreq(name); err == nil {
			ifr.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | flags)
			err = unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr)
		}
	}()
	<-done
	if err != nil {
		t.Skipf("no TAP device: %v", err)
	}
	f := os.NewFile(uintptr(fd), name)
	t.Cleanup(func() { f.Close() })
	return f
}

// nextTo returns the next frame to a link-layer address.
func nextTo(f *os.File, mac []byte) ([]byte, error) {
	if err := f.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return nil, err
	}
	b := make([]byte, 70_000)
	for {
		n, err := f.Read(b)
		if err != nil {
			return nil, err
		}
		if bytes.HasPrefix(b[:n], mac) {
			return b[:n], nil
		}
	}
}
