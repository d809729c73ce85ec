package verdict

// A TLSClass says why a TLS connection to an upstream came to nothing. Zero is
// invalid in a record.
type TLSClass uint8

// The classes.
const (
	_              TLSClass = iota
	TLSVerify               // the certificate is not that of the server that was asked for, or not valid
	TLSTimeout              // no answer in time
	TLSProtocol             // what came is not TLS as it must be, or the server refuses ours
	TLSClosed               // the server, or the network, ended it
	TLSClockNotSet          // the time of day is not known: certificates cannot be judged
	NumTLSClasses
)

var tlsClassNames = [NumTLSClasses]string{TLSVerify: "verify", TLSTimeout: "timeout", TLSProtocol: "protocol", TLSClosed: "closed", TLSClockNotSet: "clock_not_set"}

// String returns the class's name in events and metrics.
func (c TLSClass) String() string {
	if c == 0 || c >= NumTLSClasses {
		return "invalid"
	}
	return tlsClassNames[c]
}
