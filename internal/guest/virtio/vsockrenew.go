package virtio

import (
	"errors"
	"strconv"
)

// Look reads the device's status, and gives the device up when it asks for a reset or runs no
// more. It costs an exit to the host, and is called about once a second.
func (v *Vsock) Look() {
	if v.reason != "" {
		return
	}
	if why := trouble(v.t.Status()); why != "" {
		v.giveUp(why)
	}
}

// Renew resets a device that was given up, and starts it again as it was: see Net.Renew. The
// connection is lost with what the device had not sent of it; the host is told. After an error the
// device stays given up.
func (v *Vsock) Renew() error {
	if err := reset(v.t); err != nil {
		return err
	}
	feat, err := negotiate(v.t, vsockID, v.feat)
	if err != nil {
		return err
	}
	if feat != v.feat {
		fail(v.t)
		return errors.New("virtio: the device offers other features than before: 0x" + strconv.FormatUint(feat, 16) + ", not 0x" + strconv.FormatUint(v.feat, 16))
	}
	for _, q := range [...]*queue{v.rx, v.tx, v.ev} {
		q.clear()
		if err := q.enable(v.t); err != nil {
			fail(v.t)
			return err
		}
	}
	v.txFree = v.txFree[:0]
	for i := range int(v.tx.size) {
		v.txFree = append(v.txFree, uint8(i))
	}
	v.readCID()
	if err := start(v.t); err != nil {
		return err
	}
	v.reason, v.armed = "", false
	v.c.Renewals++
	v.postAll()
	if v.conn.local != 0 && v.conn.port != 0 { // the host may still have it
		v.control(v.conn.port, v.conn.local, vopRST, 0)
		v.Flush()
	}
	return nil
}
