package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"

	"github.com/shoalstore/shoal/plugins/api"
)

// The kinds of jobs whose outcome the scripts know: the destination holds what the
// source held, or what a transform of which they know the rule makes of that.
const (
	copyKind = "copy-bck"
	etlKind  = "etl"
)

// kindsToCome are those that clusters have, or will have.
func kindsToCome() []string {
	return []string{
		"cleanup", "download", "dsort", "ec-encode", "evict", "lru", "mirror", "move-bck",
		"prefetch", "rebalance", "resilver", "retry", "scrub", "warm-up-metadata",
	}
}

// checkJob says whether the scripts can judge what a job of that kind makes.
func checkJob(kind string) error {
	switch {
	case kind == copyKind || kind == etlKind:
		return nil
	case slices.Contains(kindsToCome(), kind):
		return cannotf("--job %s: it does not read one bucket and write another, or not in this version; %s and %s do", kind, copyKind, etlKind)
	}
	return usagef("--job %q: there is no such kind of job; want %s or %s", kind, copyKind, etlKind)
}

// transform is a module of the repository, and its rule, written anew here.
type transform struct {
	module string
	args   map[string]string
	// rule is what becomes of an object, false if it is dropped.
	rule func([]byte) ([]byte, bool)
}

// greppedWord is what [grep] looks for. Of random data some lines in 256 have it.
const greppedWord = "ab"

// transforms are one of each ABI, and one that changes sizes and drops objects.
func transforms() []transform {
	return []transform{
		{"upper", nil, upper},
		{"upperwasi", nil, upper},
		{"grep", map[string]string{"word": greppedWord}, grep},
	}
}

// upper has the letters of ASCII in upper case.
func upper(b []byte) ([]byte, bool) {
	out := bytes.Clone(b)
	for i, c := range out {
		if 'a' <= c && c <= 'z' {
			out[i] = c - 'a' + 'A'
		}
	}
	return out, true
}

// grep keeps the lines that have the word, and drops what has none.
func grep(b []byte) ([]byte, bool) {
	var out []byte
	for line := range bytes.Lines(b) {
		if bytes.Contains(line, []byte(greppedWord)) {
			out = append(out, line...)
		}
	}
	return out, out != nil
}

// task is what a job does with a bucket.
type task struct {
	kind string
	args map[string]string
	what string // for people
	// want is what the destination is to hold.
	want *dataSet
}

// tasks are those of a run, one of which each job gets.
type tasks []task

// draw is one of them.
func (t tasks) draw(rnd *rand.Rand) task { return t[rnd.IntN(len(t))] }

// newTasks are the tasks of --job with the objects of a source. Transforms are
// registered under names of this run.
func (h *harness) newTasks(ctx context.Context, set *dataSet) (tasks, error) {
	if h.o.job == copyKind {
		return tasks{{kind: copyKind, what: copyKind, want: set}}, nil
	}
	var out tasks
	for _, t := range transforms() {
		name := fmt.Sprintf("strike-%d-%s", os.Getpid(), t.module)
		if !slices.Contains(h.transforms, name) {
			code, err := os.ReadFile(filepath.Join(h.o.modules, t.module+".wasm"))
			if err != nil {
				return nil, cannotf("no module for --job %s: %w; --modules names the directory", etlKind, err)
			}
			if _, err := h.api.PutTransform(ctx, api.Transform{Name: name, Type: "wasm", Code: code}); err != nil {
				return nil, fmt.Errorf("register %s: %w", name, err)
			}
			h.transforms = append(h.transforms, name)
		}
		args := map[string]string{"transform": name}
		for k, v := range t.args {
			args["arg."+k] = v
		}
		out = append(out, task{etlKind, args, etlKind + " " + t.module, set.through(t.rule)})
	}
	return out, nil
}

// removeTransforms removes those that were registered, in a cluster that stays.
func (h *harness) removeTransforms(ctx context.Context) error {
	for _, name := range h.transforms {
		if err := h.api.DeleteTransform(ctx, name); err != nil {
			return fmt.Errorf("remove transform %s: %w", name, err)
		}
	}
	h.transforms = nil
	return nil
}

// through is what a transform makes of the objects of the set.
func (d *dataSet) through(rule func([]byte) ([]byte, bool)) *dataSet {
	out := &dataSet{seed: d.seed, sizes: map[string]int64{}, objects: map[string]object{}}
	for _, name := range d.names {
		b, kept := rule(content(d.seed, name, d.sizes[name]))
		if !kept {
			continue
		}
		out.names = append(out.names, name)
		out.sizes[name] = int64(len(b))
		out.objects[name] = object{int64(len(b)), sha256.Sum256(b)}
	}
	return out
}

// books are those of the job when it is over: what it was about, what of that has
// an output, what is dropped, and the outputs.
func (t *task) books(set *dataSet) (planned, done, dropped, outputs api.Amount) {
	for _, name := range set.names {
		one := api.Amount{Objects: 1, Bytes: set.sizes[name]}
		planned = planned.Add(one)
		if _, kept := t.want.sizes[name]; kept {
			done = done.Add(one)
		} else {
			dropped = dropped.Add(one)
		}
	}
	return planned, done, dropped, t.want.amount()
}
