package wasmetl_test

import (
	"archive/tar"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/wasmetl"
)

// goGuest builds an example in Go.
func goGuest(t testing.TB, name string) []byte {
	t.Helper()
	out := filepath.Join(t.TempDir(), name+".wasm")
	args := []string{"build", "-o", out}
	if !strings.HasSuffix(name, "wasi") {
		args = append(args, "-buildmode=c-shared")
	}
	cmd := exec.CommandContext(t.Context(), "go", append(args, "./guest/go/examples/"+name)...)
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0", "GOFLAGS=")
	if msg, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", name, err, msg)
	}
	return readFile(t, out)
}

// cGuest is an example in C, as guest/c/build.sh made it.
func cGuest(t testing.TB, name string) []byte {
	t.Helper()
	return readFile(t, filepath.Join("testdata", "c", name+".wasm"))
}

func readFile(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func args(kv ...string) func(*core.TransformCall) {
	return func(c *core.TransformCall) {
		c.Args = map[string]string{}
		for i := 0; i < len(kv); i += 2 {
			c.Args[kv[i]] = kv[i+1]
		}
	}
}

func archive(t *testing.T, files ...string) string {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for i := 0; i < len(files); i += 2 {
		h := &tar.Header{Name: files[i], Mode: 0o600, Size: int64(len(files[i+1])), Format: tar.FormatUSTAR}
		if strings.HasSuffix(files[i], "/") {
			h.Typeflag, h.Size = tar.TypeDir, 0
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if h.Size > 0 {
			if _, err := w.Write([]byte(files[i+1])); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// text is the outcome with all outputs.
func text(r core.TransformResult, s *sink) string {
	var b strings.Builder
	fmt.Fprint(&b, r.Outcome)
	if r.Failure != nil {
		fmt.Fprintf(&b, " %s %d %q", r.Failure.Class, r.Failure.Code, r.Failure.Message)
	}
	for _, o := range s.outputs {
		if o.aborted != nil {
			continue
		}
		fmt.Fprintf(&b, " [%s]%q", o.info.Name, o.b.String())
		if len(o.info.Meta) > 0 {
			fmt.Fprint(&b, o.info.Meta)
		}
	}
	return b.String()
}

func TestGuests(t *testing.T) {
	h := newHost(t, wasmetl.Options{})
	lines := `{"id":1,"lang":"en","text":"a \"word\""}` + "\n" + `{"id":2,"lang":"de"}` + "\n\n" + `{"id":3,"lang":"en"}`
	files := archive(t, "a.txt", "first", "sub/", "", "sub/b.txt", strings.Repeat("b", 1000), "../c", "away")
	long := strings.Repeat("b", 1000)
	type object struct {
		data   string
		change []func(*core.TransformCall)
		want   string
	}
	plain := func(data, want string, change ...func(*core.TransformCall)) object {
		return object{data, change, want}
	}
	for _, tt := range []struct {
		name    string
		wasm    func(testing.TB, string) []byte
		guest   string
		objects []object
	}{
		{"go-identity", goGuest, "identity", []object{
			plain("", `done []""`), plain("bytes", `done []"bytes"`), plain(long, fmt.Sprintf("done []%q", long)),
		}},
		{"go-upper", goGuest, "upper", []object{
			plain("grüße", `done []"GRÜSSE"map[case:upper]`), plain("a", `done []"A!"map[case:upper]`, args("suffix", "!")),
		}},
		{"go-jsonlines", goGuest, "jsonlines", []object{
			plain(lines, `done []"{\"text\":\"a \\\"word\\\"\",\"id\":1}\n{\"id\":3}\n"`, args("where", "lang=en", "keep", "text,id")),
			plain(lines, `dropped`, args("where", "lang=fr")),
			plain("{}\nno JSON", `failed error 1 "line 2: invalid character 'o' in literal null (expecting 'u')"`),
		}},
		{"go-explode", goGuest, "explode", []object{
			plain(files, fmt.Sprintf(`done [x/a.txt]"first" [x/sub/b.txt]%q [x/c]"away"`, long), args("prefix", "x/")),
			plain("", "dropped"),
			plain(files[:514], `failed error 1 "a.txt: unexpected EOF"`),
		}},
		{"go-wasi", goGuest, "upperwasi", []object{
			plain("hello", `done []"HELLO A=B SAY=WORD"`, args("a", "b")), plain("", "dropped"),
		}},
		{"c-identity", cGuest, "identity", []object{plain("", `done []""`), plain("bytes", `done []"bytes"`)}},
		{"c-upper", cGuest, "upper", []object{plain("az{`AZ@[é"+long, fmt.Sprintf("done []%q", "AZ{`AZ@[é"+strings.ToUpper(long)))}},
		{"c-grep", cGuest, "grep", []object{
			plain("a word\nnone\nand the word", `done []"a word\nand the word"`, args("word", "word")),
			plain("none\n", "dropped", args("word", "word")),
			plain("none\n", `failed error 1 "say --arg word=..."`),
		}},
		{"c-explode", cGuest, "explode", []object{
			plain(archive(t, "a", "1", "b", "", "c/d", long), fmt.Sprintf(`done [a]"1" [b]"" [c/d]%q`, long)),
			plain(files[:514], `failed error 1 "the archive is cut off"`),
			plain(strings.Repeat("no tar", 100), `failed error 1 "not a tar archive of the ustar form"`),
		}},
		{"c-wasi", cGuest, "upperwasi", []object{plain("hello", `done []"HELLO"`), plain("", `done []""`)}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			spec := wasmetl.Spec{Name: tt.name}
			if tt.name == "go-wasi" {
				spec.Args = map[string]string{"say": "word"}
			}
			wasm := tt.wasm(t, tt.guest)
			began := time.Now()
			ref := install(t, h, spec, wasm)
			t.Logf("%d KiB installed in %v", len(wasm)>>10, time.Since(began))
			for range 2 {
				for _, o := range tt.objects {
					r, s := run(t, h, ref, o.data, o.change...)
					got := text(r, s)
					if o.want = strings.ReplaceAll(o.want, "GRÜSSE", "GRÜßE"); got != o.want {
						t.Errorf("%.20q: got\n%s, want\n%s\nlog %s", o.data, got, o.want, r.Log)
					}
				}
			}
		})
	}
	for _, l := range h.List() {
		t.Logf("%s: reused %d of %d, CPU p50 %v p99 %v, memory %d KiB", l.Ref.Name, l.Stats.Reused, l.Stats.Calls, l.Stats.CPUP50, l.Stats.CPUP99, l.Stats.PeakMemory>>10)
	}
}
