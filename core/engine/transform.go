package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"strconv"
	"strings"
	"sync"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/shardio"
)

const (
	// transformWhole is the size up to which an object is read before its transform
	// begins, and an output kept until it is complete, in bytes.
	transformWhole = 256 << 10
	// transformInline is what the outputs of one object may take of the node's memory
	// as data of records, in bytes; the others go to disks, however small.
	transformInline = 8 << 20
)

// TransformTask is one object of a job that transforms. Its Transform names code
// and settings.
type TransformTask struct {
	CopyTask
	Run core.TransformRunner
	// KeyOf is the destination's key where the transform names an extension.
	// What it emits goes below the object's own destination: ToKey/NAME.
	KeyOf func(ext string) string
	// Inspect runs the transform and writes nothing.
	Inspect bool
}

// Further ends, of transforms.
const (
	TransformDropped CopyEnd = iota + CopySkipped + 1 // nothing is to be written
	TransformRefused                                  // by the transform, see the failure
)

// TransformedObject is what came of an object.
type TransformedObject struct {
	End CopyEnd
	// Why says why nothing, or not everything, was written.
	Why string
	// Failure and Log are the transform's, of [TransformRefused].
	Failure *core.TransformFailure
	Log     string
	// Outputs and Bytes were written, now or before.
	Outputs, Bytes int64
}

// TransformObject passes one object through a transform for a job, with the same
// promises as [Node.CopyObject]: an output that carries this job's tuple is done
// already, so of several attempts the first that wrote it stands. Nothing is written
// before the transform has ended well; its outputs are then written one after the
// other, the object's own last.
func (n *Node) TransformObject(ctx context.Context, t *TransformTask) (TransformedObject, error) {
	const tries = 10
	for i := 0; ; i++ {
		out, err := n.transformOnce(ctx, t)
		if !errors.Is(err, core.ErrConflict) || i == tries {
			return out, err
		}
	}
}

func (n *Node) transformOnce(ctx context.Context, t *TransformTask) (TransformedObject, error) {
	var there *destination
	if !t.Inspect && !t.To.Name.Remote() {
		var err error
		if there, err = n.destination(ctx, t, t.ToKey); err != nil {
			return TransformedObject{}, err
		}
		if done := there.done(t); done != nil {
			return *done, nil
		}
	}
	reading, cancel := context.WithCancel(ctx)
	defer cancel()
	src, why, err := n.openListed(reading, &t.From, t.Key, t.Source)
	if err != nil {
		return TransformedObject{}, err
	}
	if why != "" {
		return TransformedObject{End: CopySkipped, Why: why}, nil
	}
	outs := &transformOutputs{n: n, t: t, src: src, before: there, room: transformInline, ctx: ctx}
	call := core.TransformCall{Object: objectOf(&t.From, src), Job: true, Output: outs.open}
	if src.Length <= transformWhole {
		data := n.buffers.Get(int(src.Length))
		defer n.buffers.Put(data)
		call.Data = data.B
		_, err := io.ReadFull(src.Body, call.Data)
		if err = errors.Join(err, src.Body.Close()); err != nil {
			return TransformedObject{}, fmt.Errorf("data of %q: %w", t.Key, err)
		}
	} else {
		call.Body = core.StoppableBody(src.Body, cancel)
	}
	res, err := t.Run.RunTransform(ctx, call)
	outs.wait()
	if err != nil || res.Outcome != core.TransformDone {
		outs.discard(0)
	}
	switch {
	case err != nil:
		return TransformedObject{}, err
	case res.Outcome == core.TransformDropped:
		return TransformedObject{End: TransformDropped}, nil
	case res.Outcome != core.TransformDone:
		return TransformedObject{End: TransformRefused, Failure: res.Failure, Log: res.Log}, nil
	}
	return outs.commit(ctx)
}

// objectOf is what a transform is told of an object.
func objectOf(b *core.Bucket, o *core.Object) core.TransformObject {
	meta := maps.Clone(o.Meta)
	delete(meta, originMeta)
	return core.TransformObject{
		Bucket: b.Name.Name, Key: o.Key, Size: o.Length, ContentType: o.Headers["Content-Type"], ETag: o.ETag, Meta: meta,
	}
}

