package thurwardreceiver

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/thurward/thurward/internal/host/dashboard"
	"github.com/thurward/thurward/internal/host/ingest"
	"github.com/thurward/thurward/internal/host/pageweb"
	"github.com/thurward/thurward/internal/host/policyview"
)

// Config is the receiver's part of the collector's configuration.
type Config struct {
	// Listen lists the addresses to which firewalls connect: unix:PATH, where
	// PATH ends in _9000, or vsock:9000.
	Listen []string `mapstructure:"listen"`
	// Tail is the Unix socket (unix:PATH) on which lines are served to thurward
	// events and thurward top; empty: none.
	Tail string `mapstructure:"tail"`
	// Page is the address of the web page, or unix:PATH; empty: none. Without a
	// PageConfig with TLS and authentication it is a loopback address.
	Page string `mapstructure:"page"`
	// PageConfig is a file in the format of Prometheus' web configuration, by which the
	// page is served; empty: plain HTTP.
	PageConfig string `mapstructure:"page_config"`
	// Policies lists files, or patterns of filepath.Glob, among which the page looks for
	// the rules.yaml of the policy that a firewall runs.
	Policies []string `mapstructure:"policies"`
	// Instance is the source of service.instance.id: wan_address or wan_mac, which
	// stay the same through restarts, or boot.
	Instance string `mapstructure:"instance"`
	// IncludeOriginal adds the line of each event as log.record.original.
	IncludeOriginal bool `mapstructure:"include_original"`
	// BatchSize is the largest number of log records or spans of one batch,
	// BatchTimeout the longest time that one waits for others.
	BatchSize    int           `mapstructure:"batch_size"`
	BatchTimeout time.Duration `mapstructure:"batch_timeout"`
	// QueueSize is the largest number of events, or of spans, of one firewall that
	// wait while a pipeline refuses them. Beyond it the oldest are dropped and counted.
	QueueSize int `mapstructure:"queue_size"`
	// QueueMiB bounds the queues of all firewalls together, in mebibytes. Each
	// firewall has an equal share, at most a quarter. Beyond it its oldest items
	// are dropped and counted.
	QueueMiB int `mapstructure:"queue_mib"`
	// MaxSeries bounds the series of metrics of all firewalls together that the
	// pipeline gets within five minutes. Beyond it there are no new series for
	// firewalls with more than an equal share.
	MaxSeries int `mapstructure:"max_series"`
	// PageToken is the file of a token for the page's data, made if it does not
	// exist; empty: only the token in the page's URL is accepted.
	PageToken string `mapstructure:"page_token"`
}

// The values of Instance.
const (
	byWANAddress = "wan_address"
	byWANMAC     = "wan_mac"
	byBoot       = "boot"
)

func defaultConfig() *Config {
	path := ingest.DefaultPath()
	return &Config{
		Listen: []string{"unix:" + ingest.GuestSocket(path)}, Tail: "unix:" + ingest.TailSocket(path), Page: "127.0.0.1:9465",
		Instance: byWANAddress, BatchSize: 1024, BatchTimeout: 200 * time.Millisecond, QueueSize: 8192, QueueMiB: 32, MaxSeries: 50000,
	}
}

// Validate checks the configuration and returns all errors.
func (c *Config) Validate() error {
	var errs []error
	if len(c.Listen) == 0 {
		errs = append(errs, errors.New("listen: empty (want unix:PATH_9000 or vsock:9000)"))
	}
	for _, a := range c.Listen {
		if !strings.HasPrefix(a, "unix:") && !strings.HasPrefix(a, "vsock:") {
			errs = append(errs, fmt.Errorf("listen: %q is not an address (want unix:PATH_9000 or vsock:9000)", a))
		}
	}
	if c.Tail != "" && !strings.HasPrefix(c.Tail, "unix:") {
		errs = append(errs, fmt.Errorf("tail: %q is not a Unix socket (want unix:PATH)", c.Tail))
	}
	switch c.Instance {
	case byWANAddress, byWANMAC, byBoot:
	default:
		errs = append(errs, fmt.Errorf("instance: unknown value %q (want wan_address, wan_mac or boot)", c.Instance))
	}
	if c.BatchSize < 1 || c.BatchSize > 1<<16 {
		errs = append(errs, fmt.Errorf("batch_size: %d is out of range (want 1 to 65536)", c.BatchSize))
	}
	if c.BatchTimeout <= 0 || c.BatchTimeout > time.Minute {
		errs = append(errs, fmt.Errorf("batch_timeout: %v is out of range (want up to 1m)", c.BatchTimeout))
	}
	if c.QueueSize < c.BatchSize || c.QueueSize > 1<<20 {
		errs = append(errs, fmt.Errorf("queue_size: %d is out of range (want batch_size to 1048576)", c.QueueSize))
	}
	if c.QueueMiB < 4 || c.QueueMiB > 1<<14 {
		errs = append(errs, fmt.Errorf("queue_mib: %d is out of range (want 4 to 16384)", c.QueueMiB))
	}
	if c.MaxSeries < 1000 || c.MaxSeries > 1<<24 {
		errs = append(errs, fmt.Errorf("max_series: %d is out of range (want 1000 to 16777216)", c.MaxSeries))
	}
	web, err := c.web()
	if err != nil {
		errs = append(errs, fmt.Errorf("page_config: %w", err))
	} else if c.Page != "" {
		if err := dashboard.CheckPageFor(c.Page, web, false); err != nil {
			errs = append(errs, fmt.Errorf("page: %w (page_config names it)", err))
		}
	}
	if err := (&policyview.Finder{Files: c.Policies}).Check(); err != nil {
		errs = append(errs, fmt.Errorf("policies: %w", err))
	}
	return errors.Join(errs...)
}

// web reads the page's web configuration; nil: none.
func (c *Config) web() (*dashboard.Web, error) {
	if c.PageConfig == "" {
		return nil, nil
	}
	return pageweb.Load(c.PageConfig)
}
