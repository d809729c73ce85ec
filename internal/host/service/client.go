package service

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/thurward/thurward/internal/host/deploy"
	"github.com/thurward/thurward/internal/host/peer"
)

// ErrNoService is the error where no service runs the firewall of a folder.
var ErrNoService = errors.New("no service runs the firewall")

// A Change is what is asked of a service.
type Change struct {
	Image   string // SHA-256; "": the previous image
	Watch   time.Duration
	Cold    bool
	Say     func(string)                    // what the service tells meanwhile
	Confirm func(ctx context.Context) error // nil: nobody is asked
}

// dial connects to the service of a folder.
func dial(ctx context.Context, folder string) (*line, error) {
	st, err := os.Stat(folder)
	if err != nil {
		return nil, err
	}
	trusted := peer.Users{st.Sys().(*syscall.Stat_t).Uid}
	c, err := trusted.Dial(ctx, filepath.Join(folder, deploy.ControlName))
	if err != nil {
		if nobody(err) {
			return nil, ErrNoService
		}
		return nil, err
	}
	return &line{c: c, r: bufio.NewReaderSize(c, 64<<10)}, nil
}

// Ask returns the status of the service of a folder, or ErrNoService.
func Ask(ctx context.Context, folder string) (*Status, error) {
	l, err := dial(ctx, folder)
	if err != nil {
		return nil, err
	}
	defer l.c.Close()
	if err := l.put(call{Do: "status"}); err != nil {
		return nil, err
	}
	var a answer
	if err := l.get(&a, callLimit); err != nil {
		return nil, err
	}
	if a.Error != "" || a.Status == nil {
		return nil, fmt.Errorf("the service: %s", a.Error)
	}
	return a.Status, nil
}

// Request has the service of a folder change the image, and waits until that is done. A
// failure to do so is the error. While ctx lasts; when it ends a change that has to be
// confirmed is taken back, and another goes on.
func Request(ctx context.Context, folder string, c Change) error {
	l, err := dial(ctx, folder)
	if err != nil {
		return err
	}
	defer l.c.Close()
	defer context.AfterFunc(ctx, func() { l.c.Close() })()
	q := call{Do: "deploy", Image: c.Image, WatchMS: c.Watch.Milliseconds(), Cold: c.Cold, Confirm: c.Confirm != nil}
	if c.Image == "" {
		q.Do = "rollback"
	}
	if err := l.put(q); err != nil {
		return err
	}
	for {
		var a answer
		if err := l.get(&a, c.Watch+confirmLimit+2*bootTime); err != nil {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return fmt.Errorf("the service has gone, or does not answer: %w (thurward status shows what runs)", err)
		}
		switch {
		case a.Error != "":
			return errors.New(a.Error)
		case a.Done:
			return nil
		case a.Confirm && c.Confirm != nil:
			v := verdict{OK: true}
			if err := c.Confirm(ctx); err != nil {
				v = verdict{Why: err.Error()}
			}
			if err := l.put(v); err != nil {
				return err
			}
		case a.Say != "" && c.Say != nil:
			c.Say(a.Say)
		}
	}
}
