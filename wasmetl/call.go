package wasmetl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/sys"

	"github.com/shoalstore/shoal/core"
)

// Classes of failures.
const (
	classTrap    = "trap"
	classExit    = "exit"
	classError   = "error"
	classTimeout = "timeout"
	classStalled = "stalled"
	classOutput  = "output-limit"
	classStack   = "stack"
	className    = "name"
)

func failure(class string, code int32, format string, args ...any) *core.TransformFailure {
	return &core.TransformFailure{Class: class, Code: code, Message: fmt.Sprintf(format, args...)}
}

// exitDrop is the exit code of a command that wants no output.
const exitDrop = 77

const (
	bufferSize  = 64 << 10 // of output
	smallBuffer = 4 << 10
	timeSlice   = 10 * time.Millisecond
)

// errEnded is what host functions panic with to end a guest.
var errEnded = errors.New("ended by the host")

// call is a transform of one object: what host functions work on. Its methods
// are called by the goroutine that runs the guest, except for abort.
type call struct {
	host *Host
	t    *transform
	core.TransformCall
	args map[string]string

	ctx    context.Context // of this call: ends with its time
	cancel context.CancelCauseFunc
	// cause is why the host ended the guest, said what the guest gave as its error.
	cause error
	said  *core.TransformFailure

	started bool // the object's turn, not the initialization's
	dropped bool
	log     tail
	source  *source

	out       *output
	buffer    *[bufferSize]byte // of the outputs, if it came from the pool
	outputs   int
	emitted   int
	bytesIn   int64
	bytesOut  int64
	outLimit  int64
	since     time.Time // when it got its turn to run
	cpu       time.Duration
	queued    time.Duration
	memory    int64
	reserved  int64 // of the ledger
	reused    bool
	mu        sync.Mutex // guards what abort uses
	open      core.TransformOutput
	aborted   bool
	abortedBy error
}

// check ends the guest if its time is over.
func (c *call) check() {
	if c.ctx.Err() != nil {
		c.end(context.Cause(c.ctx))
	}
}

// end ends the guest, from within a host function.
func (c *call) end(cause error) {
	if c.cause == nil {
		c.cause = cause
	}
	panic(errEnded)
}

func (c *call) fail(class string, code int32, format string, args ...any) {
	c.end(failure(class, code, format, args...))
}

// poll is called by metered code every so many steps. A guest that has run for a
// while lets others run.
func (c *call) poll() {
	c.check()
	now := c.host.clock.Now()
	if now.Sub(c.since) < timeSlice || !c.host.turns.contended() {
		return
	}
	c.leave()
	c.enter(classOf(c.Job, false))
}

// leave gives up the turn to run, enter takes one again.
func (c *call) leave() {
	c.cpu += c.host.clock.Now().Sub(c.since)
	c.host.turns.release(1, c.Job)
}

func (c *call) enter(class class) {
	// Who has begun goes on to its end, be it only to be ended: this does not fail.
	_ = c.host.turns.acquire(context.WithoutCancel(c.ctx), 1, class, true)
	c.since = c.host.clock.Now()
}

// waiting does something that may take long, without a turn to run.
func (c *call) waiting(do func(ctx context.Context)) {
	c.leave()
	c.unlessStalled(do)
	c.enter(classOf(c.Job, true))
	c.check()
}

// unlessStalled does something that may take long. If it takes longer than a
// stall, the call ends.
func (c *call) unlessStalled(do func(ctx context.Context)) {
	ctx, done := context.WithTimeout(c.ctx, c.host.stall)
	defer done()
	stop := context.AfterFunc(ctx, c.stalled)
	do(ctx)
	if !stop() && ctx.Err() != nil {
		c.stalled()
	}
}

// stalled ends the call, unless that has been done.
func (c *call) stalled() {
	c.cancel(failure(classStalled, 0, "neither the source nor the output moved for %v", c.host.stall))
}

// read gives the guest the next bytes, 0 at the end.
func (c *call) read(p []byte) int {
	n, err := c.source.read(c, p)
	if err != nil && !errors.Is(err, io.EOF) {
		c.check() // closing the source makes it fail
		c.end(fmt.Errorf("read the object: %w", err))
	}
	c.bytesIn += int64(n)
	return n
}

