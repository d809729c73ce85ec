package ingest

import "strings"

// A Metric is one of the firewall's metrics, as docs/telemetry.md lists them.
// Readers keep and forward no others, so that a guest that makes up names or labels
// uses no memory.
type Metric struct {
	Name   string
	Type   MetricType
	Labels []string // without "le", which a histogram's buckets have
	Help   string
}

// A MetricType is a metric's type in the text format.
type MetricType string

// The types.
const (
	Counter   MetricType = "counter"
	Gauge     MetricType = "gauge"
	Histogram MetricType = "histogram"
)

// MaxLabelValue is the largest length of a label's value in bytes. The firewall's
// longest, the digest of a policy, has 71.
const MaxLabelValue = 128

// Metrics returns all metrics, sorted by name. The caller must not change them.
func Metrics() []Metric { return schema[:] }

// NamedMetric returns the metric with a name, nil if there is none.
func NamedMetric(name string) *Metric {
	if p, ok := parts[name]; ok && p.suffix == "" {
		return p.metric
	}
	return nil
}

// A named is a metric, or one of the series of a histogram, by the name of its
// samples. The names are strings of the schema, not parts of a line, which would
// keep the line in memory.
type named struct {
	metric       *Metric
	name, suffix string // "", "_bucket", "_sum" or "_count"
}

var parts = func() map[string]named {
	m := map[string]named{}
	for i := range schema {
		s := &schema[i]
		m[s.Name] = named{s, s.Name, ""}
		if s.Type != Histogram {
			continue
		}
		for _, suffix := range []string{"_bucket", "_sum", "_count"} {
			n := s.Name + suffix
			m[n] = named{s, n, suffix}
		}
	}
	return m
}()

// check checks labels, which are sorted by name.
func (p named) check(ls []Label) error {
	want := len(p.metric.Labels)
	if p.suffix == "_bucket" {
		want++
	}
	if len(ls) != want {
		return errNotOurs
	}
	for _, l := range ls {
		switch {
		case l.Name == "le" && p.suffix == "_bucket":
			if !isBound(l.Value) {
				return errLabel
			}
		case !p.metric.has(l.Name):
			return errNotOurs
		case len(l.Value) > MaxLabelValue:
			return errLabel
		}
	}
	return nil
}

func (m *Metric) has(label string) bool {
	for _, l := range m.Labels {
		if l == label {
			return true
		}
	}
	return false
}

func l(names string) []string { return strings.Fields(names) }

