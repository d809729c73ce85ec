package vhostvsock

import (
	"bytes"
	"io"
	"math/rand"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/thurward/thurward/internal/guest/virtio"
)

const port = 9000

func listen(t testing.TB) (path string, l *net.UnixListener) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "v")
	ln, err := net.Listen("unix", path+"_9000")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return path, ln.(*net.UnixListener)
}

// until polls the driver until ok.
func until(t testing.TB, v *virtio.Vsock, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); {
		if time.Now().After(end) {
			t.Fatalf("%s: not within 10 seconds (state %d, %q, %+v)", what, v.State(), v.Stopped(), *v.Counters())
		}
		v.Poll()
		time.Sleep(100 * time.Microsecond)
	}
}

func accept(t testing.TB, l *net.UnixListener) *net.UnixConn {
	t.Helper()
	l.SetDeadline(time.Now().Add(10 * time.Second))
	c, err := l.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func connected(t testing.TB, v *virtio.Vsock, l *net.UnixListener) *net.UnixConn {
	t.Helper()
	v.Connect(port)
	v.Flush()
	c := accept(t, l)
	until(t, v, "connecting", func() bool { return v.State() == virtio.Open })
	return c
}

// write sends what there is room for.
func write(v *virtio.Vsock, b []byte) (n int) {
	for n < len(b) {
		room := v.Buffer()
		if len(room) == 0 {
			break
		}
		k := copy(room, b[n:])
		v.Send(k)
		n += k
	}
	v.Flush()
	return n
}

// TestStream: data of the image's driver arrives at the Unix socket, complete and in
// order, also for a slow reader.
func TestStream(t *testing.T) {
	path, l := listen(t)
	m := newMachine(t, path)
	v := m.open()
	c := connected(t, v, l)
	want := make([]byte, 5<<20)
	rand.New(rand.NewSource(1)).Read(want)
	got := make(chan []byte)
	go func() {
		var b bytes.Buffer
		for b.Len() < len(want) {
			if _, err := io.CopyN(&b, c, int64(min(100_000, len(want)-b.Len()))); err != nil {
				break
			}
			time.Sleep(time.Millisecond)
		}
		got <- b.Bytes()
	}()
	n := 0
	until(t, v, "sending", func() bool { n += write(v, want[n:]); return n == len(want) })
	if g := <-got; !bytes.Equal(g, want) {
		t.Fatalf("%d bytes came of %d, or others", len(g), len(want))
	}
	until(t, v, "the tap", func() bool { return len(m.tapped()) == len(want) })
	if !bytes.Equal(m.tapped(), want) {
		t.Error("the tap has other bytes than the socket")
	}
	if k := v.Counters(); k.BadPacket+k.BadCredit+k.Unasked+k.Resets != 0 || m.counts.Bytes.Load() != uint64(len(want)) || m.counts.BadPackets.Load()+m.counts.Overruns.Load() != 0 {
		t.Errorf("driver %+v, device %d bytes", *k, m.counts.Bytes.Load())
	}
}

// TestTapOutlivesTheReader: what a guest has sent passes the tap, though the socket's other end
// takes nothing, and closes then.
func TestTapOutlivesTheReader(t *testing.T) {
	path, l := listen(t)
	m := newMachine(t, path)
	v := m.open()
	c := connected(t, v, l)
	want := make([]byte, bufAlloc) // more than sockets hold
	rand.New(rand.NewSource(2)).Read(want)
	n := 0
	until(t, v, "sending", func() bool { n += write(v, want[n:]); return n >= len(want) || m.counts.Writing.Load() > 0 && n > 1 })
	until(t, v, "the last packet", func() bool { return m.counts.Packets.Load() >= v.Counters().TxPackets })
	c.Close()
	until(t, v, "the end", func() bool { return v.State() == virtio.Closed })
	until(t, v, "the tap", func() bool { return len(m.tapped()) >= n })
	if !bytes.Equal(m.tapped(), want[:n]) {
		t.Errorf("%d bytes passed the tap, %d were sent", len(m.tapped()), n)
	}
}

// TestNobodyListens: a connection is refused while no process listens.
func TestNobodyListens(t *testing.T) {
	path := filepath.Join(t.TempDir(), "v")
	m := newMachine(t, path)
	v := m.open()
	for range 3 {
		v.Connect(port)
		v.Flush()
		until(t, v, "the refusal", func() bool { return v.State() == virtio.Closed })
	}
	ln, err := net.Listen("unix", path+"_9000")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	connected(t, v, ln.(*net.UnixListener))
	if m.counts.Refused.Load() != 3 || m.counts.Connections.Load() != 1 {
		t.Errorf("%d refused, %d made", m.counts.Refused.Load(), m.counts.Connections.Load())
	}
	if n := m.counts.Packets.Load(); n < 4 {
		t.Errorf("%d packets, and the guest has asked four times", n)
	}
}

// TestReaderStands: a reader that does not read uses bounded memory, and gets all data
// later.
func TestReaderStands(t *testing.T) {
	path, l := listen(t)
	m := newMachine(t, path)
	v := m.open()
	c := connected(t, v, l)
	n := 0
	for quiet := time.Now(); time.Since(quiet) < 200*time.Millisecond; v.Poll() {
		if k := write(v, make([]byte, 100_000)); k > 0 {
			n += k
			quiet = time.Now()
		}
	}
	if m.counts.Writing.Load() != 1 {
		t.Errorf("%d writes are under way, want the one that the reader does not take", m.counts.Writing.Load())
	}
	if n > 4*bufAlloc+1<<20 { // the sockets' own buffers are among it
		t.Errorf("%d bytes went to a reader that takes nothing", n)
	}
	go io.Copy(io.Discard, c)
	until(t, v, "going on", func() bool { n += write(v, make([]byte, 10_000)); return n > 4<<20 })
	until(t, v, "the end of the last write", func() bool { return m.counts.Writing.Load() == 0 })
}

// TestReaderGoes: the guest sees the end of a reader, and connects to the next one.
func TestReaderGoes(t *testing.T) {
	path, l := listen(t)
	v := newMachine(t, path).open()
	for range 5 {
		c := connected(t, v, l)
		write(v, []byte("hello"))
		b := make([]byte, 5)
		if _, err := io.ReadFull(c, b); err != nil {
			t.Fatal(err)
		}
		c.Close()
		until(t, v, "noticing", func() bool { return v.State() == virtio.Closed })
	}
}

// TestHalfClosed: a reader that has shut down its sending side gets data, and its end
// is seen.
func TestHalfClosed(t *testing.T) {
	path, l := listen(t)
	v := newMachine(t, path).open()
	c := connected(t, v, l)
	c.CloseWrite()
	for end := time.Now().Add(300 * time.Millisecond); time.Now().Before(end); v.Poll() {
		time.Sleep(time.Millisecond)
	}
	if v.State() != virtio.Open || write(v, []byte("still")) != 5 {
		t.Fatal("the connection is gone")
	}
	b := make([]byte, 5)
	if _, err := io.ReadFull(c, b); err != nil || string(b) != "still" {
		t.Fatal(err)
	}
	c.Close()
	until(t, v, "noticing", func() bool { return v.State() == virtio.Closed })
}

// TestChatter: data of the reader is sent within the guest's credit, and is harmless.
func TestChatter(t *testing.T) {
	path, l := listen(t)
	m := newMachine(t, path)
	v := m.open()
	c := connected(t, v, l)
	const n = 1 << 20
	go c.Write(make([]byte, n))
	until(t, v, "throwing it away", func() bool { return v.Counters().RxIgnored == n })
	if k := v.Counters(); k.BadPacket+k.BadCredit != 0 || v.State() != virtio.Open {
		t.Errorf("%+v", *k)
	}
}

// TestLastWords: data sent before the machine's end is delivered.
func TestLastWords(t *testing.T) {
	path, l := listen(t)
	m := newMachine(t, path)
	v := m.open()
	c := connected(t, v, l)
	write(v, []byte("I am dying"))
	until(t, v, "taking it", func() bool { return m.counts.Bytes.Load() == 10 })
	m.end()
	if b, err := io.ReadAll(c); err != nil || string(b) != "I am dying" {
		t.Errorf("%q, %v", b, err)
	}
}

// BenchmarkThroughput is bytes from the driver to the reader of the socket.
func BenchmarkThroughput(b *testing.B) {
	path, l := listen(b)
	v := newMachine(b, path).open()
	c := connected(b, v, l)
	go io.Copy(io.Discard, c)
	chunk := make([]byte, 8000)
	b.SetBytes(int64(len(chunk)))
	for b.Loop() {
		for n := 0; n < len(chunk); {
			k := write(v, chunk[n:])
			if n += k; k == 0 {
				v.Poll()
			}
		}
	}
}
