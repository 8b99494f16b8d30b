package engine_test

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/engine"
)

// transformer is a transform that a test writes. Outputs are opened with a context
// that ends at once, as it may.
type transformer struct {
	runs int
	do   func(in []byte, write func(info core.TransformOutputInfo, data string)) core.TransformOutcome
}

// RunTransform is part of core.TransformRunner.
func (x *transformer) RunTransform(ctx context.Context, c core.TransformCall) (core.TransformResult, error) {
	x.runs++
	in := c.Data
	if c.Body != nil {
		var err error
		in, err = io.ReadAll(c.Body)
		if err = errors.Join(err, c.Body.Close()); err != nil {
			return core.TransformResult{}, err
		}
	}
	var failed error
	outcome := x.do(in, func(info core.TransformOutputInfo, data string) {
		opening, opened := context.WithCancel(ctx)
		out, err := c.Output(opening, info)
		opened()
		if err != nil {
			failed = errors.Join(failed, err)
			return
		}
		for piece := range slices.Chunk([]byte(data), 100_000) {
			if _, err := out.Write(piece); err != nil {
				failed = errors.Join(failed, err)
				out.Abort(err)
				return
			}
		}
		failed = errors.Join(failed, out.Close())
	})
	res := core.TransformResult{Outcome: outcome, Log: "the log"}
	if outcome == core.TransformFailed {
		res.Failure = &core.TransformFailure{Class: "exit", Code: 2, Message: "no"}
	}
	return res, failed
}

// own is the object's own output.
func own(ext string) core.TransformOutputInfo { return core.TransformOutputInfo{Ext: ext} }

// transforming is a cluster with an object to transform.
type transforming struct {
	t        *testing.T
	node     *engine.Node
	from, to core.Bucket
	task     engine.TransformTask
	run      *transformer
}

func newTransforming(t *testing.T, node *engine.Node, to *core.Bucket) *transforming {
	t.Helper()
	x := &transforming{t: t, node: node, run: &transformer{}}
	x.from = x.bucket("from")
	if to == nil {
		b := x.bucket("into")
		to = &b
	}
	x.to = *to
	x.put(x.from, "a.txt", "some text", core.PutOptions{Size: -1, Meta: map[string]string{"m": "1"}, Headers: map[string]string{"Content-Type": "text/plain"}})
	x.task = engine.TransformTask{
		CopyTask: engine.CopyTask{From: x.from, To: x.to, Key: "a.txt", ToKey: "out/a.up", Job: "etl-1", Transform: "up@sha256:1#2", Started: time.Now()},
		Run:      x.run, KeyOf: func(ext string) string { return "out/a." + ext },
	}
	return x
}

func (x *transforming) bucket(name string) core.Bucket {
	x.t.Helper()
	b, err := x.node.Objects().CreateBucket(x.t.Context(), core.BucketName{Provider: core.Shoal, Name: name}, nil, "")
	if err != nil {
		x.t.Fatal(err)
	}
	return b
}

func (x *transforming) put(b core.Bucket, key, data string, o core.PutOptions) {
	x.t.Helper()
	o.Size = int64(len(data))
	if _, err := x.node.Objects().Put(x.t.Context(), b, key, strings.NewReader(data), o); err != nil {
		x.t.Fatal(err)
	}
}

// transform runs the task and compares its end.
func (x *transforming) transform(want engine.CopyEnd, outputs int64, when string) engine.TransformedObject {
	x.t.Helper()
	task := x.task
	out, err := x.node.TransformObject(x.t.Context(), &task)
	if err != nil || out.End != want || out.Outputs != outputs {
		x.t.Errorf("%s: got %+v, %v; want end %d with %d outputs", when, out, err, want, outputs)
	}
	return out
}

// has compares what the destination has; "" is nothing.
func (x *transforming) has(key, want string) core.ObjectInfo {
	x.t.Helper()
	o, err := x.node.Objects().Get(x.t.Context(), x.to, key, core.GetOptions{})
	if errors.Is(err, core.ErrNotFound) && want == "" {
		return core.ObjectInfo{}
	}
	if err != nil {
		x.t.Errorf("%s: %v", key, err)
		return core.ObjectInfo{}
	}
	defer func() { _ = o.Body.Close() }()
	if got, err := io.ReadAll(o.Body); err != nil || string(got) != want {
		x.t.Errorf("%s: %d bytes, %v; want %d", key, len(got), err, len(want))
	}
	return o.ObjectInfo
}

