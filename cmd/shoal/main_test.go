package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/shoalstore/shoal/cmd/shoal/internal/devcluster/standin"
	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/plugins/api"
	"github.com/shoalstore/shoal/plugins/api/apitest"
)

func TestMain(m *testing.M) {
	standin.Main()
	testscript.Main(m, map[string]func(){"shoal": main})
}

// TestScripts runs the scripts of testdata/script, each against a cluster of
// three endpoints of its own. Beside testscript's there are the commands
//
//	run shoal ARGS      the command line in this process, which is quicker than
//	                    "exec shoal"; it must end well
//	code N shoal ARGS   which must exit with N
//	cluster ...         what happens to the cluster
func TestScripts(t *testing.T) {
	dir, err := filepath.Abs("testdata/script")
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir:                 dir,
		RequireExplicitExec: true,
		Setup: func(e *testscript.Env) error {
			f := apitest.New(&scriptT{TB: t, e: e}, 3)
			addRemote(f)
			e.Values[clusterKey{}] = f
			e.Setenv("SHOAL_ENDPOINT", strings.Join(f.URLs(), ","))
			e.Setenv("XDG_STATE_HOME", filepath.Join(e.WorkDir, ".state"))
			e.Setenv("TZ", "UTC")
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"run": func(ts *testscript.TestScript, _ bool, args []string) { runCommand(ts, 0, args[1:]) },
			"code": func(ts *testscript.TestScript, _ bool, args []string) {
				want, err := strconv.Atoi(args[0])
				ts.Check(err)
				runCommand(ts, want, args[2:])
			},
			"cluster": clusterCommand,
		},
	})
}

type clusterKey struct{}

// scriptT ends the cluster with the script instead of with the test.
type scriptT struct {
	testing.TB
	e *testscript.Env
}

func (t *scriptT) Cleanup(f func()) { t.e.Defer(f) }

// addRemote adds the bucket of the design's transcript: 1,430 objects of 1 KiB.
func addRemote(f *apitest.Cluster) {
	var objects []api.Object
	for i := range 1430 {
		objects = append(objects, api.Object{Name: fmt.Sprintf("o%04d", i), Size: 1028, ETag: "e", Modified: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)})
	}
	f.Buckets.AddRemote(core.BucketName{Provider: core.S3, Name: "src"}, objects...)
	f.Buckets.AddRemote(core.BucketName{Provider: core.GCS, Name: "dst"})
}

// directory is held by the command that runs: the process has one working
// directory, and scripts run in parallel.
var directory sync.Mutex

// runCommand runs a command line as a process in the script's directory would.
func runCommand(ts *testscript.TestScript, want int, args []string) {
	directory.Lock()
	defer directory.Unlock()
	before, err := os.Getwd()
	ts.Check(err)
	ts.Check(os.Chdir(ts.MkAbs(".")))
	defer func() { ts.Check(os.Chdir(before)) }()
	var environ []string
	if name := ts.Getenv("SHOAL_NODE_NAME"); name != "" {
		environ = append(environ, "SHOAL_NODE_NAME="+name)
	}
	var errs buffer
	got := execute(context.Background(), &options{
		in: strings.NewReader(""), out: ts.Stdout(), err: io.MultiWriter(ts.Stderr(), &errs),
		getenv: ts.Getenv, environ: environ,
		executable: os.Executable,
	}, args)
	if got != want {
		ts.Fatalf("shoal %s: exit code %d, want %d\n%s", strings.Join(args, " "), got, want, errs.String())
	}
}

func clusterCommand(ts *testscript.TestScript, neg bool, args []string) {
	f := ts.Value(clusterKey{}).(*apitest.Cluster)
	number := func(i int) int {
		n, err := strconv.Atoi(args[i])
		ts.Check(err)
		return n
	}
	switch args[0] {
	case "kill":
		f.Kill(number(1))
	case "freeze":
		f.Freeze(number(1))
	case "break":
		f.BreakAfter(number(1), number(2), int64(number(3)))
	case "refuse":
		refuse(f, args)
	case "part":
		f.Buckets.Part(core.BucketName{Provider: core.S3, Name: args[1]}, args[2])
	case "hold":
		f.Jobs.Hold()
	case "state":
		f.Nodes.SetNodeState(core.NodeID(args[1]), core.NodeState(args[2]))
	case "fail":
		f.Jobs.Fail(api.JobError{Key: args[1], Code: "corrupt", Message: "checksum mismatch"}, 1028)
	case "job":
		f.Jobs.Change(func(j *api.Job) { j.State = api.JobState(args[1]) })
	default:
		ts.Fatalf("unknown cluster command %q", args[0])
	}
}