// mainOrigin is the tuple of an object's own output, which is written last. It says
// how much was written in all, so that who finds it knows without doing it again.
func (t *TransformTask) mainOrigin(outputs, bytes int64) core.Origin {
	o := t.origin()
	o.Transform += fmt.Sprintf(";%d;%d", outputs, bytes)
	return o
}

// wrote says whether a record's tuple is this task's, and what the record says of
// all outputs.
func (t *TransformTask) wrote(o core.Origin) (outputs, bytes int64, ok bool) {
	own := t.origin()
	rest, same := strings.CutPrefix(o.Transform, own.Transform)
	o.Transform = own.Transform
	if !same || o != own {
		return 0, 0, false
	}
	counts := strings.Split(rest, ";")
	if len(counts) != 3 || counts[0] != "" {
		return 0, 0, rest == ""
	}
	outputs, err1 := strconv.ParseInt(counts[1], 10, 64)
	bytes, err2 := strconv.ParseInt(counts[2], 10, 64)
	return outputs, bytes, err1 == nil && err2 == nil
}

// destination is what a key of the destination had when it was asked.
type destination struct {
	key string
	rec *core.Record // nil if there is none
	row core.Row
}

// destination asks what a key of the destination has.
func (n *Node) destination(ctx context.Context, t *TransformTask, key string) (*destination, error) {
	rec, row, err := n.record(ctx, t.To.ID, key)
	if err != nil && !errors.Is(err, core.ErrNotFound) {
		return nil, err
	}
	return &destination{key, rec, row}, nil
}

// done returns what this job made of the object already, nil if its own output is
// not there. A remote's object, which is not asked here, does not say how many others
// there are: then the transform runs again, and each output is found.
func (d *destination) done(t *TransformTask) *TransformedObject {
	if d.rec == nil {
		return nil
	}
	outputs, bytes, ok := t.wrote(d.rec.Origin)
	if !ok || outputs == 0 {
		return nil
	}
	return &TransformedObject{End: CopiedSoFar, Outputs: outputs, Bytes: bytes}
}

// transformOutputs are the outputs of one object.
type transformOutputs struct {
	n    *Node
	ctx  context.Context // of the attempt
	t    *TransformTask
	src  *core.Object
	all  []*transformOutput
	keys map[string]bool
	// before is what the object's own key had when the transform began. Who writes
	// it meanwhile makes the commit fail, and the next attempt sees it.
	before *destination
	room   int64 // left of transformInline
}

// open is core.TransformCall.Output. Its context may end with the call, which is
// not the end of the output.
func (o *transformOutputs) open(_ context.Context, info core.TransformOutputInfo) (core.TransformOutput, error) {
	key := o.t.ToKey
	switch {
	case info.Name != "":
		key += "/" + info.Name
	case info.Ext != "" && o.t.KeyOf != nil:
		key = o.t.KeyOf(info.Ext)
	}
	if err := core.ValidateKey(key); err != nil {
		return nil, err
	}
	if o.keys[key] {
		return nil, fmt.Errorf("the transform made two objects of the name %q: %w", key, core.ErrInvalid)
	}
	if o.keys == nil {
		o.keys = map[string]bool{}
	}
	o.keys[key] = true
	out := &transformOutput{o: o, info: info, key: key, done: make(chan struct{})}
	out.ctx, out.cancel = context.WithCancelCause(o.ctx)
	o.all = append(o.all, out)
	return out, nil
}

// wait returns when nothing is being stored any more.
func (o *transformOutputs) wait() {
	for _, out := range o.all {
		if out.w != nil {
			<-out.done
		}
		out.free()
		out.cancel(nil)
	}
}

// discard gives up what was stored of the outputs from the i-th on.
func (o *transformOutputs) discard(i int) {
	for _, out := range o.all[i:] {
		if out.st != nil {
			o.n.garbage.discard(&out.st.rec)
		}
	}
}

