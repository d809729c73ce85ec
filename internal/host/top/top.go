// Package top is the full-screen view of firewalls: what they decide, as lists that can
// be sorted and filtered, and a pane for one rule, one host or one name. tcell draws it.
//
//	top.go     the state, and the loop
//	keys.go    what keys do
//	lists.go   the lists
//	draw.go    the frame
//	detail.go  the pane
//	canvas.go  text and bars on a screen
//
// What firewalls say is text in cells of the screen: it is made printable, and tcell, which
// knows no markup, writes no other control sequences than its own.
package top

import (
	"context"
	"time"

	"github.com/gdamore/tcell/v3"

	"github.com/thurward/thurward/internal/host/dashboard"
)

// redrawEvery is how often the view is drawn when nothing happens.
const redrawEvery = 500 * time.Millisecond

// A View is the state of the view.
type View struct {
	model *dashboard.Model
	now   func() time.Time
	out   tcell.Screen

	views  []dashboard.View
	at     time.Time
	chosen string // firewall
	paused bool
	help   bool

	tab    int
	sorts  [numTabs]sorting
	cursor int // row of the list
	first  int // row that is shown first
	filter string
	typing bool // the filter

	kind, key string // of the pane; kind "": the list
	rows      []row
}

// A sorting is by which column a list is sorted.
type sorting struct {
	column   int
	reversed bool
}

// New returns a view of a model on a screen, which must be initialized. now is the clock.
func New(m *dashboard.Model, out tcell.Screen, now func() time.Time) *View {
	v := &View{model: m, out: out, now: now}
	for i := range v.sorts {
		v.sorts[i].column = lists[i].sorted
	}
	return v
}

// Run shows the view until the user ends it, which it reports, or ctx ends.
func (v *View) Run(ctx context.Context) (quit bool) {
	clock := time.NewTicker(redrawEvery)
	defer clock.Stop()
	v.refresh()
	for {
		v.draw()
		v.out.Show()
		select {
		case <-ctx.Done():
			return false
		case <-clock.C:
			v.refresh()
		case e, ok := <-v.out.EventQ():
			if !ok {
				return true
			}
			switch e := e.(type) {
			case *tcell.EventResize:
				v.out.Sync()
			case *tcell.EventKey:
				if v.press(e) {
					return true
				}
			}
		}
	}
}

// refresh takes the present state, unless the view is paused.
func (v *View) refresh() {
	if v.paused {
		return
	}
	v.at = v.now()
	v.views = v.model.Views(v.at)
}

// firewall returns the firewall that is shown, and its number; nil if there is none.
func (v *View) firewall() (*dashboard.View, int) {
	for i := range v.views {
		if v.views[i].Name == v.chosen {
			return &v.views[i], i
		}
	}
	if len(v.views) == 0 {
		return nil, 0
	}
	return &v.views[0], 0
}
