package export

import (
	"strconv"
)

// StreamVersion is the version of the line format.
const StreamVersion = 1

// Identity describes the firewall in the first line of its stream.
type Identity struct {
	Version, GitSHA string // of the build; "" when not known
	Boot            string // random at each boot, 32 hexadecimal digits
	LAN, WAN        InterfaceIdentity
	Rules, Flows    int // number of rules; capacity of the flow table
}

// InterfaceIdentity is one side of the firewall.
type InterfaceIdentity struct{ Name, MAC, Address string }

// appendHello appends the first line of a connection.
func appendHello(b []byte, id *Identity, c *Context, now int64, connection, lost uint64) []byte {
	b = append(b, `# HELLO {"stream.version":`...)
	b = strconv.AppendInt(b, StreamVersion, 10)
	b = append(b, `,"@timestamp":"`...)
	b = c.appendTime(b, now)
	for _, f := range [...]struct{ name, value string }{
		{`","service.name":"`, "thurward"}, {`","service.version":"`, id.Version}, {`","service.instance.id":"`, id.Boot},
		{`","firewall.git_sha":"`, id.GitSHA}, {`","firewall.policy":"`, c.policyID()}, {`","firewall.clock":"`, c.Clock},
		{`","firewall.lan.name":"`, id.LAN.Name}, {`","firewall.lan.mac":"`, id.LAN.MAC}, {`","firewall.lan.address":"`, id.LAN.Address},
		{`","firewall.wan.name":"`, id.WAN.Name}, {`","firewall.wan.mac":"`, id.WAN.MAC}, {`","firewall.wan.address":"`, id.WAN.Address},
	} {
		b = append(b, f.name...)
		b = appendEscaped(b, f.value)
	}
	for _, f := range [...]struct {
		name  string
		value uint64
	}{
		{`","firewall.rules":`, uint64(id.Rules)}, {`,"firewall.max_flows":`, uint64(id.Flows)}, {`,"firewall.uptime_ns":`, uint64(max(now, 0))},
		{`,"firewall.connection":`, connection}, {`,"firewall.lost_lines":`, lost},
	} {
		b = append(b, f.name...)
		b = strconv.AppendUint(b, f.value, 10)
	}
	return append(b, '}')
}

// A Loss is what was lost since the last report.
type Loss struct {
	Lines   uint64 // dropped from the queue, the oldest first
	Records uint64 // not taken: the packet path's ring was full
	Since   int64  // time of the first loss, in monotonic nanoseconds
}

// appendLoss appends the line that reports a loss.
func appendLoss(b []byte, l *Loss, c *Context, now int64) []byte {
	b = append(b, `{"@timestamp":"`...)
	b = c.appendTime(b, now)
	b = append(b, `","event.kind":"event","event.category":["network"],"event.type":["info"],"event.action":"lines-lost","event.outcome":"failure","event.start":"`...)
	b = c.appendTime(b, l.Since)
	b = append(b, `","event.end":"`...)
	b = c.appendTime(b, now)
	b = append(b, `","firewall.lost_lines":`...)
	b = strconv.AppendUint(b, l.Lines, 10)
	b = append(b, `,"firewall.lost_records":`...)
	b = strconv.AppendUint(b, l.Records, 10)
	b = append(b, `,"firewall.clock":"`...)
	b = append(b, c.Clock...)
	b = append(b, `","firewall.policy":"`...)
	b = append(b, c.policyID()...)
	return append(b, `"}`...)
}