// refuse makes s3://NAME refuse with a code and words; "ok" ends that.
func refuse(f *apitest.Cluster, args []string) {
	name := core.BucketName{Provider: core.S3, Name: args[1]}
	if args[2] == "ok" {
		f.Buckets.Refuse(name, nil)
		return
	}
	f.Buckets.Refuse(name, &api.Error{Code: api.Code(args[2]), Message: name.String() + ": " + args[3], Hint: "look there"})
}

// buffer is a buffer that may be read while it is written.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) reset() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.b.Reset()
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// shell runs command lines in this process.
type shell struct {
	t        *testing.T
	env      map[string]string
	in       io.Reader
	terminal bool
	exe      string
	environ  []string
	out, err buffer
}

func newShell(t *testing.T, f *apitest.Cluster) *shell {
	s := &shell{t: t, env: map[string]string{"XDG_STATE_HOME": t.TempDir()}, in: strings.NewReader("")}
	if f != nil {
		s.env["SHOAL_ENDPOINT"] = strings.Join(f.URLs(), ",")
	}
	return s
}

// run runs a command line and returns its exit code.
func (s *shell) run(ctx context.Context, args ...string) int {
	s.out.reset()
	s.err.reset()
	return execute(ctx, &options{
		in: s.in, out: &s.out, err: &s.err, getenv: func(k string) string { return s.env[k] }, environ: s.environ,
		inTerminal: s.terminal, executable: func() (string, error) { return s.exe, nil },
	}, args)
}

// must runs a command line that must end well.
func (s *shell) must(args ...string) string {
	s.t.Helper()
	if code := s.run(s.t.Context(), args...); code != 0 {
		s.t.Fatalf("shoal %s: exit code %d\n%s", strings.Join(args, " "), code, s.err.String())
	}
	return s.out.String()
}

