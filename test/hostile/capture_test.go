package hostile

import (
	"encoding/binary"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// The attacker has the monitor itself, and speaks vhost-user as he likes. He
// could do more, as the same user; but what a monitor does by mistake is the same.

// open returns the number of descriptors of the launcher, and of its mappings.
func (m *monitor) open() (files, maps int) {
	dir := "/proc/" + strconv.Itoa(os.Getppid())
	e, err := os.ReadDir(dir + "/fd")
	check(err)
	b, err := os.ReadFile(dir + "/maps")
	check(err)
	return len(e), strings.Count(string(b), "memfd:guest")
}

// regions is the payload of SET_MEM_TABLE.
func regions(list ...[4]uint64) []byte {
	b := words(uint64(len(list)))
	for _, r := range list {
		b = append(b, words(r[:]...)...)
	}
	return b
}

func init() {
	mon := func(name string, bad, good func(m *monitor) error) { machine("monitor/"+name, bad, good) }
	// bad says something that ends the session.
	bad := func(f func(m *monitor)) func(m *monitor) error {
		return func(m *monitor) error {
			func() {
				defer func() { recover() }() //nolint:errcheck // the session may end under it
				f(m)
			}()
			m.refused()
			return nil
		}
	}
	// good says something and is then served.
	good := func(f func(m *monitor)) func(m *monitor) error {
		return func(m *monitor) error {
			f(m)
			return honestStart(m)
		}
	}
	mon("memory-cut-short", func(m *monitor) error {
		m.front.start()
		if unix.Ftruncate(m.fd, 0) == nil {
			return fmt.Errorf("memory that takes seals was cut short")
		}
		m.honest()
		return nil
	}, nil)
	mon("unsealed-memory-cut-short", func(m *monitor) error {
		fd, err := unix.MemfdCreate("guest", unix.MFD_CLOEXEC)
		check(err)
		check(unix.Ftruncate(fd, memSize))
		m.fd = fd
		m.mem, err = unix.Mmap(fd, 0, memSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		check(err)
		m.front.start()
		m.honest()
		check(unix.Ftruncate(fd, 0))
		m.kick(tx)
		time.Sleep(50 * time.Millisecond)
		m.ask(getFeatures, nil)
		return nil
	}, func(m *monitor) error { // such memory is as good as any
		fd, err := unix.MemfdCreate("guest", unix.MFD_CLOEXEC)
		check(err)
		check(unix.Ftruncate(fd, memSize))
		m.fd = fd
		m.mem, err = unix.Mmap(fd, 0, memSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		check(err)
		return honestStart(m)
	})
	mon("memory-beyond-its-file", bad(func(m *monitor) {
		m.send(setMemTable, regions([4]uint64{guestBase, memSize + 4096, userBase, 0}), m.fd)
	}), nil)
	mon("memory-around", bad(func(m *monitor) {
		m.send(setMemTable, regions([4]uint64{guestBase, memSize, ^uint64(0) - 4095, 0}), m.fd)
	}), nil)
	mon("memory-without-a-file", bad(func(m *monitor) {
		m.send(setMemTable, regions([4]uint64{guestBase, memSize, userBase, 0}))
	}), nil)
	mon("nine-regions", bad(func(m *monitor) {
		var r [][4]uint64
		for i := range uint64(9) {
			r = append(r, [4]uint64{guestBase + i<<16, 1 << 16, userBase + i<<16, i << 16})
		}
		m.send(setMemTable, regions(r...), m.fd, m.fd, m.fd, m.fd, m.fd, m.fd, m.fd, m.fd)
	}), func(m *monitor) error { // eight
		m.send(setFeatures, words(featureVersion1|featureProtocol))
		var r [][4]uint64
		const part = memSize / 8
		for i := range uint64(8) {
			r = append(r, [4]uint64{guestBase + i*part, part, userBase + i*part, i * part})
		}
		m.send(setMemTable, regions(r...), m.fd, m.fd, m.fd, m.fd, m.fd, m.fd, m.fd, m.fd)
		m.begin(rx)
		m.begin(tx)
		m.honest()
		return nil
	})
	mon("memory-of-64-tb", func(m *monitor) error {
		fd, err := unix.MemfdCreate("guest", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
		check(err)
		check(unix.Ftruncate(fd, 1<<46))
		m.send(setMemTable, regions([4]uint64{guestBase, 1 << 46, userBase, 0}), fd)
		return nil // taken or refused: no more than addresses
	}, nil)
	mon("memory-again-and-again", good(func(m *monitor) {
		for range 2000 {
			m.share()
		}
		m.ask(getFeatures, nil)
		if _, maps := m.open(); maps > 2 {
			panic(fmt.Errorf("%d mappings", maps))
		}
	}), nil)
	mon("rings-again-and-again", good(func(m *monitor) {
		m.share()
		for range 1000 {
			m.begin(rx)
			m.begin(tx)
		}
		m.ask(getFeatures, nil)
		if files, _ := m.open(); files > 60 {
			panic(fmt.Errorf("%d descriptors", files))
		}
	}), nil)
	mon("many-descriptors", good(func(m *monitor) {
		fds := make([]int, 8)
		for i := range fds {
			fds[i] = m.fd
		}
		for range 1000 {
			m.send(setOwner, nil, fds...)
		}
		m.ask(getFeatures, nil)
		if files, _ := m.open(); files > 60 {
			panic(fmt.Errorf("%d descriptors", files))
		}
	}), nil)
	mon("too-many-descriptors", bad(func(m *monitor) {
		fds := make([]int, 200)
		for i := range fds {
			fds[i] = m.fd
		}
		m.send(setOwner, nil, fds...)
	}), nil)
	for name, path := range map[string]string{"zero": "/dev/zero", "null": "/dev/null"} {
		mon("kick-is-dev-"+name, bad(func(m *monitor) {
			f, err := os.OpenFile(path, os.O_RDWR, 0)
			check(err)
			m.send(setVringKick, words(tx), raw(f))
		}), nil)
	}
	mon("call-is-a-full-pipe", bad(func(m *monitor) {
		r, w, err := os.Pipe()
		check(err)
		defer r.Close()
		check(unix.SetNonblock(raw(w), true))
		for err == nil {
			_, err = unix.Write(raw(w), make([]byte, 4096))
		}
		m.send(setVringCall, words(tx), raw(w))
	}), nil)
	mon("call-is-full", func(m *monitor) error {
		m.front.start()
		for i := range m.q {
			fd := raw(m.q[i].call)
			_, err := unix.Write(fd, words(1<<64-2))
			check(err)
			check(unix.SetNonblock(fd, false))
		}
		m.honest()
		return nil
	}, nil)
	// A kick that blocks cannot be waited for with a limit: the session ends.
	mon("kick-blocks", func(m *monitor) error {
		m.front.start()
		for i := range m.q {
			check(unix.SetNonblock(raw(m.q[i].kick), false))
			m.kick(i)
		}
		time.Sleep(50 * time.Millisecond)
		return nil
	}, nil)
	mon("unknown-request", bad(func(m *monitor) { m.send(99, nil) }), nil)
	mon("wrong-version", bad(func(m *monitor) {
		b := request(getFeatures, nil)
		b[4] = 2
		_, err := m.c.Write(b)
		check(err)
	}), nil)
	mon("message-of-4-gb", bad(func(m *monitor) {
		b := request(setFeatures, nil)
		binary.LittleEndian.PutUint32(b[8:], 1<<32-1)
		_, err := m.c.Write(b)
		check(err)
	}), nil)
	mon("half-a-message", func(m *monitor) error {
		_, err := m.c.Write(request(getFeatures, nil)[:7])
		return err
	}, func(m *monitor) error { // in two parts
		b := request(getFeatures, nil)
		_, err := m.c.Write(b[:7])
		check(err)
		time.Sleep(20 * time.Millisecond)
		_, err = m.c.Write(b[7:])
		check(err)
		m.answer(5 * time.Second)
		return honestStart(m)
	})
	mon("reads-no-answers", func(m *monitor) error {
		check(m.c.SetWriteDeadline(time.Now().Add(300 * time.Millisecond)))
		for {
			if _, err := m.c.Write(request(getFeatures, nil)); err != nil {
				m.note("")
				m.print("thurward: crash: forged")
				os.Exit(0)
			}
		}
	}, nil)
	mon("ring-out-of-range", bad(func(m *monitor) { m.send(setVringEnable, words(2|1<<32)) }), nil)
	mon("base-of-ring-255", bad(func(m *monitor) { m.send(getVringBase, words(255)) }), nil)
	mon("config-beyond-its-end", good(func(m *monitor) {
		for _, off := range []uint64{0, 8, 1 << 31, 1<<32 - 1} {
			m.ask(getConfig, append(words(off|64<<32), make([]byte, 4+64)...))
		}
	}), nil)
	mon("features-that-are-not-offered", bad(func(m *monitor) { m.send(setFeatures, words(1<<28)) }), nil)
}
