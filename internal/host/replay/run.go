package replay

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/thurward/thurward/internal/guest/export"
	"github.com/thurward/thurward/internal/guest/framebuf"
	"github.com/thurward/thurward/internal/shared/event"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
)

// MaxBytes is the default limit on the bytes of a capture's frames.
const MaxBytes = 1 << 30

// maxSpan is the longest time that a capture may cover, since all timers in it are
// run.
const maxSpan = 31 * 24 * time.Hour

// Options say what is replayed. Policy and at least one of LAN and WAN are
// required.
type Options struct {
	Policy       *ruleset.Policy
	In           [2]string  // captures of frames that arrive, by Side; empty: none
	Out          [2]string  // captures of frames that leave, to be written; empty: none
	Events       io.Writer  // events, one JSON object a line; nil: not written
	MAC          [2][6]byte // of the ports; zero: found in the captures
	Seed         uint64
	Drain        time.Duration // of virtual time after the last frame
	MaxBytes     int64         // 0: MaxBytes
	FixChecksums bool          // correct IPv4, TCP, UDP and ICMP checksums of frames that arrive
	SeenOnly     bool          // do not answer ARP requests for addresses that are in no capture
}

// run is a replay in progress.
type run struct {
	o      Options
	fw     *Firewall
	in     [2]*reader
	out    [2]*writer
	survey [2]*survey
	base   time.Time // the time of day at Start
	sum    *Summary
	ctx    export.Context
	line   []byte
	fixed  []byte // scratch for frames that are changed
	names  pairing
	err    error // the first error of a callback
}

// Run replays captures and returns a summary. Errors name the file and the frame.
func Run(o Options) (*Summary, error) {
	if o.In == [2]string{} {
		return nil, errors.New("no capture to replay (want --lan, --wan or both)")
	}
	if o.MaxBytes == 0 {
		o.MaxBytes = MaxBytes
	}
	r := &run{o: o, sum: &Summary{policy: o.Policy}}
	var first time.Time
	for s := range r.in {
		at, err := r.read(Side(s))
		if err != nil {
			return nil, err
		}
		if !at.IsZero() && (first.IsZero() || at.Before(first)) {
			first = at
		}
	}
	if first.IsZero() {
		first = time.Unix(0, 0) // no frame at all
	}
	r.base = first.Add(-time.Duration(Start))
	r.ctx = export.Context{Policy: o.Policy, WallBase: r.base.UnixNano(), Clock: "capture"}
	var err error
	r.fw, err = NewFirewall(Config{
		Policy: o.Policy, Seed: o.Seed, MAC: [2][6]byte{r.sum.Side[LAN].MAC, r.sum.Side[WAN].MAC},
		Neighbour: r.neighbour, Sent: r.sent, Event: r.event,
	})
	if err != nil {
		return nil, err
	}
	defer func() {
		for s := range r.in {
			if r.in[s] != nil {
				r.in[s].close()
			}
			if r.out[s] != nil {
				r.out[s].close()
			}
		}
	}()
	for s := range r.in {
		if r.in[s], err = openCapture(o.In[s], o.MaxBytes); err != nil {
			return nil, err
		}
		if r.out[s], err = createCapture(o.Out[s]); err != nil {
			return nil, err
		}
	}
	if err = r.replay(); err != nil {
		return nil, err
	}
	for s := range r.out {
		if err := r.out[s].close(); err != nil {
			return nil, err
		}
		r.sum.Side[s].Short = r.in[s].short
	}
	r.sum.Answers = r.names.Paired
	r.sum.finish(r.fw, o.Policy)
	return r.sum, nil
}

// read reads a capture for the first time: for the addresses in it, and the time at
// which it begins.
func (r *run) read(s Side) (first time.Time, err error) {
	r.survey[s] = newSurvey(s, r.o.Policy)
	in, err := openCapture(r.o.In[s], r.o.MaxBytes)
	if err != nil {
		return first, err
	}
	defer in.close()
	first, err = in.ahead()
	if err != nil && !errors.Is(err, io.EOF) {
		return first, err
	}
	if err == nil && (first.Year() < 1970 || first.Year() > 2200) {
		return first, fmt.Errorf("%s: frame 1: a time in the year %d (editcap -t moves a capture in time)",
			r.o.In[s], first.Year())
	}
	if err := r.survey[s].scan(in); err != nil {
		return first, err
	}
	side := &r.sum.Side[s]
	side.File = r.o.In[s]
	side.MAC, side.How = r.survey[s].identify(r.o.MAC[s], r.o.Policy)
	return first, nil
}

