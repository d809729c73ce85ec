package dataplane

import (
	"testing"

	"github.com/thurward/thurward/internal/packet"
	"github.com/thurward/thurward/internal/segment"
)

// In these tests one source floods a resource, and a second one keeps all that
// it needs. docs/limits.md lists the resources.

// TestSpoofedUDPAnsweredOnce: datagrams to a published service in the names of
// others, each of which the server answers once. They are soon forgotten, and in
// a full table give way, so that the LAN gets on; a client of the service that
// goes on after its answer keeps its flow.
func TestSpoofedUDPAnsweredOnce(t *testing.T) {
	for name, quick := range map[string]bool{"all at once": true, "at 220 a second": false} {
		t.Run(name, func(t *testing.T) {
			l := newLabIn(t, huge, func(p *segment.Policy) {
				p.Settings.MaxFlows = 4096
				p.DNAT = []segment.DNAT{dnat(packet.UDP, ours, 5000, 5000, server, 5000)}
			}, "accept")
			l.one(wan, udp(client, 4000, ours, 5000))
			l.one(lan, udp(server, 5000, client, 4000))
			l.one(wan, udp(client, 4000, ours, 5000))
			port := l.handshake(host, 4000, web, 80)
			most := 0
			for i := range uint32(20_000) {
				from := spoofed(i, false)
				if across, _ := l.put(wan, udp(from, 4000, ours, 5000)); len(across) == 1 {
					l.one(lan, udp(server, 5000, from, 4000))
				}
				if !quick {
					l.now += second / 220
				}
				most = max(most, l.e.flows.Len())
				if i%1000 == 0 {
					v := l.one(lan, udp("10.0.0.7", uint16(5000+i/1000), web, 53))
					l.one(wan, udp(web, 53, ours, v.SrcPort))
				}
			}
			if !quick && most > 31*220+100 {
				t.Errorf("%d flows at once", most)
			}
			// The twins: both flows that were there before go on.
			l.one(lan, udp(server, 5000, client, 4000))
			l.one(wan, tcp(web, 80, ours, port, packet.ACK, 5001, 1001))
		})
	}
}
