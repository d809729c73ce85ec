// Command thurward-collector is an OpenTelemetry Collector with the receiver
// for thurward's firewalls. Without arguments it runs with a configuration of
// its own: default.yaml.
package main

import (
	_ "embed"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/confmap"
	"go.opentelemetry.io/collector/confmap/provider/envprovider"
	"go.opentelemetry.io/collector/confmap/provider/fileprovider"
	"go.opentelemetry.io/collector/confmap/provider/yamlprovider"
	"go.opentelemetry.io/collector/otelcol"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/thurward/thurward/internal/host/ingest"
)

// version is set by the linker.
var version = "dev"

//go:embed default.yaml
var defaultConfig string

//go:embed forward.yaml
var forwardConfig string

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "thurward-collector: %v\n", err)
		os.Exit(1)
	}
}

func run(args []string) error { return runWith(settings(), args) }

func runWith(set otelcol.CollectorSettings, args []string) error {
	if err := setDefaults(); err != nil {
		return err
	}
	if len(args) == 1 && args[0] == "print-default-config" {
		fmt.Print(defaultConfig)
		return nil
	}
	cmd := otelcol.NewCommand(set)
	cmd.Use = "thurward-collector"
	cmd.Long = `thurward-collector receives the streams of thurward firewalls and forwards logs,
metrics and traces by OpenTelemetry. It is an OpenTelemetry Collector; --config
names another configuration.

Without arguments it listens for firewalls (` + os.Getenv("THURWARD_SOCKET") + `_9000),
serves Prometheus metrics on 127.0.0.1:9464 and a web page on 127.0.0.1:9465, and
keeps the last events and spans in ` + os.Getenv("THURWARD_STATE") + `.
Prometheus needs the token in ` + os.Getenv("THURWARD_SOCKET") + `_token; the page's
URL in the log has a token, too.
With THURWARD_OTLP_ENDPOINT=https://host:4318 it also sends everything there,
with queues on disk. print-default-config prints that configuration.`
	if len(args) == 0 {
		args = defaultArgs()
	}
	cmd.SetArgs(args)
	cmd.SilenceUsage = true
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(heapGoal)
	}
	return errors.Join(cmd.Execute(), failed.error())
}

// heapGoal is the soft memory limit of the garbage collector, below that at which the
// memory limiter of the default configuration refuses data.
const heapGoal = 250 << 20

// A failure is the error of a component that has ended the collector. The collector
// itself ends without an error then.
type failure struct {
	mu  sync.Mutex
	err error
}

var failed failure

func (f *failure) error() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}

// asyncError is the collector's log message about it.
const asyncError = "Asynchronous error received, terminating process"

// notice records such an error.
func (f *failure) notice(e zapcore.Entry) error {
	if e.Message == asyncError {
		f.mu.Lock()
		f.err = errors.New("a component failed: the log says which")
		f.mu.Unlock()
	}
	return nil
}

// defaultArgs are the arguments if there are none.
func defaultArgs() []string {
	args := []string{"--config=yaml:" + defaultConfig}
	if os.Getenv("THURWARD_OTLP_ENDPOINT") != "" {
		args = append(args, "--config=yaml:"+forwardConfig)
	}
	return args
}

// setDefaults sets variables of default.yaml that are not set.
func setDefaults() error {
	state := "/var/lib/thurward-collector"
	if os.Getuid() != 0 {
		dir := os.Getenv("XDG_STATE_HOME")
		if dir == "" {
			home, err := os.UserHomeDir()
			if err != nil {
				return fmt.Errorf("no place for its files: %w (set THURWARD_STATE)", err)
			}
			dir = filepath.Join(home, ".local", "state")
		}
		state = filepath.Join(dir, "thurward-collector")
	}
	for name, value := range map[string]string{"THURWARD_STATE": state, "THURWARD_SOCKET": ingest.DefaultPath()} {
		if os.Getenv(name) == "" {
			if err := os.Setenv(name, value); err != nil {
				return err
			}
		}
	}
	return os.MkdirAll(os.Getenv("THURWARD_STATE"), 0o700)
}

func settings() otelcol.CollectorSettings {
	return otelcol.CollectorSettings{
		BuildInfo:      component.BuildInfo{Command: "thurward-collector", Description: "OpenTelemetry Collector for thurward firewalls", Version: version},
		Factories:      components,
		LoggingOptions: []zap.Option{zap.Hooks(failed.notice)},
		ConfigProviderSettings: otelcol.ConfigProviderSettings{ResolverSettings: confmap.ResolverSettings{
			ProviderFactories: []confmap.ProviderFactory{envprovider.NewFactory(), fileprovider.NewFactory(), yamlprovider.NewFactory()},
			DefaultScheme:     "env",
		}},
	}
}
