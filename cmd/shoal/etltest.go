package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/shoalstore/shoal/cmd/shoal/internal/nodeserver"
	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/wasmetl"
)

// etlTestFlags are the flags of a run without a cluster.
type etlTestFlags struct {
	*options
	in      string
	args    []string
	env     []string
	memory  sizeFlag
	timeout durationFlag
}

func newEtlTestCommand(o *options) *cobra.Command {
	t := etlTestFlags{options: o}
	cmd := &cobra.Command{
		Use: "test FILE --in SAMPLE", Short: "Run a transform here, without a cluster",
		Long: `The module is checked, compiled and run as a node would, on a file or on standard input (-). The result goes to
standard output; further outputs are named on standard error, as is the log. With --json what came of it is printed
instead of the result.`,
		Example: "  shoal etl test upper.wasm --in sample.txt\n  cat a.csv | shoal etl test csv.wasm --in - --arg delimiter=';'",
		Args:    exactly(1),
		RunE:    func(cmd *cobra.Command, args []string) error { return t.run(cmd.Context(), args[0]) },
	}
	f := cmd.Flags()
	f.StringVar(&t.in, "in", "", "the input (- is standard input)")
	f.StringArrayVar(&t.args, "arg", nil, "an argument, K=V; may be repeated")
	f.StringArrayVar(&t.env, "env", nil, "an environment variable, K=V; may be repeated")
	f.Var(&t.memory, "memory", "memory of the run (64MiB)")
	f.Var(&t.timeout, "timeout", "time of the run (45s)")
	_ = cmd.MarkFlagRequired("in") // cannot fail: the flag exists
	return cmd
}

// etlTested is the JSON document of a run.
type etlTested struct {
	Outcome  string         `json:"outcome"` // done, dropped or failed
	ABI      string         `json:"abi"`
	Class    string         `json:"class,omitempty"` // of the failure
	Code     int32          `json:"code,omitempty"`
	Message  string         `json:"message,omitempty"`
	Log      string         `json:"log,omitempty"`
	Outputs  []*etlTestSink `json:"outputs"`
	BytesIn  int64          `json:"bytes_in"`
	BytesOut int64          `json:"bytes_out"`
	Wall     float64        `json:"wall_seconds"`
	CPU      float64        `json:"cpu_seconds"`
	Memory   int64          `json:"peak_memory"`
}

// etlTestSink is an output.
type etlTestSink struct {
	Name        string            `json:"name,omitempty"` // empty: the object's own
	Size        int64             `json:"size"`
	ContentType string            `json:"content_type,omitempty"`
	Ext         string            `json:"ext,omitempty"`
	Meta        map[string]string `json:"meta,omitempty"`

	w io.Writer // nil: nobody wants it
}

// Write is part of core.TransformOutput.
func (s *etlTestSink) Write(p []byte) (int, error) {
	s.Size += int64(len(p))
	if s.w == nil {
		return len(p), nil
	}
	return s.w.Write(p)
}

// Close is part of core.TransformOutput.
func (*etlTestSink) Close() error { return nil }

// Abort is part of core.TransformOutput.
func (*etlTestSink) Abort(error) {}

func (t *etlTestFlags) run(ctx context.Context, file string) (err error) {
	spec := wasmetl.Spec{Name: "test", Memory: int64(t.memory), Timeout: time.Duration(t.timeout)}
	if spec.Args, err = pairs("--arg", t.args); err != nil {
		return err
	}
	if spec.Env, err = pairs("--env", t.env); err != nil {
		return err
	}
	module, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	call, err := t.input()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, call.Body.Close()) }()
	dir, err := os.MkdirTemp("", "shoal-etl-test-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	self, err := os.Executable()
	if err != nil {
		return err
	}
	host, err := wasmetl.New(wasmetl.Options{
		Dir: dir, Clock: nodeserver.SystemClock(),
		Compile: func(ctx context.Context) *exec.Cmd { return exec.CommandContext(ctx, self, nodeserver.CompileCommand) },
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, host.Close(context.WithoutCancel(ctx))) }()
	report, err := wasmetl.Check(module, spec.Memory, 0)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	if call.Transform, err = host.Install(ctx, spec, module); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return t.report(ctx, host, call, report.ABI.String())
}

// report runs the call and says what came of it.
func (t *etlTestFlags) report(ctx context.Context, host *wasmetl.Host, call core.TransformCall, abi string) error {
	doc := etlTested{ABI: abi, Outputs: []*etlTestSink{}}
	call.Output = func(_ context.Context, info core.TransformOutputInfo) (core.TransformOutput, error) {
		s := &etlTestSink{Name: info.Name, ContentType: info.ContentType, Ext: info.Ext, Meta: info.Meta}
		if info.Name == "" && !t.json {
			s.w = t.out
		}
		doc.Outputs = append(doc.Outputs, s)
		return s, nil
	}
	res, err := host.RunTransform(ctx, call)
	if err != nil {
		return err
	}
	doc.Outcome, doc.Log, doc.BytesIn, doc.BytesOut = res.Outcome.String(), res.Log, res.BytesIn, res.BytesOut
	doc.Wall, doc.CPU, doc.Memory = res.Wall.Seconds(), res.CPU.Seconds(), res.Memory
	var failed error
	if f := res.Failure; f != nil {
		doc.Class, doc.Code, doc.Message = f.Class, f.Code, f.Message
		failed = fmt.Errorf("the transform failed: %w", f)
	}
	if t.json {
		return errors.Join(t.printJSON(doc), failed)
	}
	if res.Log != "" {
		fmt.Fprint(t.err, res.Log)
		if res.Log[len(res.Log)-1] != '\n' {
			fmt.Fprintln(t.err)
		}
	}
	if res.Outcome == core.TransformDropped {
		t.hint("It drops the object.")
	}
	for _, s := range doc.Outputs {
		if s.Name != "" && failed == nil {
			t.hint("Another output: %s, %s", printable(s.Name), formatBytes(s.Size))
		}
	}
	return failed
}

// input is the call with the object of --in, whose body the caller closes.
func (t *etlTestFlags) input() (core.TransformCall, error) {
	if t.in == "-" {
		return core.TransformCall{Body: io.NopCloser(t.options.in), Object: core.TransformObject{Bucket: "test", Key: "stdin", Size: -1}}, nil
	}
	f, err := os.Open(t.in)
	if err != nil {
		return core.TransformCall{}, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = usagef("--in %s: want a file, or - for standard input", t.in)
	}
	if err != nil {
		return core.TransformCall{}, errors.Join(err, f.Close())
	}
	return core.TransformCall{Body: closeOnce{f}, Object: core.TransformObject{
		Bucket: "test", Key: filepath.Base(t.in), Size: info.Size(), ContentType: mime.TypeByExtension(path.Ext(t.in)),
	}}, nil
}

// closeOnce is a file that may be closed again.
type closeOnce struct{ *os.File }

// Close is part of io.Closer.
func (c closeOnce) Close() error {
	if err := c.File.Close(); !errors.Is(err, os.ErrClosed) {
		return err
	}
	return nil
}
