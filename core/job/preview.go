package job

import (
	"context"
	"fmt"
	"time"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/engine"
)

const (
	// previewHead is how much of an object's first output a preview shows, and
	// previewOutputs how many outputs it names.
	previewHead    = 256
	previewOutputs = 100
	// previewTime bounds a preview: somebody waits for it.
	previewTime = time.Minute
)

// PreviewObject is what a transform would make of an object.
type PreviewObject struct {
	Key  string
	Size int64 // of the source, -1 if it is not known
	// Outputs are named as they would be written; More were not listed.
	Outputs []PreviewOutput
	More    int
	Head    []byte // the beginning of the first output
	Dropped bool
	// Why says why there would be no output, or not all.
	Why Error
}

// PreviewOutput is an object that would be written.
type PreviewOutput struct {
	Key         string
	Size        int64
	ContentType string
}

// Preview runs the transform of a job on the first objects that the job would be
// about, so many at the most, and writes nothing. more says that there are others. What
// it reads of a remote becomes present, as with every read.
func (m *Manager) Preview(ctx context.Context, s Spec, most int) (out []PreviewObject, more bool, err error) {
	s.DryRun = true
	if err := m.prepare(ctx, &s); err != nil {
		return nil, false, err
	}
	if s.Kind != KindETL || m.o.Transforms == nil {
		return nil, false, fmt.Errorf("a preview is of a job that transforms, not of %s: %w", s.Kind, core.ErrInvalid)
	}
	from := m.o.Node.Map().Bucket(s.FromID)
	if from == nil {
		return nil, false, fmt.Errorf("bucket %s: %w", s.From, core.ErrNoSuchBucket)
	}
	items, err := m.firstItems(ctx, &s, *from, most+1)
	if err != nil {
		return nil, false, err
	}
	if more = len(items) > most; more {
		items = items[:most]
	}
	p, err := m.o.Transforms.Pin(ctx, s.Transform)
	if err != nil {
		return nil, false, err
	}
	defer p.Release(ctx)
	ctx, cancel := context.WithTimeoutCause(ctx, previewTime, fmt.Errorf("a preview takes %v at the most: %w", previewTime, core.ErrUnavailable))
	defer cancel()
	for i := range items {
		out = append(out, m.previewOne(ctx, &s, *from, &items[i], p))
	}
	return out, more, nil
}

// firstItems lists the first objects that a job would be about.
func (m *Manager) firstItems(ctx context.Context, s *Spec, from core.Bucket, most int) ([]item, error) {
	sel, err := newSelector(s)
	if err != nil {
		return nil, err
	}
	if !s.listed() {
		return m.firstPresent(ctx, s, sel, from, most)
	}
	if sel.keys != nil {
		var items []item
		for _, key := range sel.keys {
			if len(items) < most && sel.takes(key) {
				items = append(items, item{Key: key, Size: -1})
			}
		}
		return items, nil
	}
	page, err := m.o.Node.CanList(from)
	if err != nil {
		return nil, err
	}
	if page <= 0 {
		page = pageSize
	}
	var items []item
	for after := ""; ; {
		l, err := m.o.Node.ListSource(ctx, from, core.RemoteListOptions{Prefix: s.Prefix, After: after, Max: min(page, pageSize)})
		if err != nil {
			return nil, fmt.Errorf("listing %s behind %q: %w", from.Name, after, err)
		}
		for i := range l.Objects {
			o := &l.Objects[i]
			if !sel.takes(o.Key) {
				continue
			}
			if items = append(items, item{Key: o.Key, Size: o.Size, Version: o.Version}); len(items) == most {
				return items, nil
			}
		}
		if after = l.Next; !l.More {
			return items, nil
		}
	}
}

