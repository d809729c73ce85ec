package packet

// A Net is a network: the addresses that are Addr under Mask.
type Net struct{ Addr, Mask Addr }

// Has reports whether an address is in the network.
func (n Net) Has(a Addr) bool { return a&n.Mask == n.Addr }

// IsHost reports whether an address can be that of a host: not of this network
// (0/8), loopback (127/8), multicast or reserved (224/3) (RFC 6890).
func (a Addr) IsHost() bool { return a>>24 != 0 && a>>24 != 127 && a>>29 != 7 }

// NotForwarded are the blocks of the IANA special-purpose address registry that are not
// forwardable (RFC 6890, RFC 8190), besides those that Addr.IsHost excludes: link-local
// addresses (RFC 3927 section 7), and IETF protocol assignments without the forwardable
// ones. The blocks for documentation are left out, since laboratories use them.
var NotForwarded = [...]Net{
	{0xa9fe0000, 0xffff0000}, // 169.254.0.0/16
	{0xc0000008, 0xffffffff}, // 192.0.0.8/32
	{0xc000000b, 0xffffffff}, // 192.0.0.11/32
	{0xc000000c, 0xfffffffc}, // 192.0.0.12/30
	{0xc0000010, 0xfffffff0}, // 192.0.0.16/28
	{0xc0000020, 0xffffffe0}, // 192.0.0.32/27
	{0xc0000040, 0xffffffc0}, // 192.0.0.64/26
	{0xc0000080, 0xffffff80}, // 192.0.0.128/25
}

// NotGlobal are the networks that cannot be reached through the Internet
// (RFC 6890), without those for documentation, which have no hosts.
var NotGlobal = [...]Net{
	{0x00000000, 0xff000000}, // 0.0.0.0/8, this host
	{0x0a000000, 0xff000000}, // 10.0.0.0/8 (RFC 1918)
	{0x64400000, 0xffc00000}, // 100.64.0.0/10, shared with the provider (RFC 6598)
	{0x7f000000, 0xff000000}, // 127.0.0.0/8, loopback
	{0xa9fe0000, 0xffff0000}, // 169.254.0.0/16, link-local (RFC 3927)
	{0xac100000, 0xfff00000}, // 172.16.0.0/12 (RFC 1918)
	{0xc0000000, 0xffffff00}, // 192.0.0.0/24, protocols (RFC 6890 section 2.1)
	{0xc0a80000, 0xffff0000}, // 192.168.0.0/16 (RFC 1918)
	{0xc6120000, 0xfffe0000}, // 198.18.0.0/15, benchmarks (RFC 2544)
	{0xe0000000, 0xe0000000}, // 224.0.0.0/3, multicast, reserved, broadcast
}
