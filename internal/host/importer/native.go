package importer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// IsJSON reports whether a rule set of nft's is its JSON, and not its own language.
func IsJSON(src []byte) bool {
	return bytes.HasPrefix(bytes.TrimSpace(src), []byte("{"))
}

// NFTAny reads nft's JSON or its own language, which nft itself reads in a network
// namespace of its own: what the host has there is neither seen nor changed.
func NFTAny(src []byte, o Options) (*Result, error) {
	src, err := plain(src)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", o.File, err)
	}
	if IsJSON(src) {
		return NFT(src, o)
	}
	if len(src) > MaxBytes {
		return nil, fmt.Errorf("%s: %d bytes; at most %d are read", o.File, len(src), MaxBytes)
	}
	out, err := native(src, o.File)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", o.File, err)
	}
	doc, listing, _ := bytes.Cut(out, []byte("\n"+listingMark+"\n"))
	p := newNFTParser()
	p.authors = authors(string(listing), string(src))
	return p.read(doc, o)
}

const (
	listingMark = "#thurward-listing"
	nativeTime  = 30 * time.Second
)

// script loads a rule set in a namespace, with interfaces that it names, and
// prints it in both forms.
const script = `for i in $3; do ip link add "$i" type dummy || ip link add "$i" type bridge; done 2>/dev/null
nft -f "$1" && nft -j list ruleset && printf '\n%s\n' "$2" && nft -a list ruleset`

// native has nft read a rule set.
func native(src []byte, file string) ([]byte, error) {
	for _, p := range []string{"nft", "unshare"} {
		if _, err := exec.LookPath(p); err != nil {
			return nil, fmt.Errorf("it is not JSON, and nft's own language is read by nft itself, in a network namespace: %s is not on the PATH; "+
				"install nftables and util-linux, or give what nft -j list ruleset prints on the router", p)
		}
	}
	dir, err := os.MkdirTemp("", "thurward-import-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	f := filepath.Join(dir, "rules.nft")
	if err := os.WriteFile(f, src, 0o600); err != nil {
		return nil, err
	}
	args := []string{"-n"}
	if os.Geteuid() != 0 {
		args = []string{"-r", "-n"}
	}
	ctx, cancel := context.WithTimeout(context.Background(), nativeTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, "unshare", append(args, "sh", "-c", script, "sh", f, listingMark, strings.Join(devices(string(src)), " "))...)
	if cmd.Dir = "."; file != "-" {
		cmd.Dir = filepath.Dir(file) // for include
	}
	cmd.WaitDelay = time.Second
	var out, errs limitedBuffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err = cmd.Run()
	switch {
	case ctx.Err() != nil:
		return nil, fmt.Errorf("nft did not read it within %v", nativeTime)
	case err != nil:
		text := strings.TrimSpace(strings.ReplaceAll(errs.String(), f, "line"))
		if strings.Contains(text, "unshare:") {
			text += " (a network namespace of its own is needed: run it as root, or give what nft -j list ruleset prints)"
		}
		return nil, fmt.Errorf("nft does not read it: %s", shortenTo(text, 600))
	case out.full:
		return nil, errors.New("what nft prints of it is too large")
	}
	return out.Bytes(), nil
}

// limitedBuffer keeps so much output as is read of a rule set.
type limitedBuffer struct {
	bytes.Buffer
	full bool
}

func (b *limitedBuffer) Write(p []byte) (int, error) {
	if b.Len()+len(p) > 2*MaxBytes {
		b.full = true
		return len(p), nil
	}
	return b.Buffer.Write(p)
}

var (
	deviceWords = regexp.MustCompile(`\b(?:iif\b|oif\b|devices\s*=|device\b|define\s+[\w-]+\s*=)\s*(?:!=\s*)?(\{[^}]*\}|"[^"]*"|[\w.@:-]+)`)
	deviceName  = regexp.MustCompile(`^[A-Za-z][\w.-]{0,14}$`)
	words32     = regexp.MustCompile(`[\w.@-]+`)
)

// devices returns what may be names of interfaces that a rule set needs to exist,
// as iif does.
func devices(src string) (names []string) {
	for _, m := range deviceWords.FindAllStringSubmatch(src, 1000) {
		for _, w := range words32.FindAllString(m[1], 64) {
			if deviceName.MatchString(w) && w != "lo" && !slices.Contains(names, w) && len(names) < 64 {
				names = append(names, w)
			}
		}
	}
	return names
}

var (
	listedTable = regexp.MustCompile(`^table (\S+) (\S+) \{`)
	listedRule  = regexp.MustCompile(`^\t\t(.*) # handle (\d+)$`)
	ruleComment = regexp.MustCompile(`comment "([^"]+)"`)
)

// authors finds the rules of a listing, by table and handle, in the file of their
// author: by their words, or by their comment.
func authors(listing, src string) map[string]written {
	lines := strings.Split(src, "\n")
	plain := func(s string) string {
		if i := strings.Index(s, "#"); i >= 0 {
			s = s[:i]
		}
		return strings.Join(strings.FieldsFunc(s, func(r rune) bool { return strings.ContainsRune(" \t;\"{},", r) }), " ")
	}
	at := map[string]int{} // number of the one line with these words, -1: several
	for i, l := range lines {
		p := plain(l)
		if _, again := at[p]; again {
			at[p] = -1
		} else {
			at[p] = i + 1
		}
	}
	out := map[string]written{}
	table := ""
	for _, l := range strings.Split(listing, "\n") {
		if m := listedTable.FindStringSubmatch(l); m != nil {
			table = m[1] + " " + m[2]
			continue
		}
		m := listedRule.FindStringSubmatch(l)
		if m == nil {
			continue
		}
		w := written{text: strings.TrimSpace(m[1])}
		n := at[plain(w.text)]
		if c := ruleComment.FindStringSubmatch(w.text); n <= 0 && c != nil {
			n = 0
			for i, a := range lines {
				if strings.Contains(a, `"`+c[1]+`"`) {
					if n != 0 {
						n = -1
						break
					}
					n = i + 1
				}
			}
		}
		if n > 0 {
			w.line, w.text = n, strings.TrimSpace(lines[n-1])
		}
		out[table+" "+m[2]] = w
	}
	return out
}
