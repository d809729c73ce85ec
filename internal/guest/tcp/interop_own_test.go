package tcp

import (
	"bytes"
	"encoding/binary"
	"testing"
)

// An upstream is a server of gVisor's for one connection: it takes queries, and does
// with each what its number says.
type upstream struct {
	*socket
	out      []byte
	finishAt int // bytes of answers after which it sends its FIN; 0: it does not
	wrote    int
	pace     int
	mute     bool
	abort    bool
	ended    bool
	begin    int64
}

func (u *upstream) step() bool {
	if u.over() || u.l.now-u.begin > 60*second {
		u.ep.Close()
		return true
	}
	u.read(1 << 20)
	for len(u.got) >= 2 {
		n := int(binary.BigEndian.Uint16(u.got))
		if len(u.got) < 2+n {
			break
		}
		q := u.got[2 : 2+n]
		u.got = u.got[2+n:]
		if u.mute {
			continue
		}
		if u.abort {
			u.ep.Abort()
			return true
		}
		m := reply(q)
		u.out = append(binary.BigEndian.AppendUint16(u.out, uint16(len(m))), m...)
	}
	n := min(len(u.out), u.pace)
	if u.finishAt > 0 {
		n = min(n, u.finishAt-u.wrote)
	}
	rest := u.write(u.out[:n])
	u.wrote += n - len(rest)
	u.out = u.out[n-len(rest):]
	if u.finishAt > 0 && u.wrote == u.finishAt && !u.ended {
		u.ended = true
		u.finish()
	}
	return false
}

// TestInteropQuestions: the firewall asks servers with gVisor's TCP, of which some
// answer in pieces, some stop in the middle, some reset and some say nothing. Each
// query gets a response or is reported as closed within its timeout; on bad wires that is
// too short for many of the longest answers.
func TestInteropQuestions(t *testing.T) {
	interop(t, 8192, func(l *lab) (whole, of int) {
		type asked struct {
			want         []byte
			at           int64
			answered     bool
			closed, good bool
		}
		var questions []*asked
		l.message = func(id uint32, msg []byte) {
			tu, tag, served := l.ours.Conn(id)
			q := questions[tag]
			if served || tu.RemotePort != 53 || q.answered || q.closed || !bytes.Equal(msg, q.want) {
				t.Errorf("an answer of %d bytes to question %d: %+v", len(msg), tag, q)
			}
			q.answered = true
			l.ours.Close(id, l.now)
		}
		l.closed = func(_, tag uint32, _ *Tuple, served bool) {
			if q := questions[tag]; q.closed || served {
				t.Errorf("the end of question %d is told twice", tag)
			} else {
				q.closed = true
			}
		}
		accept := l.listen(53)
		var servers []*upstream
		kinds := map[uint16]int{} // by port of our end
		const ask = 20
		l.until(120, "questions", func() bool {
			if len(questions) < ask && l.rnd.IntN(20) == 0 {
				port := uint16(2000 + len(questions))
				remote, dst := hostAddrs[l.rnd.IntN(len(hostAddrs))], uint16(53)
				if l.rnd.IntN(10) == 0 {
					dst = 54 // where nobody listens
				}
				n := []int{2, 500, 20000, 65535}[l.rnd.IntN(4)]
				q := query(port, n, []int{4, 400, 4096}[l.rnd.IntN(3)])
				kinds[port] = l.rnd.IntN(6)
				questions = append(questions, &asked{want: reply(q), at: l.now, good: dst == 53 && kinds[port] < 3 && (n <= 500 || !l.fault.bad())})
				if !l.ours.Connect(&Tuple{Local: serverAddr, Remote: remote, LocalPort: port, RemotePort: dst}, uint32(port-2000), q, l.now) {
					t.Fatal("no connection")
				}
			}
			for s := accept(); s != nil; s = accept() {
				u := &upstream{socket: s, begin: l.now, pace: []int{500, 5000, 1 << 20}[l.rnd.IntN(3)]}
				a, e := s.ep.GetRemoteAddress()
				if e != nil {
					continue // it is over
				}
				switch kinds[a.Port] {
				case 3:
					u.finishAt = 1 + l.rnd.IntN(3)
				case 4:
					u.abort = true
				case 5:
					u.mute = true
				}
				servers = append(servers, u)
			}
			rest := servers[:0]
			for _, u := range servers {
				if !u.step() {
					rest = append(rest, u)
				}
			}
			servers = rest
			done := len(questions) == ask
			for i, q := range questions {
				if q.closed {
					continue
				}
				done = false
				if l.now-q.at > queryTimeout+lingerTimeout {
					t.Fatalf("question %d is open after %d s: %+v, %+v", i, (l.now-q.at)/second, q, l.ours.c)
				}
			}
			return done && len(servers) == 0
		})
		for _, q := range questions {
			if q.good {
				if of++; q.answered {
					whole++
				}
			}
		}
		return whole, of
	})
}

