// Package clients runs the programs that people use with S3, unpatched,
// against an endpoint, and checks what they do: rclone, s3cmd and the AWS
// command line. It serves the tests of the gateway and of whole clusters.
//
//	clients.Run(t, clients.Target{URL: "http://127.0.0.1:7070", AccessKey: k, Secret: s})
//
// A program that is not installed is skipped by name; where that must not
// happen, skips are made failures.
package clients

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Target is an S3 endpoint and the keys for it.
type Target struct {
	// URL is the endpoint, "http://host:port".
	URL               string
	AccessKey, Secret string
	// Region is by default us-east-1.
	Region string
}

func (g Target) region() string {
	if g.Region == "" {
		return "us-east-1"
	}
	return g.Region
}

// Run runs all programs against the target, each in buckets of its own.
func Run(t *testing.T, g Target) {
	t.Run("rclone", func(t *testing.T) { Rclone(t, g) })
	t.Run("s3cmd", func(t *testing.T) { S3cmd(t, g) })
	t.Run("aws", func(t *testing.T) { AWS(t, g) })
}

// program is an installed program with its environment.
type program struct {
	path string
	args []string // before those of each call
	env  []string
}

// find looks for a program in PATH and in the .tools/bin of the repository
// that the test runs in.
func find(t *testing.T, name string) string {
	t.Helper()
	if p, err := exec.LookPath(name); err == nil {
		return p
	}
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for ; ; dir = filepath.Dir(dir) {
		if p, err := exec.LookPath(filepath.Join(dir, ".tools", "bin", name)); err == nil {
			return p
		}
		if dir == filepath.Dir(dir) {
			t.Skip(name + " not installed")
		}
	}
}

// try runs the program and returns what it wrote to its standard output.
func (p program) try(t *testing.T, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), p.path, slices.Concat(p.args, args)...)
	cmd.Env = append([]string{"PATH=" + filepath.Dir(p.path) + ":/usr/local/bin:/usr/bin:/bin", "HOME=" + t.TempDir(), "LC_ALL=C.UTF-8"}, p.env...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if err != nil {
		err = errors.Join(err, errors.New(errs.String()))
	}
	return out.String(), err
}

// run is try for calls that must succeed.
func (p program) run(t *testing.T, args ...string) string {
	t.Helper()
	out, err := p.try(t, args...)
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", filepath.Base(p.path), args, err, out)
	}
	return out
}

// fails is try for calls that must not succeed; the error must speak of want.
func (p program) fails(t *testing.T, want string, args ...string) {
	t.Helper()
	out, err := p.try(t, args...)
	if err == nil || !strings.Contains(err.Error()+out, want) {
		t.Errorf("%s %q: got %v, want an error with %q\n%s", filepath.Base(p.path), args, err, want, out)
	}
}

// tree is a folder's files by their path.
type tree map[string][]byte

// files are what the programs move: odd names, nothing, and enough for an
// upload in parts.
func files(large int) tree {
	return tree{
		"plain.txt":           []byte("plain"),
		"empty":               nil,
		"dir/a b":             []byte("space"),
		"dir/a+b%20c":         []byte("plus and percent"),
		"dir/sub/ä-日本語-🐟":     []byte("not ASCII"),
		"dir/sub/q?a=b&c#d;e": []byte("reserved"),
		"dir/it's (1) [x]~!":  []byte("more of them"),
		"dir/<&>\"":           []byte("XML"),
		"large.bin":           random(large),
	}
}

// write puts the files into a new folder.
func (f tree) write(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, data := range f {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// want compares a folder with the files.
func (f tree) want(t *testing.T, what, dir string) {
	t.Helper()
	got := tree{}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		got[filepath.ToSlash(rel)], err = os.ReadFile(path)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if g, w := slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(f)); !slices.Equal(g, w) {
		t.Errorf("%s: got files %q, want %q", what, g, w)
	}
	for name, data := range f {
		if d, ok := got[name]; ok && !bytes.Equal(d, data) {
			t.Errorf("%s: %s has %d bytes, want other %d", what, name, len(d), len(data))
		}
	}
}

// names are the files' paths in order.
func (f tree) names() []string { return slices.Sorted(maps.Keys(f)) }

// lines splits an output into lines in order.
func lines(out string) []string {
	return sorted(strings.Split(strings.TrimRight(out, "\n"), "\n"))
}

// sorted sorts a list in place.
func sorted(l []string) []string {
	slices.Sort(l)
	return l
}

func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b)
	return b
}

// newName is the name of a bucket that nobody else has.
func newName(prefix string) string { return prefix + "-" + hex.EncodeToString(random(6)) }

func equalLines(t *testing.T, what string, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: got %q, want %q", what, got, want)
	}
}
