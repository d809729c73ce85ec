package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// completions are words to complete, the last of them, and what must and must not be among
// what a shell offers.
var completions = []struct {
	words      []string
	want, lack string
}{
	{[]string{"chec"}, "check", "diff"},
	{[]string{"explain", "--format", "mark"}, "markdown", "json"},
	{[]string{"events", "--reason", "no_mat"}, "no_matching_allow_rule", "martian"},
	{[]string{"run", "--accel", "t"}, "tcg", "kvm"},
	{[]string{"check", "-f", "po"}, "policy.yaml", "poem.txt"},
	{[]string{"test", "po"}, "policy.yaml", "poem.txt"},
}

// inCompletionFolder changes to a folder with files to complete, and writes a shell's script there.
func inCompletionFolder(t *testing.T, shell string) (script string) {
	t.Helper()
	if _, err := exec.LookPath(shell); err != nil {
		t.Skip(err)
	}
	t.Setenv("PATH", asProgram(t))
	t.Chdir(t.TempDir())
	t.Setenv("HOME", mustGetwd(t))
	code, text, errs := capture(t, "completion", shell)
	if code != 0 || errs != "" {
		t.Fatalf("exit %d: %s", code, errs)
	}
	for name, content := range map[string]string{"policy.yaml": "", "poem.txt": "", "completion": text} {
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(mustGetwd(t), "completion")
}

// offers fails unless a shell offers what it should.
func offers(t *testing.T, words []string, offered []string, want, lack string) {
	t.Helper()
	if !slices.Contains(offered, want) || slices.Contains(offered, lack) {
		t.Errorf("%q: offered %q, want %q and not %q", words, offered, want, lack)
	}
}

// TestCompletionBash loads the script in bash, and has it complete.
func TestCompletionBash(t *testing.T) {
	const library = "/usr/share/bash-completion/bash_completion"
	if _, err := os.Stat(library); err != nil {
		t.Skip(err)
	}
	script := inCompletionFolder(t, "bash")
	for _, c := range completions {
		cmd := exec.Command("bash", "--norc", "-c", `. `+library+`; . "$1"; shift
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMP_LINE="$*" COMP_POINT=${#COMP_LINE} COMP_TYPE=9
complete -p thurward >/dev/null && __start_thurward && printf '%s\n' "${COMPREPLY[@]}"`, "bash", script, "thurward")
		cmd.Args = append(cmd.Args, c.words...)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("%q: %v\n%s", c.words, err, out)
		}
		var offered []string
		for _, l := range strings.Split(string(out), "\n") {
			offered = append(offered, strings.TrimSpace(l))
		}
		offers(t, c.words, offered, c.want, c.lack)
	}
}

// TestCompletionFish loads the script in fish, and has it complete.
func TestCompletionFish(t *testing.T) {
	script := inCompletionFolder(t, "fish")
	for _, c := range completions {
		line := "thurward " + strings.Join(c.words, " ")
		out, err := exec.Command("fish", "--no-config", "-c", `source $argv[1]; complete -C $argv[2]`, script, line).CombinedOutput()
		if err != nil {
			t.Errorf("%q: %v\n%s", c.words, err, out)
		}
		var offered []string
		for _, l := range strings.Split(string(out), "\n") {
			word, _, _ := strings.Cut(l, "\t")
			offered = append(offered, word)
		}
		lack := c.lack
		if strings.HasSuffix(lack, ".txt") {
			lack = "-" // cobra's script for fish offers all files
		}
		offers(t, c.words, offered, c.want, lack)
	}
}

// TestCompletionZsh loads the script in zsh, types at its prompt, and presses the tabulator.
func TestCompletionZsh(t *testing.T) {
	script := inCompletionFolder(t, "zsh")
	for _, c := range completions {
		keyboard, terminal := pty(t)
		cmd := exec.Command("zsh", "-f", "-i")
		cmd.Stdin, cmd.Stdout, cmd.Stderr = terminal, terminal, terminal
		cmd.Env = append(os.Environ(), "TERM=dumb", "LC_ALL=C")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		terminal.Close()
		screen := make(chan string, 1000)
		go func() {
			defer close(screen)
			b := make([]byte, 1<<12)
			for {
				n, err := keyboard.Read(b)
				if err != nil {
					return
				}
				screen <- string(b[:n])
			}
		}()
		seen := ""
		shows := func(what string) bool {
			timeout := time.After(2 * time.Minute)
			for !strings.Contains(seen, what) {
				select {
				case s, open := <-screen:
					if !open {
						return false
					}
					seen += s
				case <-timeout:
					return false
				}
			}
			return true
		}
		typed := func(keys string) {
			if _, err := keyboard.WriteString(keys); err != nil {
				t.Error(err)
			}
		}
		typed("autoload -Uz compinit; compinit -u -D; . '" + script + "'; echo lo''aded\n")
		if !shows("loaded") {
			t.Errorf("not loaded: %q", seen)
		}
		seen = ""
		typed("thurward " + strings.Join(c.words, " ") + "\t")
		if !shows(c.want) || strings.Contains(seen, c.lack) {
			t.Errorf("%q: %q, want %q", c.words, seen, c.want)
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Error(err)
		}
		cmd.Wait() //nolint:errcheck // it was killed
		keyboard.Close()
	}
}

// TestValuesAreCompleted: what a flag's help lists as its values is what shells are offered.
func TestValuesAreCompleted(t *testing.T) {
	var visit func(cmd *cobra.Command)
	listed := 0
	visit = func(cmd *cobra.Command) {
		cmd.Flags().VisitAll(func(f *pflag.Flag) {
			words := valuesOf(f.Usage)
			if len(words) == 0 || f.Hidden {
				return
			}
			listed++
			complete, ok := cmd.GetFlagCompletionFunc(f.Name)
			if !ok {
				t.Errorf("%s --%s (%s): values are not completed", cmd.CommandPath(), f.Name, f.Usage)
				return
			}
			offered, _ := complete(cmd, nil, "")
			for _, w := range words {
				if !slices.Contains(offered, w) {
					t.Errorf("%s --%s: %q is not offered, only %q", cmd.CommandPath(), f.Name, w, offered)
				}
			}
		})
		for _, c := range cmd.Commands() {
			visit(c)
		}
	}
	visit(newRootCmd())
	if listed < 7 {
		t.Errorf("%d flags list their values", listed)
	}
}

// valuesOf returns the values that a flag's help lists, as "text, json or sarif".
func valuesOf(usage string) (words []string) {
	if i := strings.LastIndex(usage, ": "); i >= 0 && !strings.Contains(usage[i:], "(") {
		usage = usage[i+2:]
	}
	usage, _, _ = strings.Cut(usage, ";")
	head, last, ok := strings.Cut(usage, " or ")
	if !ok || strings.Contains(last, " ") {
		return nil
	}
	for _, w := range append(strings.Split(head, ", "), last) {
		if w == "" || strings.ContainsAny(w, " :/.") || w != strings.ToLower(w) {
			return nil
		}
		words = append(words, w)
	}
	return words
}
