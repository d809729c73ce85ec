package router

import (
	"net/netip"

	"github.com/thurward/thurward/internal/guest/conntrack"
	"github.com/thurward/thurward/internal/guest/export"
	"github.com/thurward/thurward/internal/guest/nat"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// sideNames are the values of the interface label.
var sideNames = [...]string{ruleset.LAN: "lan", ruleset.WAN: "wan"}

// Metrics returns the engine's metrics. Fill must be called by the goroutine that calls
// Poll.
func (e *Engine) Metrics() []export.Family {
	rule := export.LabelOf("rule_id", func(i int) string { return export.RuleID(uint32(i), e.policy) })
	side := export.LabelOf("interface", func(i int) string { return sideNames[e.port[i%len(e.port)].role] })
	perRule := func(name, help string, from []uint64) export.Family {
		return export.Family{Name: name, Help: help, Type: export.Counter, N: len(from), Labels: rule,
			Fill: func(v []uint64) { copy(v, from) }}
	}
	perSide := func(name, help string, from *[2]uint64) export.Family {
		return export.Family{Name: name, Help: help, Type: export.Counter, N: 2, Labels: side,
			Fill: func(v []uint64) { copy(v, from[:]) }}
	}
	one := func(name, help string, from *uint64) export.Family {
		return export.One(export.Counter, name, help, from)
	}
	c := &e.c
	fs := []export.Family{
		perRule("thurward_rule_accepts_total",
			"Packets that a rule accepted, by rule; default-deny and default-accept are the default action.",
			c.Accepts),
		perRule("thurward_rule_drops_total", "Packets that a rule dropped.", c.Drops),
		perRule("thurward_rule_shadows_total", "Decisions that a rule in shadow mode would have taken.", c.Shadows),
		one("thurward_filter_decisions_total",
			"Packets that the filter decided: the first of each direction of a flow, and those that belong to none.",
			&c.Decisions),
		{Name: "thurward_drops_total",
			Help: "Packets dropped, by reason.",
			Type: export.Counter, N: int(verdict.NumReasons) - 1,
			Labels: export.LabelOf("drop_reason", func(i int) string { return verdict.Reason(i + 1).String() }),
			Fill:   func(v []uint64) { copy(v, c.DropReasons[1:]) }},
		perSide("thurward_interface_receive_packets_total", "Frames received.", &c.RxPackets),
		perSide("thurward_interface_receive_bytes_total", "Bytes received.", &c.RxBytes),
		perSide("thurward_interface_transmit_packets_total", "Frames sent.", &c.TxPackets),
		perSide("thurward_interface_transmit_bytes_total", "Bytes sent.", &c.TxBytes),
		perSide("thurward_interface_transmit_holds_total",
			"Times that the device had no room, and frames waited for up to 10 ms.", &c.Holds),
		perSide("thurward_interface_other_host_total",
			"Frames for another link-layer address, which were ignored.", &c.OtherHost),
		perSide("thurward_arp_received_total", "Valid ARP messages received.", &c.ARPReceived),
		perSide("thurward_arp_sent_total", "ARP messages sent.", &c.ARPSent),
		perSide("thurward_arp_conflicts_total",
			"Claims of an address that is known under another link-layer address, or is the firewall's own.", &c.ARPConflicts),
		perSide("thurward_neighbour_evictions_total", "Neighbours evicted to make room.", &c.NeighbourEvictions),
		one("thurward_icmp_errors_sent_total", "ICMP errors of the firewall's own.", &c.ICMPErrorsSent),
		one("thurward_icmp_errors_translated_total",
			"ICMP errors about known flows that were translated and delivered.", &c.ICMPErrorsTranslated),
		one("thurward_resets_sent_total", "TCP resets sent for rejected connections.", &c.ResetsSent),
		one("thurward_answers_suppressed_total",
			"ICMP errors and resets that were not sent because of their rate.", &c.AnswersSuppressed),
		one("thurward_echo_replies_total", "Echo requests to the firewall that were answered.", &c.LocalReplies),
		one("thurward_own_messages_unsent_total",
			"Packets of the firewall's own that were not sent: no buffer.", &c.NoBuffer),
		one("thurward_fragmented_total",
			"Packets that were fragmented to the MTU of their egress interface.", &c.Fragmented),
		one("thurward_fragments_sent_total", "Fragments that they became.", &c.FragmentsSent),
		one("thurward_reassembled_total", "Datagrams whose fragments have all arrived.", &c.Reassembled),
		one("thurward_fragments_joined_total", "Fragments that were copied to another's frame.", &c.Joined),
		{Name: "thurward_fragments_held",
			Help: "Fragments of datagrams that are not complete yet.",
			Type: export.Gauge, Fill: func(v []uint64) { v[0] = uint64(e.frags.Held()) }},
		one("thurward_large_forwarded_total",
			"Large TCP segments (segmentation offload) that passed whole.", &c.LargeForwarded),
		one("thurward_large_cut_total",
			"Large TCP segments that the firewall cut itself: the way out takes none, or they needed to be looked at one by one.", &c.LargeCut),
		one("thurward_mss_clamped_total", "TCP handshakes' segments whose MSS was lowered.", &c.MSSClamped),
		one("thurward_nat_ports_reclaimed_total",
			"Flows that were evicted for their external port.", &c.PortsReclaimed),
		{Name: "thurward_nat_translations_total",
			Help: "Translated flows that began, by kind.",
			Type: export.Counter, N: int(nat.NumKinds),
			Labels: export.LabelOf("kind", func(i int) string { return nat.Kind(i).String() }),
			Fill:   func(v []uint64) { copy(v, c.Translations[:]) }},
	}
	fs = append(fs, one("thurward_sni_accepted_total",
		"Connections of rules with sni: require whose server name was accepted.", &e.c.ServerNamesAccepted),
		one("thurward_sni_segments_repeated_total",
			"Segments of such connections that were dropped before the server had answered: repeated, or out of order.",
			&e.c.ServerNameRepeats))
	fs = append(append(fs, flowMetrics(e.flows)...), poolMetrics(e.nat.Pools())...)
	return append(fs, e.host.Metrics()...)
}

func flowMetrics(t *conntrack.Table) []export.Family {
	return []export.Family{
		{Name: "thurward_conntrack_entries",
			Help: "Flows in the table.",
			Type: export.Gauge, Fill: func(v []uint64) { v[0] = uint64(t.Len()) }},
		{Name: "thurward_conntrack_capacity",
			Help: "Flows that the table holds at most.",
			Type: export.Gauge, Fill: func(v []uint64) { v[0] = uint64(t.Cap()) }},
		{Name: "thurward_conntrack_entries_highest",
			Help: "Most flows that the table has held since boot.",
			Type: export.Gauge, Fill: func(v []uint64) { v[0] = uint64(t.C.HighWater) }},
		export.One(export.Counter, "thurward_conntrack_inserts_total", "Flows that began.", &t.C.Inserts),
		export.One(export.Counter, "thurward_conntrack_full_total",
			"Flows that were refused because the table was full.", &t.C.Full),
		{Name: "thurward_conntrack_evictions_total",
			Help: "Flows that left the table, by cause.",
			Type: export.Counter, N: int(conntrack.NumRemovals),
			Labels: export.LabelOf("reason", func(i int) string { return conntrack.Removal(i).String() }),
			Fill:   func(v []uint64) { copy(v, t.C.Evictions[:]) }},
	}
}

// poolProtos are the protocols with external ports of their own.
var poolProtos = [...]struct {
	number uint8
	name   string
}{{packet.TCP, "tcp"}, {packet.UDP, "udp"}, {packet.ICMP, "icmp"}}

func poolMetrics(pools []*nat.Pool) []export.Family {
	if len(pools) == 0 {
		return nil
	}
	const n = len(poolProtos)
	labels := func(dst []byte, i int) []byte {
		dst = export.Label(dst, true, "external_ip", netip.AddrFrom16(pools[i/n].Addr.To16()).Unmap().String())
		return export.Label(dst, false, "proto", poolProtos[i%n].name)
	}
	per := func(name, help string, of func(p *nat.Pool, proto uint8) int) export.Family {
		return export.Family{Name: name, Help: help, Type: export.Gauge, N: n * len(pools), Labels: labels, Fill: func(v []uint64) {
			for i := range v {
				v[i] = uint64(of(pools[i/n], poolProtos[i%n].number))
			}
		}}
	}
	return []export.Family{
		per("thurward_nat_port_pool_in_use",
			"External ports, or identifiers of ICMP queries, in use.", (*nat.Pool).InUse),
		per("thurward_nat_port_pool_size",
			"External ports, or identifiers of ICMP queries, in the pool.", (*nat.Pool).Size),
		per("thurward_nat_port_pool_highest", "Most external ports in use at once since boot.", (*nat.Pool).HighWater),
	}
}
