package router

// roomWait is how long frames wait at most for room at their egress port, in nanoseconds.
const roomWait = int64(10e6)

// backedUp reports whether frames that are to leave through out must wait in the other
// port's receive queue. A burst that the device of out has not taken yet is not lost then:
// the sender's queue fills, and the sender slows down. When a device has taken nothing for
// roomWait, frames no longer wait until it has room again: frames to the firewall itself
// are handled, and those for the device are dropped and counted.
func (e *Engine) backedUp(out *port, now int64) bool {
	if out.HasRoom(out.burst) {
		out.fullSince = 0
		return false
	}
	if out.fullSince == 0 {
		out.fullSince = max(now, 1)
		e.c.Holds[out.n]++
	}
	return now-out.fullSince < roomWait
}
