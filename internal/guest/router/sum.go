package router

// Add adds the counters of another worker of the same firewall to c.
func (c *Counters) Add(o *Counters) {
	all(c.Accepts, o.Accepts)
	all(c.Drops, o.Drops)
	all(c.Shadows, o.Shadows)
	all(c.DropReasons[:], o.DropReasons[:])
	for _, v := range [...][2]*[2]uint64{
		{&c.RxPackets, &o.RxPackets}, {&c.RxBytes, &o.RxBytes}, {&c.TxPackets, &o.TxPackets}, {&c.TxBytes, &o.TxBytes},
		{&c.Holds, &o.Holds}, {&c.OtherHost, &o.OtherHost}, {&c.ARPReceived, &o.ARPReceived}, {&c.ARPConflicts, &o.ARPConflicts},
		{&c.ARPSent, &o.ARPSent}, {&c.NeighbourEvictions, &o.NeighbourEvictions},
	} {
		all(v[0][:], v[1][:])
	}
	all(c.Translations[:], o.Translations[:])
	for _, v := range [...][2]*uint64{
		{&c.Decisions, &o.Decisions}, {&c.Local, &o.Local}, {&c.Own, &o.Own}, {&c.LocalReplies, &o.LocalReplies},
		{&c.ICMPErrorsSent, &o.ICMPErrorsSent}, {&c.ResetsSent, &o.ResetsSent}, {&c.AnswersSuppressed, &o.AnswersSuppressed},
		{&c.ICMPErrorsTranslated, &o.ICMPErrorsTranslated}, {&c.PortsReclaimed, &o.PortsReclaimed},
		{&c.ServerNamesAccepted, &o.ServerNamesAccepted}, {&c.ServerNameRepeats, &o.ServerNameRepeats}, {&c.NoBuffer, &o.NoBuffer},
		{&c.Fragmented, &o.Fragmented}, {&c.FragmentsSent, &o.FragmentsSent}, {&c.Reassembled, &o.Reassembled}, {&c.Joined, &o.Joined},
		{&c.MSSClamped, &o.MSSClamped}, {&c.LargeForwarded, &o.LargeForwarded}, {&c.LargeCut, &o.LargeCut},
		{&c.HandedOver, &o.HandedOver}, {&c.PortsLent, &o.PortsLent},
	} {
		*v[0] += *v[1]
	}
}

func all(a, b []uint64) {
	for i := range a {
		a[i] += b[i]
	}
}
