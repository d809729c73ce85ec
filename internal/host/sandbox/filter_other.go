//go:build !amd64

package sandbox

// deniedHere are denied calls that only this architecture has.
var deniedHere []uint32