// TestDetach interrupts the wait for a job: it goes on, and the commands to wait
// and to stop are printed.
func TestDetach(t *testing.T) {
	f := apitest.New(t, 2)
	addRemote(f)
	f.Jobs.Hold()
	for _, args := range [][]string{
		{"cp", "s3://src", "gs://dst", "--all", "--progress"},
		{"wait", "copy-bck"},
	} {
		s := newShell(t, f)
		ctx, cancel := context.WithCancelCause(t.Context())
		code := make(chan int)
		go func() { code <- s.run(ctx, args...) }()
		if err := f.Jobs.AwaitStart(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
		cancel(errInterrupted)
		if got := <-code; got != 130 {
			t.Errorf("%v: exit code %d, want 130\n%s", args, got, s.err.String())
		}
		if args[0] == "cp" && !strings.Contains(s.err.String(), "shoal wait J1") && !strings.Contains(s.err.String(), "shoal show job copy-bck") {
			t.Errorf("%v: the commands are not printed: %s", args, s.err.String())
		}
	}
	f.Jobs.Change(func(j *api.Job) {
		if j.State != api.JobRunning {
			t.Errorf("the job is %s, want it running", j.State)
		}
	})
}

// TestConfirmation answers a question on a terminal.
func TestConfirmation(t *testing.T) {
	f := apitest.New(t, 1)
	for answer, want := range map[string]int{"y\n": 0, "YES\n": 0, "n\n": 4, "\n": 4, "": 4} {
		s := newShell(t, f)
		s.must("bucket", "create", "shoal://data", "--if-absent")
		s.terminal, s.in = true, strings.NewReader(answer)
		if got := s.run(t.Context(), "bucket", "rm", "shoal://data"); got != want {
			t.Errorf("answer %q: exit code %d, want %d", answer, got, want)
		}
		if !strings.Contains(s.err.String(), "Remove shoal://data? [y/N]") {
			t.Errorf("answer %q: not asked: %s", answer, s.err.String())
		}
	}
}

// TestRepeatedShow shows something again, until it was shown often enough or
// the command is interrupted, which is its ordinary end.
func TestRepeatedShow(t *testing.T) {
	f := apitest.New(t, 1)
	s := newShell(t, f)
	out := s.must("show", "cluster", "--json", "--refresh", "0.01", "--count", "3")
	if n := strings.Count(out, `"cluster_id"`); n != 3 {
		t.Errorf("shown %d times, want 3", n)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if code := s.run(ctx, "show", "performance", "--refresh", "1h"); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// newDevShell is a shell whose development clusters are made of stand-ins.
func newDevShell(t *testing.T) *shell {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	s := newShell(t, nil)
	s.exe, s.environ = exe, append(os.Environ(), standin.Variable+"=yes")
	return s
}

// TestDev drives a development cluster of stand-ins through the command line.
func TestDev(t *testing.T) {
	s := newDevShell(t)
	t.Cleanup(func() { s.run(context.Background(), "dev", "clean") })
	if code := s.run(t.Context(), "dev", "status"); code != 3 {
		t.Errorf("status of no cluster: exit code %d, want 3", code)
	}
	out := s.must("dev", "up", "-d", "--nodes", "2", "--disks", "1", "--base-port", "0")
	if !strings.Contains(out, `cluster "dev": 2 nodes of 1 disks`) || !strings.Contains(out, `eval "$(shoal dev env)"`) {
		t.Errorf("up says %s", out)
	}
	if code := s.run(t.Context(), "dev", "up", "-d"); code != 4 {
		t.Errorf("up again: exit code %d, want 4", code)
	}
	env := s.must("dev", "env")
	for _, name := range []string{
		"SHOAL_ENDPOINT=http://127.0.0.1:", "SHOAL_ACCESS_KEY=shoaldev", "SHOAL_SECRET_KEY=shoaldev-secret", "AWS_ENDPOINT_URL=http://127.0.0.1:",
		"AWS_ACCESS_KEY_ID=shoaldev", "AWS_SECRET_ACCESS_KEY=shoaldev-secret", "AWS_REGION=us-east-1", "NATS_URL=nats://127.0.0.1:", "NATS_USER=", "NATS_PASSWORD=",
	} {
		if !strings.Contains(env, "export "+name) {
			t.Errorf("env lacks %s:\n%s", name, env)
		}
	}
	s.must("dev", "kill", "n2")
	status := s.must("dev", "status", "--json")
	for _, want := range []string{`[{"node":"n1","pid":`, `"state":"running"`, `"node":"n2","pid":0,`, `"state":"killed"`, `"disks":[{"id":"n1/d1","path":"`} {
		if !strings.Contains(status, want) {
			t.Errorf("status lacks %s:\n%s", want, status)
		}
	}
	for _, step := range [][]string{{"start", "n2"}, {"pause", "n1"}, {"resume", "n1"}, {"stop", "n1"}, {"start", "n1"}} {
		s.must(append([]string{"dev"}, step...)...)
	}
	if got := s.must("dev", "add"); got != "n3\n" {
		t.Errorf("add printed %q", got)
	}
	if code := s.run(t.Context(), "dev", "kill", "n9"); code != 3 {
		t.Errorf("kill of no node: exit code %d, want 3", code)
	}
	s.must("dev", "down")
	if got := s.must("dev", "status"); strings.Count(got, "stopped") != 3 {
		t.Errorf("after down:\n%s", got)
	}
	s.must("dev", "clean")
}

// TestDevForeground ends the cluster on Ctrl-C.
func TestDevForeground(t *testing.T) {
	s := newDevShell(t)
	other := newShell(t, nil)
	other.env = s.env
	t.Cleanup(func() { other.run(context.Background(), "dev", "clean", "--name", "front") })
	ctx, cancel := context.WithCancelCause(t.Context())
	code := make(chan int)
	go func() {
		code <- s.run(ctx, "dev", "up", "--nodes", "1", "--disks", "1", "--base-port", "0", "--name", "front")
	}()
	deadline := time.Now().Add(time.Minute)
	for !strings.Contains(s.err.String(), "Ctrl-C ends the cluster") {
		if time.Now().After(deadline) {
			t.Fatalf("not up: %s", s.err.String())
		}
		select {
		case got := <-code:
			t.Fatalf("ended with %d: %s", got, s.err.String())
		case <-time.After(10 * time.Millisecond):
		}
	}
	cancel(errInterrupted)
	if got := <-code; got != 0 {
		t.Errorf("exit code %d: %s", got, s.err.String())
	}
	if got := other.must("dev", "status", "--name", "front"); !strings.Contains(got, "stopped") {
		t.Errorf("after Ctrl-C:\n%s", got)
	}
}

// TestDefaultEndpoint finds the development cluster without any variable.
func TestDefaultEndpoint(t *testing.T) {
	s := newDevShell(t)
	t.Cleanup(func() { s.run(context.Background(), "dev", "clean") })
	o := &options{getenv: func(k string) string { return s.env[k] }}
	if got := o.endpoints(); len(got) != 1 || got[0] != "http://127.0.0.1:7070" {
		t.Errorf("without a cluster: %v", got)
	}
	s.must("dev", "up", "-d", "--nodes", "1", "--disks", "1", "--base-port", "0")
	if got := o.endpoints(); len(got) != 1 || got[0] == "http://127.0.0.1:7070" {
		t.Errorf("with a cluster: %v", got)
	}
	o.endpoint = "http://a:1, http://b:2"
	if got := o.endpoints(); strings.Join(got, " ") != "http://a:1 http://b:2" {
		t.Errorf("with the flag: %v", got)
	}
}

func TestKeysAreNeededElsewhere(t *testing.T) {
	s := newShell(t, nil)
	s.env["SHOAL_ENDPOINT"] = "http://127.0.0.1:7070,http://n1.example.net:7070"
	if code := s.run(t.Context(), "ls"); code != 2 || !strings.Contains(s.err.String(), "SHOAL_ACCESS_KEY") {
		t.Errorf("exit code %d: %s", code, s.err.String())
	}
}
