package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/shoalstore/shoal/plugins/api"
)

func TestRules(t *testing.T) {
	if got, kept := upper([]byte("aZ{`\xe1z")); !kept || string(got) != "AZ{`\xe1Z" {
		t.Errorf("upper: got %q, %v", got, kept)
	}
	if got, kept := grep([]byte("one ab\nnone\nab, the last")); !kept || string(got) != "one ab\nab, the last" {
		t.Errorf("grep: got %q, %v", got, kept)
	}
	if got, kept := grep([]byte("a\nb\n")); kept {
		t.Errorf("grep: got %q, want it dropped", got)
	}
}

// TestTransforms: the modules that are run are there, and each makes a difference
// to data of the scripts' sizes. That they follow their rules the rounds check.
func TestTransforms(t *testing.T) {
	set := newDataSet(&options{objects: 60, size: 64 << 10, seed: 1})
	for _, x := range transforms() {
		if _, err := os.Stat(filepath.Join("..", "..", "wasmetl", "testdata", "c", x.module+".wasm")); err != nil {
			t.Error(err)
		}
		out := set.through(x.rule)
		if len(out.names) == 0 {
			t.Errorf("%s: everything is dropped", x.module)
		}
		for _, name := range out.names {
			before, _ := sumOf(bytes.NewReader(content(set.seed, name, set.sizes[name])))
			if out.objects[name] == before {
				t.Errorf("%s: %s stays as it is", x.module, name)
			}
			if out.objects[name].size != out.sizes[name] {
				t.Errorf("%s: %s has %d bytes, and %d", x.module, name, out.objects[name].size, out.sizes[name])
			}
		}
	}
}

// TestJudgeTransformed has a job that changes sizes and drops some.
func TestJudgeTransformed(t *testing.T) {
	r := &rounds{harness: fake(t)}
	r.set = newDataSet(&options{objects: 40, size: 64 << 10, seed: 1})
	x := task{kind: etlKind, want: r.set.through(grep)}
	planned, done, dropped, outputs := x.books(r.set)
	if dropped.Objects == 0 || done.Objects == 0 || planned != r.set.amount() || done.Add(dropped) != planned ||
		outputs.Objects != done.Objects || outputs.Bytes >= done.Bytes {
		t.Fatalf("got planned %+v, done %+v, dropped %+v, outputs %+v", planned, done, dropped, outputs)
	}
	good := api.Job{State: api.JobDone, Planned: &planned, Done: done, Dropped: dropped, Outputs: outputs}
	if err := r.judge(good, &x); err != nil {
		t.Errorf("got %v, want nothing amiss", err)
	}
	for name, spoil := range map[string]func(*api.Job){
		"dropped is done":  func(j *api.Job) { j.Done, j.Dropped = planned, api.Amount{} },
		"done is dropped":  func(j *api.Job) { j.Done, j.Dropped = api.Amount{}, planned },
		"sizes of sources": func(j *api.Job) { j.Outputs = done },
	} {
		j := good
		spoil(&j)
		if err := r.judge(j, &x); err == nil {
			t.Errorf("%s: got nothing amiss", name)
		}
	}
}
