package plugins

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/shoalstore/shoal/core"
)

func TestBackends(t *testing.T) {
	listed := map[core.Provider]bool{}
	for _, b := range Backends() {
		if listed[b.Provider] || b.Name == "" {
			t.Errorf("%s: twice, or without a name", b.Provider)
		}
		listed[b.Provider] = true
		k, err := Open(t.Context(), b.Provider, Settings{
			RemoteSettings: core.RemoteSettings{Anonymous: true, Region: "us-east-1"}, Roots: map[string]string{"r": t.TempDir()},
		})
		if err != nil {
			t.Errorf("%s: %v", b.Provider, err)
			continue
		}
		if c, ok := k.(interface{ Close() error }); ok {
			if err := c.Close(); err != nil {
				t.Errorf("%s: close: %v", b.Provider, err)
			}
		}
	}
	for _, p := range core.Providers() {
		if listed[p] != (p != core.Shoal) {
			t.Errorf("%s is listed: %v", p, listed[p])
		}
	}
	if k, err := Open(t.Context(), "ftp", Settings{}); !errors.Is(err, errors.ErrUnsupported) || k != nil {
		t.Errorf("ftp: %v, %v", k, err)
	}
	if k, err := Open(t.Context(), core.GCS, Settings{RemoteSettings: core.RemoteSettings{Endpoint: "junk"}}); err == nil || k != nil {
		t.Errorf("a bad endpoint: %v, %v", k, err)
	}
}

func TestFor(t *testing.T) {
	account := Settings{
		RemoteSettings: core.RemoteSettings{Endpoint: "https://a", Region: "r", Profile: "p", Conditions: true},
		AccessKey:      "k", SecretKey: "s", CredentialsFile: "f", Project: "x",
		UploadConditions: true,
	}
	same := account.For(core.GCS, core.RemoteSettings{Account: "n", Region: "q", Name: "b", PathStyle: true})
	want := core.RemoteSettings{Account: "n", Endpoint: "https://a", Region: "q", Profile: "p", Name: "b", PathStyle: true, Conditions: true}
	if same.RemoteSettings != want || same.CredentialsFile != "f" || !same.UploadConditions || same.AccessKey != "k" || same.guard() != nil {
		t.Errorf("got %+v", same)
	}
	// A token that was made for Google is not for whom a user names.
	if other := account.For(core.GCS, core.RemoteSettings{Endpoint: "https://b"}); other.CredentialsFile != "" || other.UploadConditions || !other.Anonymous || other.Endpoint != "https://b" {
		t.Errorf("credentials for another endpoint: %+v", other)
	}
	if other := account.For(core.S3, core.RemoteSettings{Endpoint: "https://b"}); other.AccessKey != "k" || other.Anonymous {
		t.Errorf("S3's requests are only signed: %+v", other)
	}
	if own := account.For(core.GCS, core.RemoteSettings{Endpoint: "https://a"}); own.CredentialsFile != "f" || own.guard() != nil {
		t.Errorf("the account's own endpoint: %+v", own)
	}
}

// An endpoint that a bucket names is not asked where a cloud keeps credentials.
func TestGuard(t *testing.T) {
	for _, p := range []core.Provider{core.S3, core.GCS} {
		s := Settings{RemoteSettings: core.RemoteSettings{Region: "us-east-1", Anonymous: true}}
		k, err := Open(t.Context(), p, s.For(p, core.RemoteSettings{Endpoint: "http://169.254.169.254", PathStyle: true}))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := k.Head(t.Context(), "latest", "meta-data"); err == nil || !strings.Contains(err.Error(), "link-local") {
			t.Errorf("%s: got %v", p, err)
		}
	}
}

// TestOutOfTree builds the backend of docs/plugins.md as a module of its own, and
// runs the suite on it.
func TestOutOfTree(t *testing.T) {
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile(filepath.Join(root, "docs", "plugins.md"))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	files := regexp.MustCompile("(?s)`([a-z_]+\\.(?:go|mod))`[^\n]*:\n\n```[a-z]*\n(.*?)```\n").FindAllStringSubmatch(string(page), -1)
	if len(files) != 3 {
		t.Fatalf("%d files in docs/plugins.md, want 3", len(files))
	}
	for _, f := range files {
		text := strings.Replace(f[2], "=> ../shoal", "=> "+root, 1)
		if err := os.WriteFile(filepath.Join(dir, f[1]), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, args := range [][]string{{"vet", "./..."}, {"test", "-count=1", "-v", "-run", "TestBackend", "./..."}} {
		cmd := exec.CommandContext(t.Context(), "go", args...)
		// What it needs is in the module cache, or the test would not be built.
		cmd.Dir, cmd.Env = dir, append(os.Environ(), "GOPROXY=off", "GOFLAGS=-mod=mod", "GOWORK=off", "GOSUMDB=off")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, out)
		}
		if args[0] == "test" && (!strings.Contains(string(out), "--- PASS: TestBackend/Ranges") || !strings.Contains(string(out), "--- PASS: TestBackend/Versions")) {
			t.Errorf("the suite did not run:\n%s", out)
		}
	}
}
