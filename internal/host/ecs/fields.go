package ecs

// The fields of events, by topic. The names that begin with "firewall." or
// "network.translated." are ours; the others are those of the Elastic Common
// Schema. docs/telemetry.md describes them.
const (
	Timestamp     = "@timestamp"
	EventKind     = "event.kind"
	EventCategory = "event.category"
	EventType     = "event.type"
	EventAction   = "event.action"
	EventOutcome  = "event.outcome"
	EventReason   = "event.reason"
	EventStart    = "event.start"
	EventEnd      = "event.end"
	EventDuration = "event.duration" // nanoseconds
	EventSequence = "event.sequence"
	EventProvider = "event.provider" // written by a hub on the host only

	RuleID     = "rule.id"
	RuleName   = "rule.name"
	DropReason = "firewall.drop_reason"
	FlowID     = "firewall.flow_id"
	Answer     = "firewall.answer" // true: the first packet of a flow's answers
	Count      = "firewall.count"  // like events that one stands for

	SourceIP           = "source.ip"
	SourcePort         = "source.port"
	SourceNATIP        = "source.nat.ip"
	SourceNATPort      = "source.nat.port"
	SourcePackets      = "source.packets"
	SourceBytes        = "source.bytes"
	DestinationIP      = "destination.ip"
	DestinationPort    = "destination.port"
	DestinationNATIP   = "destination.nat.ip"
	DestinationNATPort = "destination.nat.port"
	DestinationPackets = "destination.packets"
	DestinationBytes   = "destination.bytes"
	DestinationDomain  = "destination.domain"

	NetworkTransport  = "network.transport"
	NetworkIANANumber = "network.iana_number"
	NetworkType       = "network.type"
	NetworkProtocol   = "network.protocol"
	NetworkDirection  = "network.direction"
	NetworkPackets    = "network.packets"
	NetworkBytes      = "network.bytes"
	TranslatedAddress = "network.translated.address"
	TranslatedPort    = "network.translated.port"
	EtherType         = "firewall.ethertype"
	ICMPType          = "firewall.icmp_type"
	ICMPCode          = "firewall.icmp_code"

	DNSType         = "dns.type"
	DNSQuestionName = "dns.question.name"
	DNSQuestionType = "dns.question.type"
	DNSResponseCode = "dns.response_code"
	DNSResolvedIP   = "dns.resolved_ip"
	DNSLookup       = "firewall.dns_lookup"
	DNSBypass       = "firewall.dns_bypass"
	Hint            = "firewall.hint"
	NameExpired     = "firewall.name_expired_seconds"
	ErrorMessage    = "error.message"

	TraceID         = "trace.id"
	SpanID          = "span.id"
	Clock           = "firewall.clock" // "none": times count from 1970-01-01 at boot
	Policy          = "firewall.policy"
	ClockAdjustment = "firewall.clock_adjustment_ns" // what was added; may be negative
	LostLines       = "firewall.lost_lines"
	LostRecords     = "firewall.lost_records"
	LostEvents      = "thurward.lost" // of the console
)

// The fields of a HELLO, the first line of a connection, beside Timestamp,
// Clock, Policy and LostLines.
const (
	StreamVersion   = "stream.version"
	ServiceName     = "service.name"
	ServiceVersion  = "service.version"
	ServiceInstance = "service.instance.id" // of a boot
	GitSHA          = "firewall.git_sha"
	LANName         = "firewall.lan.name"
	LANMAC          = "firewall.lan.mac"
	LANAddress      = "firewall.lan.address"
	WANName         = "firewall.wan.name"
	WANMAC          = "firewall.wan.mac"
	WANAddress      = "firewall.wan.address"
	Rules           = "firewall.rules"
	MaxFlows        = "firewall.max_flows"
	Uptime          = "firewall.uptime_ns"
	Connection      = "firewall.connection"
)

// The values of EventAction.
const (
	Accept         = "accept"
	Drop           = "drop"
	WouldAccept    = "would-accept" // of a rule in shadow mode
	WouldDrop      = "would-drop"
	FlowEnd        = "flow-end"
	DNSQuery       = "dns-query"
	UpstreamFailed = "dns-upstream-failed"
	ClockAdjusted  = "clock-adjusted"
	PacketsLate    = "packets-late"
	LinesLost      = "lines-lost"
	EventsLost     = "events-lost" // of the console
)
