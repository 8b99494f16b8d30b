package wasmetl_test

import (
	"cmp"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/wasmetl"
	w "github.com/shoalstore/shoal/wasmetl/internal/wasmtest"
)

// constant is a guest that writes a text.
func constant(text string) []byte {
	return shoalGuest(text, call(fnWrite, 0, int32(len(text))), w.Drop, ok).Bytes()
}

// One module may have two names; a version that is pinned works on when its name
// stands for another, or for nothing.
func TestVersions(t *testing.T) {
	h := newHost(t, wasmetl.Options{})
	one := install(t, h, wasmetl.Spec{Name: "a"}, constant("one"))
	install(t, h, wasmetl.Spec{Name: "b"}, constant("one"))
	pinned, release, err := h.Pin(t.Context(), core.TransformRef{Name: "a"})
	if err != nil || pinned != one {
		t.Fatalf("pinned %v, %v, want %v", pinned, err, one)
	}
	two := install(t, h, wasmetl.Spec{Name: "a"}, constant("two"))
	says := func(ref core.TransformRef, want string) {
		t.Helper()
		s := &sink{limit: 100}
		_, err := h.RunTransform(t.Context(), core.TransformCall{Transform: ref, Output: s.open})
		switch {
		case want == "" && !errors.Is(err, core.ErrNotFound):
			t.Errorf("%v: got %v, want it not found", ref, err)
		case want != "" && (err != nil || s.only(t) != want):
			t.Errorf("%v: got %v, want %q", ref, err, want)
		}
	}
	says(core.TransformRef{Name: "a"}, "two")
	says(pinned, "one")
	if err := h.Remove(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	says(core.TransformRef{Name: "a"}, "")
	says(two, "")
	says(pinned, "one")
	release()
	release()
	says(pinned, "")
	says(core.TransformRef{Name: "b"}, "one")
	if err := h.Remove(t.Context(), "a"); !errors.Is(err, core.ErrNotFound) {
		t.Errorf("removed again: %v", err)
	}
}

// Versions are installed, run, replaced and removed all at once.
func TestConcurrent(t *testing.T) {
	h := newHost(t, wasmetl.Options{Running: 2})
	install(t, h, wasmetl.Spec{Name: "x"}, constant("0"))
	var wg sync.WaitGroup
	for n := range 4 {
		wg.Go(func() {
			for k := range 20 {
				if n == 0 && k%5 == 0 {
					if _, err := h.Install(t.Context(), wasmetl.Spec{Name: "x"}, constant(string(rune('0'+k)))); err != nil {
						t.Error(err)
					}
					continue
				}
				ref, release, err := h.Pin(t.Context(), core.TransformRef{Name: "x"})
				if err != nil {
					t.Error(err)
					return
				}
				first, s1 := run(t, h, ref, "")
				second, s2 := run(t, h, ref, "", func(c *core.TransformCall) { c.Job = n%2 == 0 })
				if first.Transform != second.Transform || s1.only(t) != s2.only(t) {
					t.Errorf("%v and %v of one version", first, second)
				}
				release()
			}
		})
	}
	wg.Wait()
}

// Compiled code is bounded: what was not needed for longest goes, but for what is loaded.
func TestCacheIsBounded(t *testing.T) {
	dir := t.TempDir()
	now := &setClock{now: time.Now()}
	open := func(size int64) *wasmetl.Host {
		return newHost(t, wasmetl.Options{Dir: dir, CacheSize: size, Clock: now})
	}
	digests := map[string]string{}
	load := func(h *wasmetl.Host, text string) {
		t.Helper()
		now.now = now.now.Add(time.Hour)
		ref := install(t, h, wasmetl.Spec{Name: text}, constant(text))
		if _, s := run(t, h, ref, ""); s.only(t) != text {
			t.Errorf("got %q, want %q", s.only(t), text)
		}
		digests[strings.TrimPrefix(ref.Digest, "sha256:")] = text
	}
	remove := func(h *wasmetl.Host, name string) {
		t.Helper()
		if err := h.Remove(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	there := func() string {
		t.Helper()
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, e := range entries {
			names = append(names, cmp.Or(digests[e.Name()], e.Name()))
		}
		slices.Sort(names)
		return strings.Join(names, " ")
	}
	h := open(0)
	for _, text := range []string{"a", "b", "c"} {
		load(h, text)
	}
	if got := there(); got != "a b c" {
		t.Fatalf("%q is there, want all", got)
	}
	size := int64(0)
	err := filepath.WalkDir(dir, func(_ string, d os.DirEntry, err error) error {
		if info, ierr := d.Info(); err == nil && ierr == nil && !d.IsDir() {
			size += info.Size()
		}
		return err
	})
	if err != nil || size == 0 {
		t.Fatalf("%d bytes, %v", size, err)
	}
	if err := h.Close(t.Context()); err != nil {
		t.Fatal(err)
	}

	// Room for three of about a third each. A crash has left something, and a module
	// that did not compile.
	h = open(size + size/6)
	for _, left := range []string{".removing-x/y", "0000"} {
		if err := os.MkdirAll(filepath.Join(dir, left), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, ".removing-x", "z"), []byte("z"), 0o600); err != nil {
		t.Fatal(err)
	}
	load(h, "a") // is needed again
	if got := there(); got != "a b c" {
		t.Errorf("%q is there after a start, want what there was", got)
	}
	remove(h, "a")
	load(h, "d")
	if got := there(); got != "a c d" {
		t.Errorf("%q is there, want b gone, which was not needed for longest", got)
	}
	load(h, "c")
	load(h, "b")
	if got := there(); got != "b c d" {
		t.Errorf("%q is there, want a gone: the others are loaded", got)
	}
	load(h, "a")
	if got := there(); got != "a b c d" {
		t.Errorf("%q is there, want all that is loaded, whatever the bound", got)
	}
	remove(h, "d")
	load(h, "e")
	if got := there(); got != "a b c e" {
		t.Errorf("%q is there, want d gone", got)
	}
}

// A restarted host finds what was compiled, also if it is damaged.
func TestCacheSurvives(t *testing.T) {
	dir := t.TempDir()
	compiled := func() []string {
		var files []string
		err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
			if err == nil && !d.IsDir() {
				files = append(files, path)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return files
	}
	use := func() {
		h := newHost(t, wasmetl.Options{Dir: dir, Compile: ownChild})
		ref := install(t, h, wasmetl.Spec{Name: "x"}, constant("text"))
		if _, s := run(t, h, ref, ""); s.only(t) != "text" {
			t.Errorf("got %q", s.only(t))
		}
		if err := h.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
	use()
	files := compiled()
	if len(files) != 1 {
		t.Fatalf("%d files of compiled code, want one", len(files))
	}
	before, err := os.Stat(files[0])
	if err != nil {
		t.Fatal(err)
	}
	use()
	if after, err := os.Stat(files[0]); err != nil || !after.ModTime().Equal(before.ModTime()) || len(compiled()) != 1 {
		t.Errorf("compiled again: %v", err)
	}
	good := readFile(t, files[0])
	for _, bad := range [][]byte{nil, good[:len(good)/2], append(append([]byte{}, good[:len(good)-40]...), make([]byte, 40)...)} {
		if err := os.WriteFile(files[0], bad, 0o600); err != nil {
			t.Fatal(err)
		}
		use()
	}
}

// An instance of a pool keeps its variables; a fresh one has none. One whose
// memory has grown to more than twice its size, or that failed, is not used again.
func TestPool(t *testing.T) {
	h := newHost(t, wasmetl.Options{})
	// A counter at 0 goes up by one and is written.
	count := shoalGuest("0", i(0), i(0), w.I32Load8U(0), i(1), w.I32Add, w.I32Store8(0), call(fnWrite, 0, 1), w.Drop, ok).Bytes()
	says := func(ref core.TransformRef, want string) {
		t.Helper()
		got := ""
		for range 3 {
			_, s := run(t, h, ref, "")
			got += s.only(t)
		}
		if got != want {
			t.Errorf("%s: got %q, want %q", ref.Name, got, want)
		}
	}
	says(install(t, h, wasmetl.Spec{Name: "pooled"}, count), "123")
	says(install(t, h, wasmetl.Spec{Name: "other"}, count), "123")
	says(install(t, h, wasmetl.Spec{Name: "fresh", Fresh: true}, count), "111")
	grows := install(t, h, wasmetl.Spec{Name: "grows"}, shoalGuest("", i(1), w.MemoryGrow(), w.Drop, ok).Bytes())
	reused := ""
	for range 7 {
		r, _ := run(t, h, grows, "")
		reused += map[bool]string{true: "r", false: "n"}[r.Reused]
	}
	if reused != "nrrnrrn" { // 2 pages, then 3, 4, 5
		t.Errorf("instances were used %s", reused)
	}
}

// Idle instances give way to calls.
func TestEviction(t *testing.T) {
	h := newHost(t, wasmetl.Options{Budget: 300 << 20})
	for _, name := range []string{"a", "b", "c", "d"} {
		m := shoalGuest(name, call(fnWrite, 0, 1), w.Drop, ok)
		m.Memory.Min = 900 // of 1024 pages
		if _, s := run(t, h, install(t, h, wasmetl.Spec{Name: name}, m.Bytes()), ""); s.only(t) != name {
			t.Errorf("%s: got %q", name, s.only(t))
		}
		if u := h.Usage(); u.Memory > u.Budget || u.Idle > 2 {
			t.Errorf("usage %+v", u)
		}
	}
	if h.Usage().Idle == 0 {
		t.Error("nothing is idle")
	}
	if _, s := run(t, h, install(t, h, wasmetl.Spec{Name: "large", Memory: 128 << 20}, constant("large")), ""); s.only(t) != "large" {
		t.Errorf("large: got %q", s.only(t))
	}
	if _, err := h.Install(t.Context(), wasmetl.Spec{Name: "x", Memory: 256 << 20}, identity()); !errors.Is(err, core.ErrInvalid) {
		t.Errorf("more memory than the node has: %v", err)
	}
}

// Calls that wait at the same time, for less memory than is idle and for more, are
// all let in: whoever ends makes room for who is the next.
func TestEvictionWhileWaiting(t *testing.T) {
	h := newHost(t, wasmetl.Options{Budget: 400 << 20})
	heavy := func(name string, memory int64) core.TransformRef {
		m := shoalGuest(name, call(fnWrite, 0, 1), w.Drop, ok)
		m.Memory.Min = uint32(memory>>16) - 16
		return install(t, h, wasmetl.Spec{Name: name, Memory: memory}, m.Bytes())
	}
	var refs []core.TransformRef
	for i, mib := range []int64{64, 192, 96, 256, 64, 128, 32} {
		refs = append(refs, heavy(string(rune('a'+i)), mib<<20))
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var all sync.WaitGroup
	for range 3 {
		for _, ref := range refs {
			all.Go(func() {
				out := &sink{limit: 1 << 20}
				if _, err := h.RunTransform(ctx, core.TransformCall{Transform: ref, Data: []byte("x"), Output: out.open}); err != nil {
					t.Errorf("%s: %v", ref.Name, err)
				}
			})
		}
	}
	all.Wait()
	if u := h.Usage(); u.Waiting != 0 || u.Memory > u.Budget {
		t.Errorf("in the end: %+v", u)
	}
}

// blocking is an output that takes nothing until it is aborted.
type blocking struct{ aborted chan error }

func (b blocking) Write([]byte) (int, error) { return 0, <-b.aborted }
func (b blocking) Close() error              { return nil }
func (b blocking) Abort(err error)           { b.aborted <- err }

// What is not the transform's fault is an error, and both ends are closed.
func TestErrorsOfOthers(t *testing.T) {
	h := newHost(t, wasmetl.Options{Running: 1, Stall: 50 * time.Millisecond})
	ref := install(t, h, wasmetl.Spec{Name: "x"}, identity())
	broken := errors.New("broken")
	s := &sink{limit: 1 << 20}
	big := strings.Repeat("x", 1<<20)
	attempt := func(ctx context.Context, change func(*core.TransformCall)) (core.TransformResult, error) {
		c := core.TransformCall{Transform: ref, Data: []byte(big), Output: s.open}
		change(&c)
		return h.RunTransform(ctx, c)
	}
	if _, err := attempt(t.Context(), func(c *core.TransformCall) {
		streaming(io.NopCloser(io.MultiReader(strings.NewReader(big), failing{broken})))(c)
	}); !errors.Is(err, broken) {
		t.Errorf("source: got %v", err)
	}
	if o := s.outputs[0]; !errors.Is(o.aborted, broken) || o.closed {
		t.Errorf("output of a broken source: %v", o.aborted)
	}
	for _, data := range []string{big, "x", ""} {
		if _, err := attempt(t.Context(), func(c *core.TransformCall) {
			c.Data = []byte(data)
			c.Output = func(context.Context, core.TransformOutputInfo) (core.TransformOutput, error) { return nil, broken }
		}); !errors.Is(err, broken) {
			t.Errorf("opening an output: got %v", err)
		}
	}
	b := blocking{make(chan error, 1)}
	if r, err := attempt(t.Context(), func(c *core.TransformCall) {
		c.Output = func(context.Context, core.TransformOutputInfo) (core.TransformOutput, error) { return b, nil }
	}); err != nil || r.Failure == nil || r.Failure.Class != "stalled" {
		t.Errorf("stalled output: got %+v, %v", r, err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	spins := install(t, h, wasmetl.Spec{Name: "spins"}, shoalGuest("", call(fnWrite, 0, 9), w.Drop, spin, ok).Bytes())
	if _, err := attempt(ctx, func(c *core.TransformCall) {
		c.Transform = spins
		streaming(hangup{cancel, broken})(c)
	}); !errors.Is(err, broken) {
		t.Errorf("called off: got %v", err)
	}
	for what, change := range map[string]func(*core.TransformCall){
		"no output":    func(c *core.TransformCall) { c.Output = nil },
		"bad argument": func(c *core.TransformCall) { c.Args = map[string]string{"a=b": ""} },
	} {
		if _, err := attempt(t.Context(), change); !errors.Is(err, core.ErrInvalid) {
			t.Errorf("%s: got %v", what, err)
		}
	}
	if u := h.Usage(); u.Running != 0 || u.Memory > 1<<20 {
		t.Errorf("afterwards: %+v", u)
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// hangup calls off when it is read.
type hangup struct {
	cancel context.CancelCauseFunc
	err    error
}

func (h hangup) Read(p []byte) (int, error) { h.cancel(h.err); return len(p), nil }
func (hangup) Close() error                 { return nil }

// Twenty traps in a row stop a transform.
func TestStopped(t *testing.T) {
	h := newHost(t, wasmetl.Options{})
	// It traps if there is no input.
	ref := install(t, h, wasmetl.Spec{Name: "x"}, shoalGuest("", call(fnRead, 0, 1), w.I32Eqz, w.If, w.Void, w.Unreachable, w.End, ok).Bytes())
	for _, data := range append(make([]string, 19), "x") {
		run(t, h, ref, data)
	}
	for range 20 {
		run(t, h, ref, "")
	}
	s := &sink{}
	if _, err := h.RunTransform(t.Context(), core.TransformCall{Transform: ref, Output: s.open}); !errors.Is(err, wasmetl.ErrStopped) || !errors.Is(err, core.ErrUnavailable) {
		t.Errorf("got %v, want it stopped", err)
	}
	l := h.List()[0]
	if !l.Stopped || l.Stats.Failures["trap"] != 39 || len(l.Stats.Recent) != 39 || l.Stats.Recent[0].Key != "dir/k.txt" {
		t.Errorf("%+v", l)
	}
	if err := h.Start("x"); err != nil {
		t.Fatal(err)
	}
	if r, _ := run(t, h, ref, "x"); r.Outcome != core.TransformDone {
		t.Errorf("started again: %v", r.Failure)
	}
}

// What a guest says of its outputs arrives; so do arguments and the environment.
func TestSettings(t *testing.T) {
	h := newHost(t, wasmetl.Options{})
	data := "content-type" + "image/webp" + "ext" + "webp" + "meta:k" + "v" + "other.bin" + "arg:a"
	ref := install(t, h, wasmetl.Spec{Name: "x", Args: map[string]string{"a": "spec", "b": "b"}}, shoalGuest(data,
		call(fnSet, 0, 12, 12, 10), w.Drop, call(fnSet, 22, 3, 25, 4), w.Drop, call(fnSet, 29, 6, 35, 1), w.Drop,
		call(fnGet, 45, 5, 1000, 100), w.LocalSet(0), i(1000), w.LocalGet(0), w.Call(fnWrite), w.Drop,
		call(fnEmit, 36, 9), w.Drop, call(fnWrite, 36, 9), w.Drop, ok).Bytes())
	_, s := run(t, h, ref, "", args("a", "call"))
	if len(s.outputs) != 2 {
		t.Fatalf("%d outputs", len(s.outputs))
	}
	if o := s.outputs[0]; o.info.Name != "" || o.info.ContentType != "image/webp" || o.info.Ext != "webp" || o.info.Meta["k"] != "v" || o.b.String() != "call" {
		t.Errorf("first output %+v with %q", o.info, o.b.String())
	}
	if o := s.outputs[1]; o.info.Name != "other.bin" || o.info.ContentType != "" || o.b.String() != "other.bin" {
		t.Errorf("second output %+v with %q", o.info, o.b.String())
	}
}
