package vhostuser

import (
	"encoding/binary"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// FuzzMessages: with any messages and descriptors of a monitor, and any writes of a
// guest into its memory meanwhile, only the session ends, at the latest with the
// monitor's connection. The input is a program for both.
func FuzzMessages(f *testing.F) {
	start := []byte{ // a ring that runs, in the words of the program
		1, reqSetFeatures, 0, 1, 0, 2, 1, reqSetMemTable, 1, 3, 1, reqSetVringNum, 0, 0, 1, reqSetVringAddr, 0, 0,
		1, reqSetVringKick, 0, 0, 1, reqSetVringEnable, 0, 1, 3, 0, 1, 0, 4, 0, 0, 0, 1, reqGetVringBase, 0, 0}
	f.Add(start)
	f.Add(append(start, 5, 0, 0, 0, 4, 0, 0, 0, 6, 0, 0, 0, 4, 0, 0, 0))
	f.Add(append(start, 1, reqSetVringKick, 0, 3, 1, reqSetVringCall, 0, 4, 2, reqSetMemTable, 3, 9, 9, 9))
	f.Add([]byte{7, 1, 2, 3, 4, 5, 6, 7})
	zero, err := os.OpenFile("/dev/zero", os.O_RDWR, 0)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { zero.Close() })
	f.Fuzz(func(t *testing.T, in []byte) {
		a, back := pair(t)
		e, done := newEcho(), make(chan error, 1)
		go func() {
			done <- Serve(back, Device{Features: FeatureVersion1 | FeatureEventIdx, Queues: 2, Config: []byte{1, 2}}, e)
		}()
		fr := newFront(t, a, 8)
		go drain(a)
		event := eventfd(t)
		fds := []int{raw(t, event), fr.fd, int(zero.Fd()), raw(t, eventfd(t))}
		a.SetWriteDeadline(time.Now().Add(5 * time.Second))
		send := func(b []byte, fds ...int) bool {
			var oob []byte
			if len(fds) > 0 {
				oob = unix.UnixRights(fds...)
			}
			_, _, err := a.WriteMsgUnix(b, oob, nil)
			return err == nil
		}
		for n := 0; len(in) >= 4 && n < 200; n++ {
			op, b, c, d := in[0], in[1], in[2], in[3]
			in = in[4:]
			var payload []byte
			switch op % 8 {
			case 0, 1: // a message that is nearly right
				i := uint32(c & 3)
				switch b {
				case reqSetFeatures, reqSetProtoFeatures:
					payload = u64(uint64(d&1)*FeatureVersion1 | uint64(d&2)<<28 | uint64(c)<<(d%64))
				case reqSetMemTable:
					payload = memTable(memSize)
					if d&8 != 0 {
						payload = append(memTable(memSize/2), payload[8:]...)
						payload[0] = 2
					}
				case reqSetVringAddr:
					payload = ringAt(i, descOff+uint64(d&0xf0)<<8, usedOff, availOff+uint64(d&0x0f)<<4)
				case reqSetVringKick, reqSetVringCall, reqSetVringErr:
					payload = u64(uint64(i) | uint64(d&0x80)<<1)
				case reqSetVringNum:
					payload = pairOf(i, 1<<(d%18)&^uint32(d>>7))
					if d == 0 {
						payload = pairOf(i, 8)
					}
				default:
					payload = append(pairOf(i, uint32(d)), make([]byte, int(d)&31)...)
				}
				msg := binary.LittleEndian.AppendUint32(nil, uint32(b))
				msg = binary.LittleEndian.AppendUint32(msg, flagVersion|uint32(op&0x80)>>4)
				msg = binary.LittleEndian.AppendUint32(msg, uint32(len(payload)))
				var with []int
				switch b {
				case reqSetMemTable:
					with = []int{fr.fd, fr.fd}
				case reqSetVringKick, reqSetVringCall:
					with = []int{fds[d&3]}
				}
				if op&0x10 != 0 {
					with = fds[:c%4]
				}
				send(append(msg, payload...), with...)
			case 2: // any bytes
				k := min(len(in), int(b)&63)
				send(in[:k], fds[:c&3]...)
				in = in[k:]
			case 3: // the guest's indexes and descriptors
				fr.describe(uint16(b&7), guestBase+bufBase+uint64(c)<<4, uint32(d), uint16(b>>3), uint16(d&15))
				fr.offer(uint16(c & 15))
			case 4:
				event.Write(u64(uint64(d) + 1)) //nolint:errcheck // it may be full
			case 5:
				fr.setAvail(uint16(b) | uint16(c)<<8)
			case 6: // its memory changes
				copy(fr.mem[int(c)<<8&^3:], in)
			case 7: // its memory goes; where it was sealed, it does not
				unix.Ftruncate(fr.fd, int64(b)<<12) //nolint:errcheck // see above
				unix.Ftruncate(fr.fd, memSize)      //nolint:errcheck // the front end needs it
			}
		}
		a.Close()
		select {
		case <-done:
		case <-time.After(stopLimit + 8*time.Second):
			t.Fatal("the session outlives its monitor")
		}
		e.wg.Wait()
	})
}