// output is what the guest writes at the moment.
type output struct {
	info   core.TransformOutputInfo
	meta   int // bytes of info.Meta
	buffer []byte
	begun  bool
	sink   core.TransformOutput
}

// write takes the guest's bytes, all of them: else the guest is ended.
func (c *call) write(p []byte) {
	if len(p) == 0 {
		return
	}
	if c.bytesOut += int64(len(p)); c.bytesOut > c.outLimit {
		c.fail(classOutput, 0, "more than %d bytes of output", c.outLimit)
	}
	o := c.out
	o.begun = true
	if need := len(o.buffer) + len(p); need <= bufferSize {
		if need > cap(o.buffer) {
			o.buffer = c.grown(o.buffer, need)
		}
		o.buffer = append(o.buffer, p...)
		return
	}
	c.waiting(func(ctx context.Context) {
		if err := c.flush(ctx, o, p); err != nil {
			c.cancel(fmt.Errorf("write the result: %w", err))
		}
	})
}

// grown gives an output's buffer that many bytes: a small one of its own, then a
// whole one, which goes back to its pool at the end of the call.
func (c *call) grown(b []byte, need int) []byte {
	if need <= smallBuffer {
		return append(make([]byte, 0, need+min(need, smallBuffer-need)), b...)
	}
	c.buffer, _ = c.host.buffers.Get().(*[bufferSize]byte)
	if c.buffer == nil {
		c.buffer = new([bufferSize]byte)
	}
	return append(c.buffer[:0], b...)
}

// flush writes what is buffered, and more. It opens the output if need be.
func (c *call) flush(ctx context.Context, o *output, more []byte) error {
	if o.sink == nil {
		sink, err := c.Output(ctx, o.info)
		if err != nil {
			return err
		}
		o.sink = sink
		c.outputs++
		if !c.opened(sink) {
			return c.abortedBy
		}
	}
	for _, p := range [][]byte{o.buffer, more} {
		if len(p) == 0 {
			continue
		}
		if _, err := o.sink.Write(p); err != nil {
			return err
		}
	}
	o.buffer = o.buffer[:0]
	return nil
}

// finish completes the current output.
func (c *call) finish(ctx context.Context) error {
	if err := c.flush(ctx, c.out, nil); err != nil {
		return fmt.Errorf("write the result: %w", err)
	}
	if err := c.out.sink.Close(); err != nil {
		return fmt.Errorf("complete the result: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.open = nil
	return nil
}

// opened makes an output known to abort. It says false if that was before.
func (c *call) opened(sink core.TransformOutput) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.aborted {
		sink.Abort(c.abortedBy)
		return false
	}
	c.open = sink
	return true
}

// abort closes both ends, so that nobody waits for them any more. It may be
// called by any goroutine, and again.
func (c *call) abort(cause error) {
	c.mu.Lock()
	if c.aborted {
		c.mu.Unlock()
		return
	}
	c.aborted, c.abortedBy = true, cause
	sink := c.open
	c.open = nil
	c.mu.Unlock()
	if sink != nil {
		sink.Abort(cause)
	}
	c.source.close()
}

// emit begins a further output.
func (c *call) emit(name string) int32 {
	if c.dropped {
		return codeInvalid
	}
	if c.emitted++; c.emitted > c.host.maxOutputs {
		c.fail(classOutput, 0, "more than %d outputs", c.host.maxOutputs)
	}
	if c.out.begun || c.out.info.Name != "" {
		c.waiting(func(ctx context.Context) {
			if err := c.finish(ctx); err != nil {
				c.cancel(err)
			}
		})
	}
	c.out = &output{info: core.TransformOutputInfo{Name: name}, buffer: c.out.buffer[:0]}
	return 0
}

// drop says that there is to be no output.
func (c *call) drop() int32 {
	if c.out.begun || c.emitted > 0 {
		return codeInvalid
	}
	c.dropped = true
	return 0
}

// get is what the guest may know.
func (c *call) get(key string) (string, bool) {
	switch key {
	case "name":
		return c.Object.Key, true
	case "bucket":
		return c.Object.Bucket, true
	case "size":
		return strconv.FormatInt(c.Object.Size, 10), c.Object.Size >= 0
	case "content-type":
		return c.Object.ContentType, true
	case "etag":
		return c.Object.ETag, true
	case "member":
		return c.Object.Member, c.Object.Member != ""
	}
	if name, ok := strings.CutPrefix(key, "arg:"); ok {
		v, ok := c.args[name]
		return v, ok
	}
	if name, ok := strings.CutPrefix(key, "meta:"); ok {
		v, ok := c.Object.Meta[name]
		return v, ok
	}
	return "", false
}

// set says something of the current output.
func (c *call) set(key, value string) int32 {
	o := c.out
	if o.begun || c.dropped || strings.ContainsAny(value, "\r\n\x00") {
		return codeInvalid
	}
	name, isMeta := strings.CutPrefix(key, "meta:")
	switch {
	case key == "content-type":
		o.info.ContentType = value
	case key == "ext":
		if strings.ContainsAny(value, "/\\") || path.Clean(value) != value {
			return codeInvalid
		}
		o.info.Ext = strings.TrimPrefix(value, ".")
	case isMeta && name != "" && !strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == ':' }):
		if o.meta += len(name) + len(value); o.meta > maxMeta {
			return codeLimit
		}
		if o.info.Meta == nil {
			o.info.Meta = map[string]string{}
		}
		o.info.Meta[name] = value
	default:
		return codeNoSuchKey
	}
	return 0
}