// firstPresent lists what the cluster has.
func (m *Manager) firstPresent(ctx context.Context, s *Spec, sel *selector, from core.Bucket, most int) (items []item, err error) {
	prefixes := []string{s.Prefix}
	if sel.keys != nil {
		prefixes = sel.keys
	}
	for _, prefix := range prefixes {
		m.o.Node.ListAll(ctx, from, prefix, "", false, func(key string, rec *core.Record, e error) bool {
			if err = e; e != nil || sel.keys != nil && key != prefix {
				return false
			}
			if sel.takes(key) && s.about(rec) {
				it := item{Key: key, Size: rec.Size}
				if rec.Remote != nil {
					it.Version = rec.Remote.Version
				}
				items = append(items, it)
			}
			return len(items) < most && sel.keys == nil
		})
		if err != nil || len(items) == most {
			return items, err
		}
	}
	return items, nil
}

func (m *Manager) previewOne(ctx context.Context, s *Spec, from core.Bucket, it *item, p core.TransformRunner) PreviewObject {
	out := PreviewObject{Key: it.Key, Size: it.Size}
	t := &engine.TransformTask{
		CopyTask: engine.CopyTask{From: from, Key: it.Key, ToKey: s.destKey(it.Key)},
		Run:      previewRunner{p, &out, s}, Inspect: true,
		KeyOf: func(ext string) string { return s.destKeyAs(it.Key, ext) },
	}
	var made engine.TransformedObject
	err := m.previewVersion(ctx, s, from, it)
	if err == nil {
		if from.Name.Remote() {
			t.Source = string(it.Version)
		}
		made, err = m.o.Node.TransformObject(ctx, t)
	}
	if err == nil && made.End == engine.Copied {
		return out
	}
	out.Outputs, out.More, out.Head = nil, 0, nil
	switch {
	case err != nil:
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		out.Why = Error{Code: codeOf(err), Message: err.Error()}
	case made.End == engine.TransformDropped:
		out.Dropped = true
	case made.End == engine.TransformRefused:
		out.Why = refusal(made.Failure, made.Log)
	default:
		out.Why = Error{Code: codeSkipped, Message: made.Why}
	}
	out.Why.Key = it.Key
	out.Why.Message = shortened(out.Why.Message)
	return out
}

// previewVersion asks a remote what it has now, if the job does.
func (m *Manager) previewVersion(ctx context.Context, s *Spec, from core.Bucket, it *item) error {
	if !s.asks() || s.listed() && it.Version != "" {
		return nil
	}
	info, err := m.o.Node.Objects().Head(ctx, from, it.Key, core.GetOptions{Latest: true})
	if err != nil {
		return err
	}
	it.Size = info.Size
	if info.Remote != nil {
		it.Version = info.Remote.Version
	}
	return nil
}

// previewRunner looks at what a transform writes.
type previewRunner struct {
	core.TransformRunner
	out *PreviewObject
	s   *Spec
}

// RunTransform is part of core.TransformRunner.
func (r previewRunner) RunTransform(ctx context.Context, c core.TransformCall) (core.TransformResult, error) {
	if c.Object.Size >= 0 {
		r.out.Size = c.Object.Size
	}
	open := c.Output
	c.Output = func(ctx context.Context, info core.TransformOutputInfo) (core.TransformOutput, error) {
		o, err := open(ctx, info)
		if err != nil {
			return nil, err
		}
		key := r.s.destKey(r.out.Key)
		switch {
		case info.Name != "":
			key += "/" + info.Name
		case info.Ext != "":
			key = r.s.destKeyAs(r.out.Key, info.Ext)
		}
		if len(r.out.Outputs) == previewOutputs {
			r.out.More++
			return o, nil
		}
		r.out.Outputs = append(r.out.Outputs, PreviewOutput{Key: key, ContentType: info.ContentType})
		return &previewed{o, r.out, len(r.out.Outputs) - 1}, nil
	}
	return r.TransformRunner.RunTransform(ctx, c)
}

// previewed is an output that is looked at.
type previewed struct {
	core.TransformOutput
	out *PreviewObject
	i   int
}

// Write is part of core.TransformOutput.
func (p *previewed) Write(b []byte) (int, error) {
	n, err := p.TransformOutput.Write(b)
	p.out.Outputs[p.i].Size += int64(n)
	if room := previewHead - len(p.out.Head); p.i == 0 && room > 0 {
		p.out.Head = append(p.out.Head, b[:min(n, room)]...)
	}
	return n, err
}
