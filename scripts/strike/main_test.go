package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/plugins/api"
	"github.com/shoalstore/shoal/plugins/api/apitest"
	"github.com/shoalstore/shoal/plugins/api/client"
)

// seedVar repeats the choices of an earlier run, binVar names the program under
// test instead of one that is built.
const (
	seedVar = "SHOAL_STRIKE_SEED"
	binVar  = "SHOAL_BIN"
)

func TestMain(m *testing.M) {
	if name := os.Getenv(guardVar); name != "" {
		os.Exit(guard(name))
	}
	// soak runs the scripts as processes of its own program.
	if len(os.Args) > 1 && slices.Contains(scriptNames(), os.Args[1]) {
		os.Exit(run(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}

// TestExitCodes runs what needs no cluster.
func TestExitCodes(t *testing.T) {
	for _, tt := range []struct {
		args string
		code int
		says string
	}{
		{"", exitUsage, "which script"},
		{"cp-rmnode-ec --rounds 0", exitUsage, "--rounds 0"},
		{"cp-rmnode-ec --no-such-flag", exitUsage, "no-such-flag"},
		{"cp-rmnode-ec --size 3QiB", exitUsage, "3QiB"},
		{"cp-rmnode-ec extra", exitUsage, "extra"},
		{"cp-rmnode-ec --strike-cmd true", exitUsage, "belong together"},
		{"cp-rmnode-ec --job nonsense", exitUsage, "nonsense"},
		{"cp-rmnode-ec --job dsort", exitCannot, "dsort"},
		{"cp-rmnode-ec --shoal /no/such/program", exitCannot, "/no/such/program"},
		{"cp-rmnode-ec --strike nobody", exitUsage, "nobody"},
		{"cp-rmnode-ec --strike lister", exitUsage, "--from"},
		{"chaos --strike cli", exitUsage, "--strike"},
		{"cp-rmnode-ec --from s3://a", exitUsage, "belong together"},
		{"cp-rmnode-ec --faulty", exitUsage, "--from"},
		{"cp-rmnode-ec --from gs://aaa --to gs://bbb", exitUsage, "s3://NAME"},
		{"cp-rmnode-ec --from s3://aaa --to gs://bbb/key", exitUsage, "gs://NAME"},
		{"cp-rmnode-ec --from s3://aaa --to gs://bbb --servers-at 127.0.0.1", exitUsage, "--endpoint"},
	} {
		t.Run(tt.args, func(t *testing.T) {
			var out, errs bytes.Buffer
			if code := run(t.Context(), strings.Fields(tt.args), &out, &errs); code != tt.code {
				t.Errorf("got exit code %d, want %d: %s", code, tt.code, errs.String())
			}
			if first, _, _ := strings.Cut(errs.String(), "\n"); !strings.Contains(first, tt.says) {
				t.Errorf("got %q first on stderr, want %q in it", first, tt.says)
			}
		})
	}
}

// fake is a harness at a cluster in memory.
func fake(t *testing.T) *harness {
	t.Helper()
	f := apitest.New(t, 1)
	o := &options{script: "test", objects: 30, size: 1000, seed: 1, rounds: 1, timeout: time.Minute, job: copyKind}
	c, err := newClient(f.URLs(), apitest.AccessKey, apitest.SecretKey)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	h := newHarness(o, t.Output())
	h.cluster = &cluster{api: c}
	return h
}

// TestCompare damages a bucket in every way that there is.
func TestCompare(t *testing.T) {
	h := fake(t)
	set := newDataSet(h.o)
	b, err := h.api.CreateBucket(t.Context(), core.BucketName{Provider: core.Shoal, Name: "data"}, api.CreateBucket{})
	if err != nil {
		t.Fatal(err)
	}
	if err := set.put(t.Context(), h.api, b); err != nil {
		t.Fatal(err)
	}
	if err := set.compare(t.Context(), h.api, b); err != nil {
		t.Fatalf("got %v, want no difference yet", err)
	}
	put := func(key string, size int) {
		t.Helper()
		data := content(99, key, int64(size))
		if _, err := h.api.Upload(t.Context(), b.Alias, key, bytes.NewReader(data), int64(size), client.TransferOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	if err := h.api.Delete(t.Context(), b.Alias, set.names[0], ""); err != nil {
		t.Fatal(err)
	}
	put(set.names[1], 1000)
	put(set.names[2], 999)
	put("nobody's", 1000)
	err = set.compare(t.Context(), h.api, b)
	d, ok := errors.AsType[*differenceError](err)
	if !ok {
		t.Fatalf("got %v, want differences", err)
	}
	// One lost is not listed and cannot be read; a wrong size is seen twice.
	if d.lost != 2 || d.wrong != 4 || d.duplicated != 0 {
		t.Errorf("got %v, want 2 lost, 4 wrong", err)
	}
	if err := removeBucket(t.Context(), h.api, b); err != nil {
		t.Errorf("remove the bucket: %v", err)
	}
}

func TestJudge(t *testing.T) {
	r := &rounds{harness: fake(t)}
	r.set = newDataSet(r.o)
	same := task{kind: copyKind, want: r.set}
	all := api.Amount{Objects: 30, Bytes: 30_000}
	good := api.Job{State: api.JobDone, Planned: &all, Done: all, Outputs: all}
	if err := r.judge(good, &same); err != nil {
		t.Errorf("got %v, want nothing amiss", err)
	}
	one := api.Amount{Objects: 1, Bytes: 1000}
	less := api.Amount{Objects: 29, Bytes: 29_000}
	for name, spoil := range map[string]func(*api.Job){
		"failed":         func(j *api.Job) { j.State = api.JobFailed },
		"nothing known":  func(j *api.Job) { j.Planned = nil },
		"too few":        func(j *api.Job) { j.Planned, j.Done, j.Outputs = &less, less, less },
		"one skipped":    func(j *api.Job) { j.Done, j.Skipped = less, one },
		"one unwritten":  func(j *api.Job) { j.Outputs = less },
		"one done twice": func(j *api.Job) { j.Outputs = all.Add(one) },
	} {
		j := good
		spoil(&j)
		if err := r.judge(j, &same); err == nil {
			t.Errorf("%s: got nothing amiss", name)
		}
	}
}

// TestMeasure is about a job at 100 bytes a second, for which nothing happens
// for three seconds after the strike.
func TestMeasure(t *testing.T) {
	start := time.Now()
	var c course
	done, struck := int64(0), start.Add(4*time.Second)
	for ms := 0; ms <= 12_000; ms += 100 {
		at := start.Add(time.Duration(ms) * time.Millisecond)
		if ms > 0 && (ms <= 4000 || ms > 7000) {
			done += 10
		}
		c = c.add(at, done)
	}
	m := c.measure(struck)
	near := func(what string, got, want, by float64) {
		t.Helper()
		if got < want-by || got > want+by {
			t.Errorf("%s: got %v, want %v", what, got, want)
		}
	}
	near("before", m.Before, 100, 1)
	near("after", m.After, 100, 5)
	near("depth", m.Depth, 1, 0.01)
	near("seconds", m.Seconds, 2.8, 0.5)
	if m.During > 40 {
		t.Errorf("during: got %v, want little", m.During)
	}
}

// TestCommands has the user's commands get what they are about.
func TestCommands(t *testing.T) {
	h := fake(t)
	file := filepath.Join(t.TempDir(), "out")
	for _, tt := range []struct{ text, want string }{
		{`echo "$STRIKE_NODE,$STRIKE_DISK,$STRIKE_TARGET,$1" >` + "'" + file + "'", "n2,d1,n2/d1,n2/d1"},
		{"printf %s >'" + file + "'", "n2/d1"},
	} {
		if err := h.command(t.Context(), tt.text, "n2", "d1", "n2/d1"); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(file)
		if err != nil || strings.TrimSpace(string(got)) != tt.want {
			t.Errorf("%s: got %q, %v, want %q", tt.text, got, err, tt.want)
		}
	}
	if err := h.command(t.Context(), "echo no; exit 3 #$", "n2", "", "n2"); err == nil || !strings.Contains(err.Error(), "no") {
		t.Errorf("got %v, want what the command said", err)
	}
}

// program is the program under test, built if the environment names none.
func program(t *testing.T) string {
	t.Helper()
	if bin := os.Getenv(binVar); bin != "" {
		return bin
	}
	bin := filepath.Join(t.TempDir(), "shoal")
	build := exec.Command("go", "build", "-o", bin, "github.com/shoalstore/shoal/cmd/shoal")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the program: %v\n%s", err, out)
	}
	return bin
}

// runScripted runs a script with a cluster of its own and returns the result.
func runScripted(t *testing.T, bin, script string, args ...string) result {
	t.Helper()
	args = append([]string{script, "--shoal", bin}, args...)
	if seed := os.Getenv(seedVar); seed != "" {
		args = append(args, "--seed", seed)
	}
	var out, errs bytes.Buffer
	code := run(t.Context(), args, &out, &errs)
	t.Logf("again with %s=SEED:\n%s%s", seedVar, out.String(), errs.String())
	if code != 0 {
		t.Fatalf("%s: got exit code %d, want 0: %s", script, code, errs.String())
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	var r result
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &r); err != nil {
		t.Fatalf("the last line is not the result: %v", err)
	}
	if r.Script != script || r.Lost+r.Wrong+r.Duplicated != 0 {
		t.Errorf("got %+v, want nothing amiss", r)
	}
	return r
}

// TestChaos has everything fail for two minutes.
func TestChaos(t *testing.T) {
	r := runScripted(t, program(t), chaosName, "--minutes", "2")
	if r.Rounds < 3 || r.Objects < 100 {
		t.Errorf("got %+v, want three strikes and a hundred writes at least", r)
	}
}

// TestRemoteScript runs a round between servers of others.
func TestRemoteScript(t *testing.T) {
	if os.Getenv("SHOAL_E2E_LONG") == "" {
		t.Skip("takes minutes; SHOAL_E2E_LONG=1 runs it")
	}
	const objects = 600
	r := runScripted(t, program(t), "cp-rmnode-ec", "--rounds", "1", "--objects", fmt.Sprint(objects), "--from", "s3://src", "--to", "gs://dst")
	if u := r.Uploads; r.Rounds != 1 || r.Objects != objects || u == nil || u.Written < objects || u.Written > objects+u.InFlight {
		t.Errorf("got %+v with uploads %+v, want one round of %d objects", r, u, objects)
	}
}

// TestScripts runs a round of each script.
func TestScripts(t *testing.T) {
	bin := program(t)
	for _, s := range copyScripts() {
		t.Run(s.name, func(t *testing.T) {
			const objects = 200
			r := runScripted(t, bin, s.name, "--rounds", "1", "--objects", fmt.Sprint(objects))
			if r.Rounds != 1 || r.Objects != objects || r.Bytes != objects<<16 || r.Throughput.Before <= 0 {
				t.Errorf("got %+v, want one round of %d objects", r, objects)
			}
		})
	}
}