// TestInteropStreams: streams to a server with gVisor's TCP carry bytes in both
// directions at once, with slow readers at either end; either end says first that it
// has no more. All bytes arrive, or the end is reported.
func TestInteropStreams(t *testing.T) {
	interop(t, 8192, func(l *lab) (whole, of int) {
		type stream struct {
			id                  uint32
			out, sent, got      []byte
			back                []byte // what the server sends
			s                   *socket
			left                []byte
			read, serverReads   int
			serverFirst, finned bool
			closed, ended       bool
			progress            int
			moved               int64 // when bytes moved last
		}
		var streams []*stream
		l.closed = func(_, tag uint32, _ *Tuple, served bool) {
			if streams[tag].closed || served {
				t.Errorf("the end of stream %d is told twice", tag)
			}
			streams[tag].closed = true
		}
		accept := l.listen(853)
		for i := range 4 {
			k := &stream{sent: message(1+l.rnd.IntN(100000), byte(i)), back: message(1+l.rnd.IntN(100000), byte(7*i)), serverFirst: i%2 == 0}
			k.out, k.left = k.sent, k.back
			k.read, k.serverReads = []int{50, 500, 1 << 16}[l.rnd.IntN(3)], []int{100, 1000, 1 << 20}[l.rnd.IntN(3)]
			streams = append(streams, k)
			id, ok := l.ours.ConnectStream(&Tuple{Local: serverAddr, Remote: clientAddr, LocalPort: uint16(3000 + i), RemotePort: 853}, uint32(i), l.now)
			if k.id = id; !ok {
				t.Fatal("no stream")
			}
		}
		buf := make([]byte, 1<<16)
		l.until(300, "streams", func() bool {
			for s := accept(); s != nil; s = accept() {
				if a, e := s.ep.GetRemoteAddress(); e == nil {
					streams[a.Port-3000].s = s
				}
			}
			left := 0
			for _, k := range streams {
				if k.s != nil && !k.ended {
					k.s.read(k.serverReads)
					if k.left = k.s.write(k.left); len(k.left) == 0 && !k.finned && (k.serverFirst || k.s.eof) {
						k.finned = true
						k.s.finish()
					}
					k.ended = k.s.err != nil || k.s.eof && k.finned || k.closed && k.s.over()
					if k.ended {
						k.s.ep.Close()
					}
				}
				if st, ok := l.ours.Stream(k.id); ok {
					k.out = k.out[l.ours.Write(k.id, k.out, l.now):]
					k.got = append(k.got, buf[:l.ours.Read(k.id, buf[:k.read], l.now)]...)
					all := len(k.out) == 0 && len(k.got) == len(k.back)
					if st.Open && all && (!k.serverFirst || st.Ended && st.Unread == 0) || k.s != nil && k.s.err != nil {
						l.ours.Close(k.id, l.now)
					}
				}
				n := len(k.got) + len(k.out) + len(k.left)
				if k.s != nil {
					n += len(k.s.got)
				}
				if n != k.progress {
					k.progress, k.moved = n, l.now
				} else if l.now-k.moved > 60*second || l.now > 200*second { // the users of both ends give up
					l.ours.Abort(k.id, l.now)
					if k.s != nil {
						k.s.ep.Abort()
					}
				}
				if !bytes.HasPrefix(k.back, k.got) || k.s != nil && !bytes.HasPrefix(k.sent, k.s.got) {
					t.Fatal("other bytes than were sent")
				}
				if !k.closed || k.s != nil && !k.ended {
					left++
				}
			}
			return left == 0
		})
		for _, k := range streams {
			if bytes.Equal(k.got, k.back) && k.s != nil && bytes.Equal(k.s.got, k.sent) {
				whole++
			}
		}
		return whole, len(streams)
	})
}
