package router

import (
	"crypto/ecdh"
	"crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"net"
	"slices"
	"testing"

	"github.com/miekg/dns"

	"github.com/thurward/thurward/internal/shared/event"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// encryptedHello is the first message for a server whose name is encrypted; what
// can be seen is the name outer.
func encryptedHello(t *testing.T, server, outer string) []byte {
	t.Helper()
	key, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	pub := key.PublicKey().Bytes()
	config := slices.Concat([]byte{7, 0, 0x20, 0, byte(len(pub))}, pub, []byte{0, 4, 0, 1, 0, 1, 32, byte(len(outer))}, []byte(outer), []byte{0, 0})
	list := append([]byte{0xfe, 0x0d, byte(len(config) >> 8), byte(len(config))}, config...)
	list = append(binary.BigEndian.AppendUint16(nil, uint16(len(list))), list...)
	a, b := net.Pipe()
	defer b.Close()
	go func() {
		tls.Client(a, &tls.Config{ServerName: server, EncryptedClientHelloConfigList: list, MinVersion: tls.VersionTLS13}).Handshake() //nolint:errcheck // it is cut off
		a.Close()
	}()
	buf := make([]byte, 16<<10)
	n, err := b.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	return buf[:n]
}

// TestSNIEncrypted: of an Encrypted Client Hello the visible name counts. It is the
// provider's, whom the policy must name.
func TestSNIEncrypted(t *testing.T) {
	for outer, want := range map[string]bool{"github.com": true, "cloudflare-ech.com": false, "evil.example": false} {
		for _, inner := range []string{"evil.example", "github.com"} {
			k := newTalk(t)
			m := encryptedHello(t, inner, outer)
			across, _ := k.put(lan, k.first(0, m[:1000]))
			more, _ := k.put(lan, k.first(1000, m[1000:]))
			n := 0
			for _, v := range append(across, more...) {
				n += int(v.Payload)
			}
			if want && n != len(m) || !want && n != 0 {
				t.Errorf("%s within %s: %d of %d bytes crossed; drops %s", inner, outer, n, len(m), k.drops())
			}
			k.invariants()
		}
	}
}

// TestSNIOddNames: an ambiguous name is not compared with what was resolved, but refused.
func TestSNIOddNames(t *testing.T) {
	for name, want := range map[string]bool{
		"github.com": true, "GITHUB.com": true, "xn--mnchen-3ya.githubusercontent.com": true, "münchen.githubusercontent.com": false,
		"github.com.": false, "github.com\x00": false, "github.com\x00.evil.example": false, "evil.example\x00github.com": false,
		cdn: false, "github.com:443": false, ".github.com": false, "github..com": false, `github\.com`: false, "github.com ": false,
	} {
		l := sniLab(t)
		l.resolve(host, "xn--mnchen-3ya.githubusercontent.com", "@ 300 IN A "+cdn)
		l.handshake(host, 5000, cdn, 443)
		across, _ := l.says(5000, 1001, smallHello(name))
		if passed := len(across) == 1 && across[0].Payload > 0; passed != want {
			t.Errorf("%q: passed %v", name, passed)
		}
		l.invariants()
	}
}

// TestServerDataBeforeTheHandshake: data of a server, or forged in its name, are dropped
// before the connection is established.
func TestServerDataBeforeTheHandshake(t *testing.T) {
	l := newLab(t, "accept egress", established)
	v := l.one(lan, syn(host, 4000, web, 80))
	answer := func(flags uint8, seq, ack uint32, data string) pkt {
		p := tcpSeg(web, 80, ours, v.SrcPort, flags, seq, ack)
		p.data = []byte(data)
		return p
	}
	l.dropped(wan, answer(packet.ACK, 5000, 1001, "early"), verdict.ConntrackInvalid)
	l.dropped(wan, answer(packet.ACK|packet.PSH, 5001, 1001, "early"), verdict.ConntrackInvalid)
	l.dropped(wan, answer(packet.ACK|packet.FIN, 5001, 1001, ""), verdict.ConntrackInvalid)
	l.dropped(wan, answer(packet.PSH, 5001, 0, "early"), verdict.ConntrackInvalid)
	p := tcpSeg(host, 4000, web, 80, packet.ACK, 1001, 5001)
	p.data = []byte("too early")
	l.dropped(lan, p, verdict.ConntrackInvalid)
	l.one(wan, answer(packet.SYN|packet.ACK, 5000, 1001, ""))
	l.one(lan, tcpSeg(host, 4000, web, 80, packet.ACK, 1001, 5001))
	l.one(wan, answer(packet.ACK, 5001, 1001, "banner"))
	l.invariants()
}

// TestTwoSlowPackets: two packets of one batch that all of the way looks at do not
// get each other's names, verdicts or addresses.
func TestTwoSlowPackets(t *testing.T) {
	l := sniLab(t)
	l.resolve(host, "raw.githubusercontent.com", "@ 300 IN A 192.0.2.81")
	l.resolve("10.0.0.3", "plain.example", "@ 300 IN A 192.0.2.82")
	l.seen, l.names = nil, nil
	batch := []pkt{
		syn(host, 4000, "192.0.2.81", 443), syn(host, 4001, "192.0.2.83", 443), syn("10.0.0.3", 4000, "192.0.2.82", 443), syn(host, 4002, "192.0.2.82", 443),
		l.datagram(host, l.query("github.com", dns.TypeA)), udp(host, 4003, "192.0.2.81", 443), echo(host, lanAddr, packet.EchoRequest, 1),
	}
	for _, p := range batch {
		l.lab.port[lan].in = append(l.lab.port[lan].in, p.frame(lanMAC))
	}
	l.run()
	type told struct {
		src, dst string
		port     uint16
		why      verdict.Reason
		name     string
	}
	want := []told{
		{host, "192.0.2.81", 443, verdict.RuleAccept, "raw.githubusercontent.com"},
		{host, "192.0.2.83", 443, verdict.NoMatchingAllowRule, ""},
		{"10.0.0.3", "192.0.2.82", 443, verdict.RuleAccept, "plain.example"},
		{host, "192.0.2.82", 443, verdict.NoMatchingAllowRule, "plain.example"}, // with the hint that another has resolved it
		{host, lanAddr, 53, verdict.RuleAccept, ""},
		{host, "192.0.2.81", 443, verdict.NoMatchingAllowRule, "raw.githubusercontent.com"},
		{host, lanAddr, packet.EchoRequest << 8, verdict.NoMatchingAllowRule, ""},
	}
	var got []told
	for i, r := range l.seen {
		if r.Kind == event.Verdict {
			a, _ := packet.AddrFrom16(r.Src)
			b, _ := packet.AddrFrom16(r.Dst)
			got = append(got, told{addr(a).String(), addr(b).String(), r.DstPort, r.Reason, l.names[i]})
		}
	}
	if !slices.Equal(got, want) {
		t.Fatalf("events\n%v, want\n%v", got, want)
	}
	if across := l.taken(wan); len(across) != 3 || across[0].Dst != ip("192.0.2.81") || across[1].Dst != ip("192.0.2.82") || across[2].DstPort != 53 {
		t.Fatalf("%v crossed", across)
	}
	l.taken(lan)
	l.invariants()
}
