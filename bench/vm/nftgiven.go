package main

import (
	"errors"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// dropAll drops what arrives at a device before the network stack sees it.
const dropAll = `
table netdev sink {
	chain in { type filter hook ingress device "wan0" priority -500; policy drop; }
}
`

// nftBatch is how many frames one system call sends.
const nftBatch = 64

// nftablesGiven returns how many packets this kernel forwards in a second of the
// time of a processor that does nothing else, when the generator's processor has
// already made skbs of them: packets come from a packet socket.
func nftablesGiven(flows, size int, d time.Duration) (perCPU float64, err error) {
	l, err := newLinux()
	if err != nil {
		return 0, err
	}
	defer l.close()
	st := l.stream(flows, size)
	if err := l.prime(st, flows); err != nil {
		return 0, err
	}
	if err := l.nft(l.wan, dropAll); err != nil {
		return 0, err
	}
	// A veth device has NAPI when it has GRO, and uses it when its peer has no TSO.
	if err := errors.Join(ethtool(l.fw, "fl0", setGRO, 1), ethtool(l.lan, "lan0", setTSO, 0)); err != nil {
		return 0, err
	}
	return l.apart(func(d time.Duration) (float64, error) { return l.send(st, d) }, d)
}

// send sends skbs for a time.
func (l *linux) send(st *stream, d time.Duration) (arrived float64, err error) {
	var msgs [nftBatch]mmsghdr
	var iov [nftBatch]unix.Iovec
	bufs := make([]byte, nftBatch*2048)
	for i := range msgs {
		iov[i].Base = &bufs[i*2048]
		msgs[i].hdr.Iov, msgs[i].hdr.Iovlen = &iov[i], 1
	}
	before, err := l.arrived()
	if err != nil {
		return 0, err
	}
	for until := time.Now().Add(d); time.Now().Before(until); {
		for i := range iov {
			iov[i].SetLen(st.fill(bufs[i*2048:][:2048]))
		}
		if err := sendmmsg(l.tx, msgs[:]); err != nil {
			return 0, err
		}
	}
	after, err := l.arrived()
	return float64(after - before), err
}

// arrived returns how many packets wan0 has received.
func (l *linux) arrived() (uint64, error) {
	out, err := exec.Command("ip", "netns", "exec", l.wan, "cat", "/sys/class/net/wan0/statistics/rx_packets").Output()
	if err != nil {
		return 0, err
	}
	return strconv.ParseUint(strings.TrimSpace(string(out)), 10, 64)
}
