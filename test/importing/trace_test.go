package importing

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/thurward/thurward/internal/shared/packet"
)

// A traced names a rule as the kernel does, or with handle 0 the policy of a chain.
type traced struct {
	table, chain string
	handle       uint64
}

// A meeting is what the kernel reports of a packet's way.
type meeting struct {
	rules   []traced   // whose conditions it met, in order, and policies that decided
	as      []datagram // the packet, as each of them saw it
	now     datagram   // as the chains see it that are gone through
	arrived bool       // at the firewall itself, past all rules
	port    uint16     // that it arrived at
	proto   uint8
}

// The attributes of NFT_MSG_TRACE, as in linux/netfilter/nf_tables.h.
const (
	nftMsgTrace      = 17
	traceTable       = 1
	traceChain       = 2
	traceHandle      = 3
	traceType        = 4
	traceNetwork     = 8
	traceTransport   = 9
	traceTypePolicy  = 1
	traceTypeRule    = 3
	nlaTypeMask      = 0x3fff
	nfnetlinkHeader  = unix.SizeofNlMsghdr + 4
	thurwardTable    = "thurward-trace"
	nlmAlign         = 4
	maxTraceMessages = 65536
)

// traces reads what the kernel has reported since the last call.
func (k *kernel) traces() (m meeting) {
	k.t.Helper()
	for range maxTraceMessages {
		n, _, err := unix.Recvfrom(k.trace, k.buf, 0)
		if errors.Is(err, unix.EAGAIN) {
			return m
		}
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			k.t.Fatalf("reading the trace: %v", err)
		}
		for b := k.buf[:n]; len(b) >= nfnetlinkHeader; {
			l := int(binary.LittleEndian.Uint32(b))
			if l < nfnetlinkHeader || l > len(b) {
				break
			}
			if binary.LittleEndian.Uint16(b[4:]) == unix.NFNL_SUBSYS_NFTABLES<<8|nftMsgTrace {
				m.add(b[nfnetlinkHeader:l])
			}
			b = b[min((l+nlmAlign-1)&^(nlmAlign-1), len(b)):]
		}
	}
	k.t.Fatal("the trace does not end")
	return m
}

// add adds one report.
func (m *meeting) add(attrs []byte) {
	var at traced
	var kind uint32
	var network, transport []byte
	for len(attrs) >= 4 {
		l := int(binary.LittleEndian.Uint16(attrs))
		if l < 4 || l > len(attrs) {
			return
		}
		v := attrs[4:l]
		switch binary.LittleEndian.Uint16(attrs[2:]) & nlaTypeMask {
		case traceTable:
			at.table = strings.TrimRight(string(v), "\x00")
		case traceChain:
			at.chain = strings.TrimRight(string(v), "\x00")
		case traceHandle:
			at.handle = binary.BigEndian.Uint64(v)
		case traceType:
			kind = binary.BigEndian.Uint32(v)
		case traceNetwork:
			network = v
		case traceTransport:
			transport = v
		}
		attrs = attrs[min((l+nlmAlign-1)&^(nlmAlign-1), len(attrs)):]
	}
	if len(network) >= 20 { // of the first report of each base chain
		if d, ok := parse(slices.Concat(make([]byte, packet.EthLen), network, transport)); ok {
			m.now = d
		}
	}
	if at.table == thurwardTable {
		if at.chain == "arrived" && len(network) >= 20 {
			m.arrived, m.proto = true, network[9]
			if len(transport) >= 4 {
				m.port = binary.BigEndian.Uint16(transport[2:])
			}
		}
		return
	}
	if kind == traceTypeRule && at.handle != 0 || kind == traceTypePolicy {
		m.rules, m.as = append(m.rules, at), append(m.as, m.now)
	}
}

// find fills the table of places: how a note of the importer names the rule of a trace.
//
//	nft       "inet fw forward handle 12", a policy: "inet fw forward"
//	iptables  "line 17", a policy: the line of its chain
func (k *kernel) find(listing []byte) {
	k.t.Helper()
	var doc struct {
		Nftables []map[string]json.RawMessage
	}
	if err := json.Unmarshal(listing, &doc); err != nil {
		k.t.Fatal(err)
	}
	k.places = map[traced]string{}
	lines := k.about.lines(k.t)
	count := map[traced]int{}
	for _, o := range doc.Nftables {
		var v struct {
			Family, Table, Name, Chain string
			Handle                     uint64
		}
		if raw, ok := o["chain"]; ok && json.Unmarshal(raw, &v) == nil && forwards(v.Family) {
			at := traced{v.Table, v.Name, 0}
			k.places[at] = fmt.Sprintf("%s %s %s", v.Family, v.Table, v.Name)
			if lines != nil {
				k.places[at] = lines[at]
			}
		}
		if raw, ok := o["rule"]; ok && json.Unmarshal(raw, &v) == nil && forwards(v.Family) {
			at := traced{v.Table, v.Chain, v.Handle}
			k.places[at] = fmt.Sprintf("%s %s %s handle %d", v.Family, v.Table, v.Chain, v.Handle)
			if lines != nil {
				c := traced{v.Table, v.Chain, 0}
				count[c]++
				k.places[at] = lines[traced{v.Table, v.Chain, uint64(count[c])}]
			}
		}
	}
}

// forwards reports whether a family's rules see IPv4 packets that are routed. The kernel's
// report does not name the family; two tables of one name in ip and inet are not in the corpus.
func forwards(family string) bool { return family == "ip" || family == "inet" }

// lines returns where the rules of what iptables-save printed stand: by table, chain and
// number in the chain, 0 for the chain itself. It is nil for other formats.
func (a *about) lines(t interface{ Fatal(...any) }) map[traced]string {
	if a.format() != "iptables" {
		return nil
	}
	src, err := os.ReadFile(a.rules())
	if err != nil {
		t.Fatal(err)
	}
	m := map[traced]string{}
	table := ""
	count := map[traced]uint64{}
	for i, l := range strings.Split(string(src), "\n") {
		f := strings.Fields(l)
		at := traced{table: table}
		switch {
		case len(f) == 0:
		case f[0][0] == '*':
			table = f[0][1:]
		case f[0][0] == ':':
			at.chain = f[0][1:]
			m[at] = fmt.Sprintf("line %d", i+1)
		case f[0] == "-A" && len(f) > 1:
			at.chain = f[1]
			count[at]++
			n := at
			n.handle = count[at]
			m[n] = fmt.Sprintf("line %d", i+1)
		}
	}
	return m
}
