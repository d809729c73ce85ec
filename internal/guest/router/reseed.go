package router

import "github.com/thurward/thurward/internal/shared/sha256"

// Reseed keys the generators of random numbers anew, after which the same state of the
// machine, used twice, no longer gives the same numbers: external ports, identifications
// of IP packets, and the ports, ids and letter cases of DNS queries and sequence numbers of
// TCP that are the firewall's own. TLS connections are reset, since one key must not seal
// two different messages with the same nonce (RFC 8446 section 5.3). Flows and the keys of
// hashes stay.
func (e *Engine) Reseed(secret [32]byte) {
	e.seed(&secret)
	if e.dnsRng != nil {
		e.dnsRng.Seed(dnsSeed(&secret))
		e.host.DropLinks()
	}
}

// Moved is called when the machine may be on other links than before, as after a restore:
// neighbours are asked anew, and switches are told where the firewall's addresses are.
func (e *Engine) Moved() {
	for i := range e.port {
		e.port[i].neigh.ForgetKnown()
	}
	if e.w == nil || e.w.k == 0 {
		e.Announce()
	}
}

// Slept takes note of time that the machine stood still, in nanoseconds, which the times
// given to Poll did not count. Names are older by it, since their TTLs are the world's time.
// Flows are not: while nothing could pass, none was idle. What is under way goes on: it has
// waited for an answer only while one could come.
func (e *Engine) Slept(d int64) {
	if e.names.set != nil {
		e.names.set.Pass(d)
	}
}

// dnsSeed returns the key of the endpoint's generator.
func dnsSeed(secret *[32]byte) [32]byte {
	return sha256.Sum256(append([]byte("dns"), secret[:]...))
}
