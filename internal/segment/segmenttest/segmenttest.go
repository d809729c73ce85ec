// Package segmenttest has what tests need to make a policy that segment.Open
// takes.
package segmenttest

import "github.com/thurward/thurward/internal/segment"

// Interfaces returns a LAN interface, 10.0.0.1/24, and a WAN interface,
// 203.0.113.10/24.
func Interfaces() []segment.Interface {
	return []segment.Interface{
		{Role: segment.LAN, Address: segment.Addr{10: 0xff, 11: 0xff, 12: 10, 15: 1}, PrefixLen: 24},
		{Role: segment.WAN, Address: segment.Addr{10: 0xff, 11: 0xff, 12: 203, 14: 113, 15: 10}, Gateway: segment.Addr{10: 0xff, 11: 0xff, 12: 203, 14: 113, 15: 1}, PrefixLen: 24},
	}
}
