package export

// send renders and sends lines while there is room, and reports whether there is more to do
// at once.
func (s *Stream) send(now int64) (more bool) {
	if now >= s.nextShot && s.part == partNone && s.shot.Load() == shotIdle {
		s.wantShot(now)
	}
	lines := 0
	for {
		for len(s.out)-s.sent < outBytes && lines < stepLines && s.render(now) {
			lines++
		}
		moved := s.push()
		if !moved || lines >= stepLines {
			break
		}
	}
	s.c.Link.Flush()
	return lines >= stepLines
}

// beatPrefix begins the lines by which the host sees that the packet loop runs.
const beatPrefix = "# BEAT "

// beat renders a beat if it is time for one and the packet loop has run since the last, and
// reports whether it did.
func (s *Stream) beat(now int64) bool {
	loops := s.loops.Load()
	if now < s.nextBeat || loops == s.beaten {
		return false
	}
	s.beaten, s.nextBeat = loops, now+beatEvery
	s.line(s.c.Context.appendTime(append(s.out, beatPrefix...), now))
	return true
}

// push passes rendered bytes to the link, and reports whether it took any.
func (s *Stream) push() bool {
	moved := false
	for s.sent < len(s.out) {
		room := s.c.Link.Buffer()
		if len(room) == 0 {
			break
		}
		n := copy(room, s.out[s.sent:])
		s.c.Link.Send(n)
		s.sent += n
		s.bytesSent += uint64(n)
		moved = true
	}
	if s.sent == len(s.out) {
		s.out, s.sent = s.out[:0], 0
	} else if s.sent > outBytes/2 {
		s.out = s.out[:copy(s.out, s.out[s.sent:])]
		s.sent = 0
	}
	return moved
}

// line ends the line that was appended to out.
func (s *Stream) line(out []byte) {
	s.out = append(out, '\n')
	s.linesSent++
}

// render renders the next line, and reports whether there was one.
func (s *Stream) render(now int64) bool {
	if s.part != partNone || s.shot.Load() == shotReady {
		s.renderShot(now)
		return true
	}
	if !s.greeted {
		return false // wait for the first snapshot
	}
	if s.beat(now) || s.loss(now) {
		return true
	}
	var ok bool
	if s.name, ok = s.q.pop(&s.rec, s.name[:0]); !ok {
		return false
	}
	r, name := &s.rec, s.name
	if r.Lines&lineEvent != 0 {
		s.line(AppendNamed(s.out, r, name, s.c.Context))
	}
	if r.Lines&lineSpan != 0 {
		s.line(AppendSpan(s.out, r, name, s.c.Context))
	}
	return true
}

// anyLoss reports whether there was a loss since the last report.
func (s *Stream) anyLoss() bool { return s.Dropped() != s.toldLines || s.ringLost != s.toldRing }

// loss renders a report of losses since the last one, and reports whether there were any.
func (s *Stream) loss(now int64) bool {
	if !s.anyLoss() || now < s.nextLoss {
		return false
	}
	lines, records := s.Dropped(), s.ringLost
	l := Loss{Lines: lines - s.toldLines, Records: records - s.toldRing, Since: s.lostSince}
	s.line(appendLoss(s.out, &l, s.c.Context, now))
	s.toldLines, s.toldRing, s.lostSince, s.nextLoss = lines, records, 0, now+tellLoss
	return true
}

// renderShot renders the next line of a snapshot.
func (s *Stream) renderShot(now int64) {
	switch s.part {
	case partNone:
		s.c.Local.Fill()
		s.part, s.cursor = partLoop, metricCursor{m: s.c.Metrics}
		b := append(s.out, metricPrefix+"# SNAPSHOT "...)
		s.line(s.c.Context.appendTime(b, now))
		return
	case partLoop, partLocal:
		if b, ok := s.cursor.next(s.out); ok {
			s.line(b)
			return
		}
		s.part++
		if s.part == partLocal {
			s.cursor = metricCursor{m: s.c.Local}
			s.shot.Store(shotIdle)
			s.renderShot(now)
			return
		}
	}
	s.line(append(s.out, metricPrefix+"# EOF"...))
	s.part, s.greeted = partNone, true
}

// metrics returns the stream's own metrics.
func (s *Stream) metrics() []Family {
	return []Family{
		{Name: "thurward_vsock_send_queue_depth",
			Help: "Lines that wait to be sent.",
			Type: Gauge, Fill: func(v []uint64) {
				if v[0] = 0; s.q != nil {
					v[0] = uint64(s.q.lines)
				}
			}},
		{Name: "thurward_vsock_send_queue_bytes",
			Help: "Bytes of records that wait to be sent.",
			Type: Gauge, Fill: func(v []uint64) {
				if v[0] = 0; s.q != nil {
					v[0] = uint64(s.q.bytes())
				}
			}},
		{Name: "thurward_vsock_dropped_lines_total",
			Help: "Lines of events and spans that were lost, the oldest first, because they could not be sent in time.",
			Type: Counter,
			Fill: func(v []uint64) { v[0] = s.Dropped() }},
		One(Counter, "thurward_vsock_sent_lines_total", "Lines that were rendered to be sent.", &s.linesSent),
		One(Counter, "thurward_vsock_sent_bytes_total", "Bytes that were sent.", &s.bytesSent),
		One(Counter, "thurward_vsock_connections_total", "Connections to the receiver.", &s.conn),
		One(Counter, "thurward_event_records_lost_total",
			"Events lost because the packet loop's ring was full.", &s.ringLost),
		One(Counter, "thurward_events_merged_total",
			"Drops that were merged into the line of an identical one.", &s.agg.Merged),
	}
}