// commit writes the records of all outputs.
func (o *transformOutputs) commit(ctx context.Context) (TransformedObject, error) {
	var sum TransformedObject
	ordered := make([]*transformOutput, 0, len(o.all))
	var main *transformOutput
	for _, out := range o.all {
		if out.info.Name == "" {
			main = out
		} else {
			ordered = append(ordered, out)
		}
	}
	if main != nil {
		ordered = append(ordered, main)
	}
	o.all = ordered
	for i, out := range ordered {
		if o.t.Inspect {
			sum.Outputs++
			sum.Bytes += out.size
			continue
		}
		end, size, why, err := o.commitOne(ctx, out, &sum)
		if err != nil {
			o.discard(i + 1)
			return TransformedObject{}, err
		}
		if why != "" {
			sum.End, sum.Why = CopySkipped, why
			continue
		}
		if end == CopiedSoFar && out == main && sum.End == Copied {
			sum.End = CopiedSoFar
		}
		sum.Outputs++
		sum.Bytes += size
	}
	return sum, nil
}

// record completes what is written of an output: the object's own has the source's
// metadata, but for what the transform says.
func (o *transformOutputs) record(out *transformOutput) core.Record {
	rec := core.Record{ETag: out.st.rec.ETag, Checksum: out.st.rec.Checksum}
	if out.info.Name == "" {
		rec.Headers, rec.Meta, rec.Tags = maps.Clone(o.src.Headers), maps.Clone(o.src.Meta), maps.Clone(o.src.Tags)
		delete(rec.Meta, originMeta)
	}
	if typ := out.info.ContentType; typ != "" {
		if rec.Headers == nil {
			rec.Headers = map[string]string{}
		}
		rec.Headers["Content-Type"] = typ
	}
	if len(out.info.Meta) > 0 {
		if rec.Meta == nil {
			rec.Meta = map[string]string{}
		}
		maps.Copy(rec.Meta, out.info.Meta)
	}
	return rec
}

// commitOne writes the record of one output, unless it is there, or somebody else's.
func (o *transformOutputs) commitOne(ctx context.Context, out *transformOutput, sum *TransformedObject) (CopyEnd, int64, string, error) {
	if o.t.To.Name.Remote() {
		return o.commitRemote(ctx, out)
	}
	n, t := o.n, o.t
	there := o.before
	if there == nil || there.key != out.key {
		var err error
		if there, err = n.destination(ctx, t, out.key); err != nil {
			o.drop(out)
			return 0, 0, "", err
		}
	}
	if have := there.rec; have != nil {
		_, _, mine := t.wrote(have.Origin)
		switch {
		case mine:
			o.drop(out)
			return CopiedSoFar, have.Size, "", nil
		case have.Modified.After(t.Started) && have.Origin.Job != t.Job:
			o.drop(out)
			return CopySkipped, 0, copyForeign, nil
		}
	}
	st, as := out.st, o.record(out)
	st.rec.Headers, st.rec.Meta, st.rec.Tags = as.Headers, as.Meta, as.Tags
	st.rec.Origin = t.origin()
	if out.info.Name == "" {
		st.rec.Origin = t.mainOrigin(sum.Outputs+1, sum.Bytes+st.rec.Size)
	}
	st.rec.Modified = n.clock.Now().UTC()
	m := n.mutation(&t.To, out.key, core.NewRequestID())
	m.checks = []check{{kind: checkVersion, row: objectKey(t.To.ID, out.key), version: there.row.Version}}
	made, err := n.writeObject(ctx, &t.To, out.key, st, m)
	return Copied, made.Size, "", err
}

// drop gives up what was stored of an output.
func (o *transformOutputs) drop(out *transformOutput) {
	o.n.garbage.discard(&out.st.rec)
	out.st = nil
}

// commitRemote writes an output through to a remote, which is asked first what it has:
// a condition that fails costs another run of the transform.
func (o *transformOutputs) commitRemote(ctx context.Context, out *transformOutput) (CopyEnd, int64, string, error) {
	n, t := o.n, o.t
	b, err := n.remote(&t.To)
	if err != nil {
		o.drop(out)
		return 0, 0, "", err
	}
	cond := core.Conditions{IfNoneMatch: []string{"*"}}
	have, err := b.head(ctx, out.key)
	switch {
	case errors.Is(err, core.ErrNotFound):
	case err != nil:
		o.drop(out)
		return 0, 0, "", err
	case have.Meta[originMeta] == originMark(t.origin()):
		o.drop(out)
		return CopiedSoFar, have.Size, "", nil
	case have.Modified.After(t.Started) && !strings.HasPrefix(have.Meta[originMeta], t.Job+":"):
		o.drop(out)
		return CopySkipped, 0, copyForeign, nil
	default:
		cond = core.Conditions{IfMatch: []string{have.ETag}}
	}
	as := o.record(out)
	made, err := n.copyThrough(ctx, &t.To, out.key, out.st, &as, &core.CopyOptions{Put: core.PutOptions{Conditions: cond, Origin: t.origin()}})
	if errors.Is(err, core.ErrPrecondition) || errors.Is(err, core.ErrNotFound) || errors.Is(err, core.ErrUnknownOutcome) {
		err = fmt.Errorf("%w: %w", core.ErrConflict, err)
	}
	return Copied, made.Size, "", err
}

