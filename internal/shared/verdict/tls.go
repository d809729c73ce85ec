package verdict

// A TLSClass is why a TLS connection to an upstream failed. Zero is invalid.
type TLSClass uint8

// The classes.
const (
	_              TLSClass = iota
	TLSVerify               // the certificate is invalid, or for another name
	TLSTimeout              // no answer in time
	TLSProtocol             // a violation of TLS, or an alert of the server
	TLSClosed               // closed by the server, or by the network
	TLSClockNotSet          // the time of day is unknown: certificates cannot be verified
	NumTLSClasses
)

var tlsClassNames = [NumTLSClasses]string{
	TLSVerify:      "verify",
	TLSTimeout:     "timeout",
	TLSProtocol:    "protocol",
	TLSClosed:      "closed",
	TLSClockNotSet: "clock_not_set",
}

// String returns the class's name in events and metrics.
func (c TLSClass) String() string {
	if c == 0 || c >= NumTLSClasses {
		return "invalid"
	}
	return tlsClassNames[c]
}
