package ingest

import (
	"io"
	"strings"
	"time"
)

// A Follower reads a stream that may have lines of several firewalls: from a hub,
// from a single connection, or from a recording of either.
type Follower struct {
	Reader  *Reader
	Now     func() time.Time // nil: time.Now
	sources map[string]*Source
	current *Source
	shared  bool // the stream has FROM lines, which name the firewalls; their HELLOs do not
}

// maxSources is how many firewalls of one stream are distinguished.
const maxSources = 256

// NewFollower makes a follower of r.
func NewFollower(r io.Reader) *Follower {
	s := &Source{}
	return &Follower{Reader: NewReader(r), sources: map[string]*Source{}, current: s}
}

// Next returns the next line and its source. FROM lines are not returned.
func (f *Follower) Next() (*Source, Item, error) {
	for {
		it, err := f.Reader.Next()
		if err != nil {
			return f.current, it, err
		}
		switch it.Kind {
		case FromKind:
			f.shared = true
			f.turn(it.From)
			continue
		case HelloKind:
			now := time.Now
			if f.Now != nil {
				now = f.Now
			}
			it.Hello.Received(now())
			if f.shared {
				var name string
				if name, it.Hello.Suffix, _ = strings.Cut(f.current.Peer, "#"); name != it.Hello.base() {
					it.Hello.Given = name
				}
				if it.Hello.Suffix != "" {
					it.Hello.Suffix = "#" + it.Hello.Suffix
				}
			} else {
				f.turn(it.Hello.Boot)
			}
			f.current.Hello = it.Hello
		}
		return f.current, it, nil
	}
}

func (f *Follower) turn(name string) {
	s := f.sources[name]
	if s == nil {
		if len(f.sources) >= maxSources {
			f.sources = map[string]*Source{}
		}
		s = &Source{Peer: name, Hello: Hello{Boot: name}}
		f.sources[name] = s
	}
	f.current = s
}