var schema = [...]Metric{
	{"thurward_answers_suppressed_total", Counter, nil, "ICMP errors and resets that were not sent because of their rate."},
	{"thurward_arp_conflicts_total", Counter, l("interface"), "Claims of an address that is known under another link-layer address, or is the firewall's own."},
	{"thurward_arp_received_total", Counter, l("interface"), "Valid ARP messages received."},
	{"thurward_arp_sent_total", Counter, l("interface"), "ARP messages sent."},
	{"thurward_build_info", Gauge, l("version git_sha schema_sha rules_sha"), "The build and the policy that run."},
	{"thurward_clock_info", Gauge, l("source"), "Where the time of day comes from."},
	{"thurward_conntrack_capacity", Gauge, nil, "Flows that the table holds at most."},
	{"thurward_conntrack_entries", Gauge, nil, "Flows in the table."},
	{"thurward_conntrack_entries_highest", Gauge, nil, "Most flows that the table has held since boot."},
	{"thurward_conntrack_evictions_total", Counter, l("reason"), "Flows that left the table, by cause."},
	{"thurward_conntrack_full_total", Counter, nil, "Flows that were refused because the table was full."},
	{"thurward_conntrack_inserts_total", Counter, nil, "Flows that began."},
	{"thurward_device_violations_total", Counter, l("interface"), "Violations of virtio by the device; each has it reset."},
	{"thurward_devices_bounded", Gauge, nil, "Devices that an IOMMU keeps to the memory that they are given; 0: there is no IOMMU."},
	{"thurward_dma_refused_total", Counter, nil, "Times that the IOMMU was seen to have refused accesses of a device, which the console names."},
	{"thurward_dns_additional_removed_total", Counter, nil, "Answers whose additional section was left out, because it had an address of a private network."},
	{"thurward_dns_addresses_bound_total", Counter, nil, "Addresses of answers that were bound to names."},
	{"thurward_dns_addresses_unbound_total", Counter, nil, "Addresses of answers beyond the limit for one answer, which open nothing."},
	{"thurward_dns_answers_rejected_total", Counter, l("reason"), "Messages from the WAN that were not taken for an answer."},
	{"thurward_dns_ech_removed_total", Counter, nil, "Answers about names of rules with sni: require from which the key for Encrypted Client Hello was removed."},
	{"thurward_dns_lookup_duration_seconds", Histogram, nil, "Time from a query to its answer, where an upstream was asked."},
	{"thurward_dns_outstanding", Gauge, nil, "Queries that wait for an upstream."},
	{"thurward_dns_queries_total", Counter, l("outcome"), "Queries of clients, by outcome."},
	{"thurward_dns_tcp_connections", Gauge, nil, "TCP connections that end at the proxy, to clients and to upstreams."},
	{"thurward_dns_tcp_ended_total", Counter, l("reason"), "TCP connections that were reset: to make room for others, or because their client read too slowly."},
	{"thurward_dns_tcp_refused_total", Counter, nil, "TCP connections of clients beyond the limits."},
	{"thurward_dns_truncated_total", Counter, nil, "Answers that did not fit what the client takes over UDP."},
	{"thurward_dns_upstream_queries_total", Counter, nil, "Queries to upstreams, retransmissions included."},
	{"thurward_dns_upstream_retries_total", Counter, nil, "Queries to upstreams that were not the first for a client's query."},
	{"thurward_dns_upstream_tcp_total", Counter, nil, "Queries to upstreams over TCP."},
	{"thurward_dns_upstream_tls_total", Counter, nil, "Queries to upstreams over TLS."},
	{"thurward_dns_upstream_tls_connections_total", Counter, nil, "TLS connections to upstreams that were opened: the certificate was verified."},
	{"thurward_dns_upstream_tls_failures_total", Counter, l("reason"), "TLS connections to upstreams that failed, by cause."},
	{"thurward_dns_upstream_tls_unsent_total", Counter, nil, "Queries for which a TLS connection had no room."},
	{"thurward_dns_upstream_tls_open", Gauge, nil, "Upstreams to which a TLS connection is open."},
	{"thurward_dns_upstream_unreachable_total", Counter, nil, "Queries to upstreams that ICMP errors have said cannot be delivered."},
	{"thurward_drops_total", Counter, l("drop_reason"), "Packets dropped, by reason."},
	{"thurward_echo_replies_total", Counter, nil, "Echo requests to the firewall that were answered."},
	{"thurward_event_records_lost_total", Counter, nil, "Events lost because the packet loop's ring was full."},
	{"thurward_events_merged_total", Counter, nil, "Drops that were merged into the line of an identical one."},
	{"thurward_filter_decisions_total", Counter, nil, "Packets that the filter decided: the first of each direction of a flow, and those that belong to none."},
	{"thurward_fqdn_set_capacity", Gauge, nil, "Capacity of the set of names."},
	{"thurward_fqdn_set_clients", Gauge, nil, "Clients that know names which rules have; all for whom a resolver asks are one."},
	{"thurward_fqdn_set_evictions_total", Counter, l("reason"), "Names of addresses evicted before they expired."},
	{"thurward_fqdn_set_largest_client", Gauge, nil, "Such names of addresses that the client with the most knows."},
	{"thurward_fqdn_set_size", Gauge, nil, "Names of addresses that clients have learned and that have not expired."},
	{"thurward_fragmented_total", Counter, nil, "Packets that were fragmented to the MTU of their egress interface."},
	{"thurward_fragments_held", Gauge, nil, "Fragments of datagrams that are not complete yet."},
	{"thurward_fragments_joined_total", Counter, nil, "Fragments that were copied to another's frame."},
	{"thurward_fragments_sent_total", Counter, nil, "Fragments that they became."},
	{"thurward_icmp_errors_sent_total", Counter, nil, "ICMP errors of the firewall's own."},
	{"thurward_icmp_errors_translated_total", Counter, nil, "ICMP errors about known flows that were translated and delivered."},
	{"thurward_interface_interrupts_total", Counter, l("interface"), "Interrupts of the device."},
	{"thurward_interface_lost_frames_total", Counter, l("interface"), "Frames that were under way when the device was reset; those to send may have been sent."},
	{"thurward_interface_notifies_total", Counter, l("interface"), "Notifications to the device, each an exit to the host."},
	{"thurward_interface_other_host_total", Counter, l("interface"), "Frames for another link-layer address, which were ignored."},
	{"thurward_interface_receive_bytes_total", Counter, l("interface"), "Bytes received."},
	{"thurward_interface_receive_completed_total", Counter, l("interface"), "Received frames whose checksums the firewall completed (checksum offload)."},
	{"thurward_interface_receive_large_total", Counter, l("interface"), "Large TCP segments received (segmentation offload)."},
	{"thurward_interface_receive_malformed_total", Counter, l("interface"), "Received frames that violate the negotiated features."},
	{"thurward_interface_receive_no_buffer_total", Counter, l("interface"), "Times that the receive queue could not be refilled, or that a received frame found no buffer."},
	{"thurward_interface_receive_packets_total", Counter, l("interface"), "Frames received."},
	{"thurward_interface_resets_total", Counter, l("interface"), "Times that the device was reset and set up again."},
	{"thurward_interface_transmit_bytes_total", Counter, l("interface"), "Bytes sent."},
	{"thurward_interface_transmit_holds_total", Counter, l("interface"), "Times that the device had no room, and frames waited for up to 10 ms."},
	{"thurward_interface_transmit_kicks_total", Counter, l("interface"), "Times that the transmit queue made no progress for 100 ms, and the device was notified again."},
	{"thurward_interface_transmit_large_total", Counter, l("interface"), "Large TCP segments sent."},
	{"thurward_interface_transmit_packets_total", Counter, l("interface"), "Frames sent."},
	{"thurward_interface_up", Gauge, l("interface"), "1 while the device works and its link is up."},
	{"thurward_large_cut_total", Counter, nil, "Large TCP segments that the firewall cut itself: the way out takes none, or they needed to be looked at one by one."},
	{"thurward_large_forwarded_total", Counter, nil, "Large TCP segments (segmentation offload) that passed whole."},
	{"thurward_mss_clamped_total", Counter, nil, "TCP handshakes' segments whose MSS was lowered."},
	{"thurward_nat_port_pool_highest", Gauge, l("external_ip proto"), "Most external ports in use at once since boot."},
	{"thurward_nat_port_pool_in_use", Gauge, l("external_ip proto"), "External ports, or identifiers of ICMP queries, in use."},
	{"thurward_nat_port_pool_size", Gauge, l("external_ip proto"), "External ports, or identifiers of ICMP queries, in the pool."},
	{"thurward_nat_ports_reclaimed_total", Counter, nil, "Flows that were evicted for their external port."},
	{"thurward_nat_translations_total", Counter, l("kind"), "Translated flows that began, by kind."},
	{"thurward_neighbour_evictions_total", Counter, l("interface"), "Neighbours evicted to make room."},
	{"thurward_own_messages_unsent_total", Counter, nil, "Packets of the firewall's own that were not sent: no buffer."},
	{"thurward_packet_loop_busy_seconds_total", Counter, nil, "Time in which the packet loop had work, of all workers. Its rate, divided by their number, is the utilization of the processors; polls without packets do not count."},
	{"thurward_packet_loop_gap_longest_seconds", Gauge, l("during"), "The longest gap since the last snapshot, by what the loop did."},
	{"thurward_packet_loop_gap_seconds", Histogram, nil, "Time between two polls of the packet loop while it is awake, and how late it wakes up."},
	{"thurward_packet_loop_late_batches_total", Counter, nil, "Batches of packets that took longer than 20 milliseconds."},
	{"thurward_processors", Gauge, nil, "Processors that run the firewall."},
	{"thurward_processors_listed", Gauge, nil, "Processors that the machine's tables list; 0: it has no such tables. The console says why some are not used."},
	{"thurward_random_starved_total", Counter, nil, "Times that the machine's source of random numbers did not answer; the generator went on without."},
	{"thurward_reassembled_total", Counter, nil, "Datagrams whose fragments have all arrived."},
	{"thurward_resets_sent_total", Counter, nil, "TCP resets sent for rejected connections."},
	{"thurward_rule_accepts_total", Counter, l("rule_id"), "Packets that a rule accepted, by rule; default-deny and default-accept are the default action."},
	{"thurward_rule_drops_total", Counter, l("rule_id"), "Packets that a rule dropped."},
	{"thurward_rule_shadows_total", Counter, l("rule_id"), "Decisions that a rule in shadow mode would have taken."},
	{"thurward_sni_accepted_total", Counter, nil, "Connections of rules with sni: require whose server name was accepted."},
	{"thurward_sni_segments_repeated_total", Counter, nil, "Segments of such connections that were dropped before the server had answered: repeated, or out of order."},
	{"thurward_uptime_seconds", Gauge, nil, "Time since boot."},
	{"thurward_vsock_connected", Gauge, nil, "1 while a receiver is connected."},
	{"thurward_vsock_connections_total", Counter, nil, "Connections to the receiver."},
	{"thurward_vsock_dropped_lines_total", Counter, nil, "Lines of events and spans that were lost, the oldest first, because they could not be sent in time."},
	{"thurward_vsock_transmit_kicks_total", Counter, nil, "Times that what is sent over vsock made no progress for a second, and the device was notified again."},
	{"thurward_vsock_resets_total", Counter, nil, "Times that the vsock device was reset and set up again."},
	{"thurward_vsock_ignored_bytes_total", Counter, nil, "Bytes that the host sent, which are discarded."},
	{"thurward_vsock_refused_total", Counter, l("kind"), "Invalid packets of the host, and violations of virtio by the device, by kind."},
	{"thurward_vsock_send_queue_bytes", Gauge, nil, "Bytes of records that wait to be sent."},
	{"thurward_vsock_send_queue_depth", Gauge, nil, "Lines that wait to be sent."},
	{"thurward_vsock_sent_bytes_total", Counter, nil, "Bytes that were sent."},
	{"thurward_vsock_sent_lines_total", Counter, nil, "Lines that were rendered to be sent."},
	{"thurward_worker_busy_seconds_total", Counter, l("worker"), "Time in which a worker had work."},
	{"thurward_worker_conntrack_entries", Gauge, l("worker"), "Flows in a worker's part of the table."},
	{"thurward_worker_handed_over_total", Counter, l("worker"), "Frames that came to a worker and were another one's."},
	{"thurward_worker_ports_lent_total", Counter, l("worker"), "External ports that a worker lent to another one that had none left."},
	{"thurward_workers", Gauge, nil, "Workers that forward packets, each with a pair of queues of both devices."}}
