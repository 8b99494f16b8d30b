package main

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"testing"
)

func compiled(t *testing.T, pattern string) *regexp.Regexp {
	t.Helper()
	re, err := regexp.Compile(`^(?:` + pattern + `)$`)
	if err != nil {
		t.Fatal(err)
	}
	return re
}

func TestSkipReason(t *testing.T) {
	cases := []struct {
		name   string
		output []string
		want   string
	}{
		{"plain", []string{"=== RUN   A\n", "    a_test.go:3: no rclone\n", "--- SKIP: A (0.00s)\n"}, "no rclone"},
		{"subtest", []string{"        a_test.go:3: no rclone\n", "    --- SKIP: A/b (0.00s)\n"}, "no rclone"},
		{"the last entry counts", []string{"    a_test.go:3: looking\n", "    a_test.go:4: not found: x\n"}, "not found: x"},
		{"several lines", []string{"    a_test.go:3: first\n", "        second\n"}, "first second"},
		{"none", []string{"=== RUN   A\n", "--- SKIP: A (0.00s)\n"}, "no reason given"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if got := skipReason(c.output); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestReadList(t *testing.T) {
	path := filepath.Join(t.TempDir(), "list")
	write(t, path, "# all of it\n\n./core/sim/...  # hours under the race detector\n ./a#b\n\t# indented\n./last")
	got, err := readList(path)
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"./core/sim/...", "./a#b", "./last"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestReadAllowedSkips(t *testing.T) {
	path := filepath.Join(t.TempDir(), "skips")
	write(t, path, "needs root: .*\n")
	skips, err := readAllowedSkips(path)
	if err != nil {
		t.Fatal(err)
	}
	for reason, want := range map[string]bool{
		"needs root: mount":      true,
		"it needs root: mount":   false,
		"needs root":             false,
		"no reason given":        false,
		"needs root: x\nand y\n": false,
	} {
		if got := skips.allow(reason); got != want {
			t.Errorf("allow(%q) = %t, want %t", reason, got, want)
		}
	}
	write(t, path, "needs (root\n")
	if _, err := readAllowedSkips(path); err == nil {
		t.Error("a list with a broken regular expression was read without an error")
	}
	if _, err := readAllowedSkips(filepath.Join(t.TempDir(), "absent")); err == nil {
		t.Error("a list that does not exist was read without an error")
	}
	if skips, err := readAllowedSkips(""); err != nil || len(skips) != 0 {
		t.Errorf("without a list: got %v, %v, want none", skips, err)
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