func TestTransformObject(t *testing.T) {
	x := newTransforming(t, startCluster(t, 3, 1).nodes[1], nil)
	n := 0
	x.run.do = func(in []byte, write func(core.TransformOutputInfo, string)) core.TransformOutcome {
		n++
		info := own("")
		info.ContentType, info.Meta = "text/loud", map[string]string{"n": "2"}
		write(info, strings.ToUpper(string(in))+strings.Repeat("!", n))
		return core.TransformDone
	}
	x.transform(engine.Copied, 1, "first")
	o := x.has("out/a.up", "SOME TEXT!")
	if o.Meta["m"] != "1" || o.Meta["n"] != "2" || o.Headers["Content-Type"] != "text/loud" {
		t.Errorf("metadata: %v, %v", o.Meta, o.Headers)
	}
	// What is not the same twice stays what was written first.
	if out := x.transform(engine.CopiedSoFar, 1, "again"); out.Bytes != 10 || x.run.runs != 1 {
		t.Errorf("again: %+v after %d runs", out, x.run.runs)
	}
	x.has("out/a.up", "SOME TEXT!")
	// Another job makes it anew; who wrote since that job began is spared.
	x.task.Job = "etl-2"
	x.task.Started = time.Now()
	x.transform(engine.Copied, 1, "another job")
	x.has("out/a.up", "SOME TEXT!!")
	x.task.Job = "etl-3"
	x.put(x.to, "out/a.up", "mine", core.PutOptions{})
	x.transform(engine.CopySkipped, 0, "written by somebody else")
	x.has("out/a.up", "mine")
	// The extension is the transform's.
	x.run.do = func(in []byte, write func(core.TransformOutputInfo, string)) core.TransformOutcome {
		write(own("md"), string(in))
		return core.TransformDone
	}
	x.task.Job = "etl-4"
	x.transform(engine.Copied, 1, "its own extension")
	x.has("out/a.md", "some text")
	x.task.Key = "nothing"
	if out := x.transform(engine.CopySkipped, 0, "no source"); !strings.Contains(out.Why, "removed") {
		t.Errorf("no source: %q", out.Why)
	}
}

func TestTransformObjectWithoutOutput(t *testing.T) {
	x := newTransforming(t, startCluster(t, 1, 2).nodes[0], nil)
	large := strings.Repeat("x", 1<<20)
	outcome := core.TransformFailed
	x.run.do = func(_ []byte, write func(core.TransformOutputInfo, string)) core.TransformOutcome {
		write(core.TransformOutputInfo{Name: "part"}, large)
		write(own(""), "small")
		return outcome
	}
	if out := x.transform(engine.TransformRefused, 0, "failed"); out.Failure == nil || out.Failure.Code != 2 || out.Log != "the log" {
		t.Errorf("failed: %+v", out)
	}
	outcome = core.TransformDropped
	x.transform(engine.TransformDropped, 0, "dropped")
	outcome = core.TransformDone
	x.task.Inspect = true
	if out := x.transform(engine.Copied, 2, "inspect"); out.Bytes != 5+1<<20 {
		t.Errorf("inspect: %+v", out)
	}
	x.has("out/a.up", "")
	x.has("out/a.up/part", "")
	x.task.Inspect = false
	x.transform(engine.Copied, 2, "done")
	x.has("out/a.up", "small")
	x.has("out/a.up/part", large)
}

// TestTransformObjectIntoMany has attempts end between their outputs.
func TestTransformObjectIntoMany(t *testing.T) {
	x := newTransforming(t, startCluster(t, 3, 1).nodes[0], nil)
	parts, mark := 2, "1"
	x.run.do = func(_ []byte, write func(core.TransformOutputInfo, string)) core.TransformOutcome {
		for i := range parts {
			write(core.TransformOutputInfo{Name: string(rune('a' + i))}, mark+strings.Repeat("p", i*300_000))
		}
		if parts == 3 {
			write(own(""), mark)
		}
		return core.TransformDone
	}
	// The first attempt wrote two of four, as if it had ended then.
	x.transform(engine.Copied, 2, "half")
	parts, mark = 3, "2"
	x.transform(engine.Copied, 4, "whole")
	x.has("out/a.up/a", "1")
	x.has("out/a.up/b", "1"+strings.Repeat("p", 300_000))
	x.has("out/a.up/c", "2"+strings.Repeat("p", 600_000))
	x.has("out/a.up", "2")
	if out := x.transform(engine.CopiedSoFar, 4, "again"); out.Bytes != 4+900_000 || x.run.runs != 2 {
		t.Errorf("again: %+v after %d runs", out, x.run.runs)
	}
	// Two outputs of one name are an error, and nothing is written.
	x.task.Job, x.task.ToKey = "etl-2", "two"
	x.run.do = func(_ []byte, write func(core.TransformOutputInfo, string)) core.TransformOutcome {
		write(core.TransformOutputInfo{Name: "a"}, "1")
		write(core.TransformOutputInfo{Name: "a"}, "2")
		return core.TransformDone
	}
	task := x.task
	if _, err := x.node.TransformObject(t.Context(), &task); !errors.Is(err, core.ErrInvalid) {
		t.Errorf("one name twice: %v", err)
	}
	x.has("two/a", "")
}

func TestTransformObjectToRemote(t *testing.T) {
	tc, f, remote := startRemoteOf(t, 3, 1, hooks{})
	f.clock = time.Now
	f.set("out/a.up", []byte("old"))
	x := newTransforming(t, tc.nodes[2], &remote)
	x.task.Started = time.Now().Add(time.Hour)
	large := strings.Repeat("y", 600_000)
	x.run.do = func(_ []byte, write func(core.TransformOutputInfo, string)) core.TransformOutcome {
		write(core.TransformOutputInfo{Name: "part"}, large)
		write(own(""), "new")
		return core.TransformDone
	}
	x.transform(engine.Copied, 2, "first")
	if got := string(f.data("out/a.up")); got != "new" || string(f.data("out/a.up/part")) != large {
		t.Errorf("the remote has %q", got)
	}
	if x.run.runs != 1 {
		t.Errorf("%d runs", x.run.runs)
	}
	if out := x.transform(engine.CopiedSoFar, 2, "again"); out.Bytes != 600_003 {
		t.Errorf("again: %+v", out)
	}
	x.task.Job, x.task.Started = "etl-2", time.Time{}
	x.transform(engine.CopySkipped, 0, "written by somebody else")
}