// environment is what a WASI command gets beside the transform's own variables.
func (c *call) environment() map[string]string {
	env := maps.Clone(c.t.spec.Env)
	if env == nil {
		env = map[string]string{}
	}
	size := ""
	if c.Object.Size >= 0 {
		size = strconv.FormatInt(c.Object.Size, 10)
	}
	for k, v := range map[string]string{
		"SHOAL_BUCKET": c.Object.Bucket, "SHOAL_OBJECT": c.Object.Key, "SHOAL_SIZE": size,
		"SHOAL_CONTENT_TYPE": c.Object.ContentType, "SHOAL_ETAG": c.Object.ETag, "SHOAL_MEMBER": c.Object.Member,
	} {
		env[k] = strings.ReplaceAll(v, "\x00", "")
	}
	return env
}

func sortedKeys(m map[string]string) []string { return slices.Sorted(maps.Keys(m)) }

// guest runs the guest to its end, and says how that was: nil, a failure, or an
// error that is not the guest's.
func (c *call) guest(in *instance) error {
	c.started = true
	name := "_start"
	if c.t.module.report.ABI == ShoalV1 {
		name = "shoal_transform"
	}
	// A function object has the guest's stack. With a new one for each call, one
	// that grew is not kept by the pool.
	results, err := in.mod.ExportedFunction(name).Call(guestContext{c.ctx, in})
	if err != nil {
		return c.explain(err)
	}
	if c.said != nil {
		return c.said
	}
	if len(results) > 0 && api.DecodeI32(results[0]) != 0 {
		code := api.DecodeI32(results[0])
		return failure(classError, code, "shoal_transform returned %d%s", code, c.log.lastLine())
	}
	return nil
}

// explain says what an error of wazero means.
func (c *call) explain(err error) error {
	var exit *sys.ExitError
	var own *core.TransformFailure
	switch {
	case c.cause != nil:
		return c.cause
	case c.ctx.Err() != nil && errors.Is(err, errEnded):
		return context.Cause(c.ctx)
	case errors.As(err, &own):
		return own
	case errors.Is(err, core.ErrUnavailable):
		return err
	case errors.As(err, &exit):
		switch code := exit.ExitCode(); code {
		case 0:
			if c.said != nil {
				return c.said
			}
			return nil
		case exitDrop:
			c.dropped = true
			return nil
		default:
			return failure(classExit, int32(code), "exit code %d%s", code, c.log.lastLine())
		}
	}
	message, _, _ := strings.Cut(err.Error(), " (recovered by wazero)")
	if len(message) > maxMessage {
		message = message[:maxMessage]
	}
	if strings.Contains(message, "stack overflow") {
		first, _, _ := strings.Cut(message, "\n")
		return failure(classStack, 0, "%s", first)
	}
	return failure(classTrap, 0, "%s", message)
}