// transformOutput stores what a transform writes: small outputs when they are
// complete, others as they come.
type transformOutput struct {
	o      *transformOutputs
	info   core.TransformOutputInfo
	key    string
	ctx    context.Context // of storing; Abort ends it
	cancel context.CancelCauseFunc
	size   int64
	buf    *shardio.Buffer // nil if nothing is there

	w    *io.PipeWriter // nil as long as buf has everything
	done chan struct{}  // closed once w's reader has ended
	st   *stored
	err  error

	mu      sync.Mutex
	aborted error
	pipe    *io.PipeWriter // w, for Abort
}

// Write is part of core.TransformOutput.
func (w *transformOutput) Write(p []byte) (int, error) {
	w.size += int64(len(p))
	if w.o.t.Inspect {
		return len(p), context.Cause(w.ctx)
	}
	if w.w == nil {
		if w.size <= transformWhole {
			w.keep(p)
			return len(p), context.Cause(w.ctx)
		}
		if err := w.stream(); err != nil {
			return 0, err
		}
	}
	return w.w.Write(p)
}

// stream begins to store what is not complete.
func (w *transformOutput) stream() error {
	pr, pw := io.Pipe()
	w.mu.Lock()
	w.pipe = pw
	aborted := w.aborted
	w.mu.Unlock()
	if aborted != nil {
		return aborted
	}
	w.w = pw
	go func() {
		defer close(w.done)
		w.st, w.err = w.store(pr, -1)
		pr.CloseWithError(w.err) // nil is a closed pipe: who writes on is told
	}()
	_, err := pw.Write(w.kept())
	w.free()
	return err
}

// keep adds to what is kept.
func (w *transformOutput) keep(p []byte) {
	n := len(w.kept())
	if w.buf == nil || n+len(p) > cap(w.buf.B) {
		larger := w.o.n.buffers.Get(max(n+len(p), min(2*n, transformWhole)))
		copy(larger.B, w.kept())
		w.free()
		w.buf = larger
	}
	w.buf.B = append(w.buf.B[:n], p...)
}

func (w *transformOutput) kept() []byte {
	if w.buf == nil {
		return nil
	}
	return w.buf.B
}

// free gives back what keeps the output.
func (w *transformOutput) free() {
	w.o.n.buffers.Put(w.buf)
	w.buf = nil
}

func (w *transformOutput) store(src io.Reader, size int64) (*stored, error) {
	t := w.o.t
	inline := min(t.To.Policy.Inline, w.o.room)
	dst := &t.To
	if t.To.Name.Remote() {
		dst = plainETag(&t.To)
	}
	return w.o.n.store(w.ctx, dst, w.key, src, &core.PutOptions{Size: size}, inline)
}

// Close is part of core.TransformOutput. It returns when all is stored.
func (w *transformOutput) Close() error {
	switch {
	case w.o.t.Inspect:
		return context.Cause(w.ctx)
	case w.w == nil:
		w.st, w.err = w.store(newMemoryReader(w.kept()), int64(len(w.kept())))
		w.free()
	default:
		if err := w.w.Close(); err != nil {
			return err
		}
		<-w.done
	}
	if w.err == nil && len(w.st.rec.Extents) == 0 {
		w.o.room -= w.st.rec.Size
	}
	return w.err
}

// Abort is part of core.TransformOutput.
func (w *transformOutput) Abort(cause error) {
	if cause == nil {
		cause = context.Canceled
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.aborted = cause
	w.cancel(cause)
	if w.pipe != nil {
		_ = w.pipe.CloseWithError(cause) // it never fails
	}
}
