package router

// roomWait is how long frames wait at most for room at the port by which they
// are to leave.
const roomWait = int64(10e6)

// backedUp reports whether the frames that are to leave through out must wait where
// they are, in the other port's receive queue. A burst that the device of out
// has not taken yet is so not lost: the sender's own queue fills, and it slows
// down. A device that takes nothing for roomWait holds up nobody after that, until
// there is room again: what is for the firewall itself goes on being answered,
// and what is for that device is dropped and counted.
func (e *Engine) backedUp(out *port, now int64) bool {
	if out.HasRoom(Batch) {
		out.heldSince = 0
		return false
	}
	if out.heldSince == 0 {
		out.heldSince = max(now, 1)
		e.c.Holds[out.n]++
	}
	return now-out.heldSince < roomWait
}
