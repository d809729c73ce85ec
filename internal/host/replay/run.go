package replay

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/thurward/thurward/internal/guest/export"
	"github.com/thurward/thurward/internal/shared/event"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
)

// MaxBytes is the default limit on the bytes of a capture's frames.
const MaxBytes = 1 << 30

// maxSpan is the longest time that a capture may cover, since all timers in it are
// run.
const maxSpan = 31 * 24 * time.Hour

// Options say what is replayed. Policy and a capture are required.
type Options struct {
	Policy       *ruleset.Policy
	In           [2]string // captures of frames that arrive, by Side; empty: none, -: Stdin
	Any          string    // a capture of all interfaces of a Linux host, instead of In
	Stdin        io.Reader
	Out          [2]string  // captures of frames that leave, to be written; empty: none
	Events       io.Writer  // events, one JSON object a line; nil: not written
	MAC          [2][6]byte // of the ports; zero: found in the captures
	Seed         uint64
	Drain        time.Duration // of virtual time after the last frame
	MaxBytes     int64         // 0: MaxBytes
	FixChecksums bool          // correct IPv4, TCP, UDP and ICMP checksums of frames that arrive
	SeenOnly     bool          // do not answer ARP requests for addresses that are in no capture
	// Progress is called now and then with the bytes of the captures that were replayed,
	// and all of them. Nil: not called.
	Progress func(done, all int64)
}

// run is a replay in progress.
type run struct {
	o      Options
	fw     *Firewall
	src    [2]source
	in     [2]*reader
	out    [2]*writer
	survey [2]*survey
	base   time.Time // the time of day at Start
	sum    *Summary
	ctx    export.Context
	line   []byte
	fixed  []byte // scratch for frames that are changed
	names  pairing
	all    *allSurvey // of Options.Any; nil: a capture a side
	count  int        // frames since the last word of progress
	err    error      // the first error of a callback
}

// Run replays captures and returns a summary. Errors name the file and the frame.
func Run(o Options) (*Summary, error) {
	if o.In == [2]string{} && o.Any == "" {
		return nil, errors.New("no capture to replay (want --lan, --wan or both, or --any)")
	}
	if o.MaxBytes == 0 {
		o.MaxBytes = MaxBytes
	}
	r := &run{o: o, sum: &Summary{policy: o.Policy, fixed: o.FixChecksums}}
	defer r.close()
	if err := r.open(); err != nil {
		return nil, err
	}
	first, err := r.look()
	if err != nil {
		return nil, err
	}
	if first.IsZero() {
		first = time.Unix(0, 0) // no frame at all
	}
	r.base = first.Add(-time.Duration(Start))
	r.ctx = export.Context{Policy: o.Policy, WallBase: r.base.UnixNano(), Clock: "capture"}
	r.fw, err = NewFirewall(Config{
		Policy: o.Policy, Seed: o.Seed, MAC: [2][6]byte{r.sum.Side[LAN].MAC, r.sum.Side[WAN].MAC},
		Neighbour: r.neighbour, Sent: r.sent, Event: r.event,
	})
	if err != nil {
		return nil, err
	}
	for s := range r.in {
		if r.in[s], err = r.reader(Side(s)); err != nil {
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
		if o.Any == "" {
			r.sum.Side[s].Alien = r.in[s].alien
		}
	}
	r.sum.Answers = r.names.Paired
	r.sum.finish(r.fw, o.Policy)
	return r.sum, nil
}

// open opens the captures.
func (r *run) open() (err error) {
	if r.o.Any != "" {
		r.src[LAN], err = openSource(r.o.Any, r.o.Stdin, r.o.MaxBytes)
		r.src[WAN] = r.src[LAN]
		return err
	}
	for s := range r.src {
		if r.src[s], err = openSource(r.o.In[s], r.o.Stdin, r.o.MaxBytes); err != nil {
			return err
		}
	}
	return nil
}

// close closes what is open; errors of what was written are found before.
func (r *run) close() {
	for s := range r.src {
		r.src[s].close()
		if r.out[s] != nil {
			r.out[s].close()
		}
	}
}

// reader returns a reader of the frames of one side.
func (r *run) reader(s Side) (*reader, error) {
	in, err := newReader(&r.src[s], r.o.MaxBytes)
	if err == nil && r.all != nil {
		in.take = r.all.take(s)
	}
	return in, err
}

// look reads the captures for the first time: for the addresses in them, and the time at
// which the earlier begins, zero if there is no frame.
func (r *run) look() (first time.Time, err error) {
	for s := range r.survey {
		r.survey[s] = newSurvey(Side(s), r.o.Policy)
	}
	if r.o.Any != "" {
		r.sum.Any = &AnySummary{File: r.src[LAN].path}
		all := newAllSurvey(r.survey, r.sum.Any)
		in, err := newReader(&r.src[LAN], r.o.MaxBytes)
		if err != nil {
			return first, err
		}
		if err := all.scan(in); err != nil {
			return first, err
		}
		for s := range r.survey {
			r.survey[s].atHome = true
		}
		r.all = all
	}
	for s := range r.survey {
		at, err := r.read(Side(s))
		if err != nil {
			return first, err
		}
		if !at.IsZero() && (first.IsZero() || at.Before(first)) {
			first = at
		}
	}
	if r.all != nil {
		r.sum.Any.Others = 0 // counted again by the replay
	}
	return first, nil
}

// read reads the capture of a side.
func (r *run) read(s Side) (first time.Time, err error) {
	in, err := r.reader(s)
	if err != nil {
		return first, err
	}
	first, err = in.ahead()
	if err != nil && !errors.Is(err, io.EOF) {
		return first, err
	}
	if err == nil && (first.Year() < 1970 || first.Year() > 2200) {
		return first, fmt.Errorf("%s: frame 1: a time in the year %d (editcap -t moves a capture in time)",
			in.path, first.Year())
	}
	if err := r.survey[s].scan(in); err != nil {
		return first, err
	}
	side := &r.sum.Side[s]
	side.File = in.path
	side.MAC, side.How = r.survey[s].identify(in.link, r.o.MAC[s], r.o.Policy)
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
		r.progress()
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
			r.in[s].path, r.in[s].n, f.at.UTC().Format(time.RFC3339), int(maxSpan.Hours()/24))
	}
	now := int64(d)
	if now < r.fw.Now() {
		c.Late++
	}
	went := arrives
	switch {
	case r.in[s].link != linkEthernet:
		went = r.survey[s].course(f)
	case packet.Type(f.data) != 0 && [6]byte(f.data[6:]) == c.MAC && c.How != byNone:
		went = departs
	}
	switch {
	case went == departs:
		c.Own++
		return nil
	case went == elsewhere:
		c.Elsewhere++
		return nil
	case f.cut:
		c.Cut++
		return nil
	case len(f.data) > r.fw.MaxLen():
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
	if r.in[s].link != linkEthernet {
		r.survey[s].complete(b, c.MAC)
	}
	if unsummed(b) {
		c.Unsummed++
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

// progress tells how far the replay is, every few thousand frames.
func (r *run) progress() {
	if r.count++; r.count < 4096 || r.o.Progress == nil {
		return
	}
	r.count = 0
	var done, all int64
	for s := range r.in {
		done, all = done+r.in[s].done(), all+r.src[s].size
	}
	r.o.Progress(done, all)
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
