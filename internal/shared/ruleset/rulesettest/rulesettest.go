// Package rulesettest has what tests need to make a policy that ruleset.Open
// takes.
package rulesettest

import "github.com/thurward/thurward/internal/shared/ruleset"

// Interfaces returns a LAN interface, 10.0.0.1/24, and a WAN interface,
// 203.0.113.10/24.
func Interfaces() []ruleset.Interface {
	return []ruleset.Interface{
		{Role: ruleset.LAN, Address: ruleset.Addr{10: 0xff, 11: 0xff, 12: 10, 15: 1}, PrefixLen: 24},
		{Role: ruleset.WAN, Address: ruleset.Addr{10: 0xff, 11: 0xff, 12: 203, 14: 113, 15: 10}, Gateway: ruleset.Addr{10: 0xff, 11: 0xff, 12: 203, 14: 113, 15: 1}, PrefixLen: 24},
	}
}
