package kernelbuild

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// kept are the variables that the go command keeps: where it finds modules, its caches
// and itself, and how it reaches the network. None of them changes what is compiled: a
// module's content is checked against go.sum.
var kept = []string{
	"PATH", "HOME", "TMPDIR", "XDG_CACHE_HOME", "SYSTEMROOT",
	"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy",
	"SSL_CERT_FILE", "SSL_CERT_DIR",
}

// keptGo are the same among the go command's own. They may also stand in the file that
// go env -w writes, which is not read while an image is made: it can set everything else.
var keptGo = []string{
	"GOPROXY", "GOSUMDB", "GONOSUMDB", "GOPRIVATE", "GONOPROXY", "GOINSECURE", "GOVCS", "GOAUTH", "GOMODCACHE", "GOCACHE",
}

// fixed decide what is compiled. GOAMD64=v1 is every 64-bit processor.
var fixed = []string{
	"CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64", "GOAMD64=v1",
	"GOENV=off", "GOFLAGS=", "GOEXPERIMENT=", "GOFIPS140=off", "GOWORK=off", "GOTOOLCHAIN=local", "GODEBUG=",
}

// Environ returns the environment in which the parts of the image are compiled, as
// "NAME=value": it has nothing of the caller's that could change them, be it set in the
// environment or by go env -w.
func Environ() ([]string, error) {
	cmd := exec.Command("go", append([]string{"env", "-json"}, keptGo...)...)
	cmd.Env = append(os.Environ(), "GOFLAGS=") // go refuses to work with some values
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go env: %w", err)
	}
	var set map[string]string
	if err := json.Unmarshal(out, &set); err != nil {
		return nil, fmt.Errorf("go env: %w", err)
	}
	var env []string
	for _, name := range kept {
		if v, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+v)
		}
	}
	for _, name := range keptGo {
		if set[name] != "" {
			env = append(env, name+"="+set[name])
		}
	}
	return append(env, fixed...), nil
}

// CheckToolchain returns an error if a version of Go is not the one that go.mod, a file's
// content, pins.
func CheckToolchain(gomod []byte, have string) error {
	m := regexp.MustCompile(`(?m)^go ([0-9.]+)$`).FindSubmatch(gomod)
	if m == nil {
		return fmt.Errorf("go.mod has no line with Go's version")
	}
	want := "go" + string(m[1])
	if have != want {
		return fmt.Errorf("go is %s, and go.mod pins %s: another compiler makes another image (take GOTOOLCHAIN=%s, or install it from https://go.dev/dl)",
			have, want, want)
	}
	return nil
}

// build runs go build in the checkout that the current folder is in.
func build(env []string, args ...string) error {
	cmd := exec.Command("go", append([]string{"build", "-trimpath", "-buildvcs=false"}, args...)...)
	cmd.Env = env
	if b, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go %s: %w\n%s", strings.Join(cmd.Args[1:], " "), err, b)
	}
	return nil
}

// root returns the checkout's folder.
func root() (string, error) {
	cmd := exec.Command("go", "env", "GOMOD")
	cmd.Env = append(slices.Clone(os.Environ()), "GOFLAGS=", "GOWORK=off")
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("go env: %w", err)
	}
	return filepath.Dir(string(bytes.TrimSpace(out))), nil
}