// replay merges the captures by time; at equal times the LAN's comes first.
func (r *run) replay() error {
	for r.err == nil {
		var at [2]time.Time
		var open [2]bool
		for s := range r.in {
			t, err := r.in[s].ahead()
			if err != nil && !errors.Is(err, io.EOF) {
				return err
			}
			at[s], open[s] = t, err == nil
		}
		s := LAN
		switch {
		case !open[LAN] && !open[WAN]:
			end := r.fw.Now() + int64(r.o.Drain)
			r.fw.Advance(end)
			r.sum.Span = time.Duration(end - Start)
			return r.err
		case !open[LAN] || open[WAN] && at[WAN].Before(at[LAN]):
			s = WAN
		}
		f, err := r.in[s].next()
		if err != nil {
			return err
		}
		if err := r.frame(s, &f); err != nil {
			return err
		}
	}
	return r.err
}

// frame passes one frame to the firewall, or counts why it is left out.
func (r *run) frame(s Side, f *frameIn) error {
	c := &r.sum.Side[s]
	c.Frames++
	d := f.at.Sub(r.base)
	if d > maxSpan {
		return fmt.Errorf("%s: frame %d: %v, more than %d days after the first frame (editcap -A and -B cut a capture)",
			r.o.In[s], r.in[s].n, f.at.UTC().Format(time.RFC3339), int(maxSpan.Hours()/24))
	}
	now := int64(d)
	if now < r.fw.Now() {
		c.Late++
	}
	switch {
	case packet.Type(f.data) != 0 && [6]byte(f.data[6:]) == c.MAC && c.How != byNone:
		c.Own++
		return nil
	case f.cut:
		c.Cut++
		return nil
	case len(f.data) > framebuf.MaxLen:
		c.Long++
		return nil
	case len(f.data) == 0:
		c.Empty++
		return nil
	}
	r.fixed = append(r.fixed[:0], f.data...)
	b := r.fixed
	if c.How == byNone && len(b) >= packet.EthLen && b[0]&1 == 0 {
		copy(b, c.MAC[:])
	}
	if r.o.FixChecksums {
		fixChecksums(b)
	}
	if s == WAN {
		r.names.answer(b)
	}
	r.fw.Receive(s, now, b)
	return nil
}

func (r *run) neighbour(s Side, a packet.Addr) ([6]byte, bool) {
	v := r.survey[s]
	if _, ok := v.hosts[a]; !ok && r.o.SeenOnly {
		return [6]byte{}, false
	}
	return v.neighbour(a, r.sum.Side[s].MAC), true
}

func (r *run) sent(s Side, now int64, b []byte) {
	r.sum.Side[s].Sent++
	if s == WAN {
		r.names.sent(b)
	}
	if err := r.out[s].write(r.base.Add(time.Duration(now)), b); err != nil && r.err == nil {
		r.err = err
	}
}

func (r *run) event(e *event.Record, name []byte) {
	r.sum.Events++
	if r.o.Events == nil || r.err != nil {
		return
	}
	r.line = append(export.AppendNamed(r.line[:0], e, name, &r.ctx), '\n')
	if _, err := r.o.Events.Write(r.line); err != nil {
		r.err = err
	}
}

// fixChecksums corrects the checksums of a complete IPv4 packet. Captures of a host
// that leaves them to its network device have wrong ones in frames that it sent.
func fixChecksums(f []byte) {
	if packet.Type(f) != packet.TypeIPv4 || len(f) < packet.EthLen+packet.MinIPv4 {
		return
	}
	ip := f[packet.EthLen:]
	hl, total := int(ip[0]&15)*4, int(binary.BigEndian.Uint16(ip[2:]))
	if ip[0]>>4 != 4 || hl < packet.MinIPv4 || total < hl || total > len(ip) {
		return
	}
	put := func(b []byte, off int, start uint64) {
		b[off], b[off+1] = 0, 0
		binary.BigEndian.PutUint16(b[off:], ^packet.Sum(b, start))
	}
	put(ip[:hl], 10, 0)
	if binary.BigEndian.Uint16(ip[6:])&0x3fff != 0 {
		return // a fragment has no checksum of its own
	}
	l4 := ip[hl:total]
	pseudo := uint64(binary.BigEndian.Uint32(ip[12:])) + uint64(binary.BigEndian.Uint32(ip[16:])) +
		uint64(ip[9]) + uint64(len(l4))
	switch {
	case ip[9] == packet.TCP && len(l4) >= packet.TCPLen:
		put(l4, 16, pseudo)
	case ip[9] == packet.UDP && len(l4) >= packet.UDPLen && binary.BigEndian.Uint16(l4[6:]) != 0:
		put(l4, 6, pseudo)
		if l4[6]|l4[7] == 0 {
			l4[6], l4[7] = 0xff, 0xff
		}
	case ip[9] == packet.ICMP && len(l4) >= packet.ICMPLen:
		put(l4, 2, 0)
	}
}
