package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/shoalstore/shoal/cmd/shoal/internal/nodeserver"
	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/plugins/api"
	"github.com/shoalstore/shoal/plugins/api/client"
	"github.com/shoalstore/shoal/wasmetl"
)

func newEtlCommand(o *options) *cobra.Command {
	return group("etl", "Register transforms, and transform objects and buckets",
		newEtlInitCommand(o), newEtlTestCommand(o), newEtlObjectCommand(o), newEtlBucketCommand(o), newEtlInspectCommand(o), newEtlLsCommand(o),
		newEtlShowCommand(o), newEtlErrorsCommand(o), newEtlLogsCommand(o),
		newEtlActionCommand(o, "start", "Let a transform run again"), newEtlActionCommand(o, "stop", "Let a transform run no more"),
		newEtlRmCommand(o))
}

func newEtlInitCommand(o *options) *cobra.Command {
	cmd := group("init", "Register a transform; it is validated at once")
	for _, kind := range []string{"wasm", "spec", "python"} {
		cmd.AddCommand(newEtlInitKindCommand(o, kind))
	}
	return cmd
}

func newEtlInitKindCommand(o *options, kind string) *cobra.Command {
	t := api.Transform{Type: kind}
	var file string
	var memory sizeFlag
	var timeout durationFlag
	var env, ext []string
	cmd := &cobra.Command{
		Use: kind + " --name N --from-file F", Args: exactly(0),
		Short: map[string]string{
			"wasm": "A WebAssembly module", "spec": "A container on Kubernetes, by its Pod specification (not built yet)", "python": "A Python program (not built yet)",
		}[kind],
		RunE: o.withClient(func(ctx context.Context, c *client.Client, _ []string) (err error) {
			if t.Code, err = os.ReadFile(file); err != nil {
				return err
			}
			if t.Ext, err = parseExt(ext); err != nil {
				return err
			}
			if t.Env, err = pairs("--env", env); err != nil {
				return err
			}
			t.Memory = int64(memory)
			if timeout > 0 {
				t.Timeout = time.Duration(timeout).String()
			}
			made, err := c.PutTransform(ctx, t)
			if err != nil {
				return err
			}
			if o.json {
				return o.printJSON(made)
			}
			fmt.Fprintf(o.out, "%s@%s\n", made.Name, made.Digest)
			if s := made.Smoke; s != nil && s.Message != "" {
				fmt.Fprintf(o.err, "note: an empty object is refused by it: %s\n", s.Message)
			}
			return nil
		}),
	}
	f := cmd.Flags()
	f.StringVar(&t.Name, "name", "", "the transform's name")
	f.StringVar(&file, "from-file", "", "the file to register")
	f.Var(&memory, "memory", "memory of one run (64MiB)")
	f.Var(&timeout, "timeout", "time of one run (45s)")
	f.StringArrayVar(&t.Args, "arg", nil, "an argument, K=V; may be repeated")
	f.StringArrayVar(&env, "env", nil, "an environment variable, K=V; may be repeated")
	f.StringSliceVar(&ext, "ext", nil, "replace extensions, as jpg:webp")
	f.StringVar(&t.ContentType, "content-type", "", "content type of the results")
	f.StringVar(&t.Scope, "scope", "", "object (member and line are not built yet)")
	f.StringVar(&t.Isolation, "isolation", "", "pooled or fresh")
	_ = cmd.MarkFlagRequired("name")      // cannot fail: the flags exist
	_ = cmd.MarkFlagRequired("from-file") // the same
	return cmd
}

// newCompileCommand is the process that compiles a module for a node, or for
// `shoal etl test`; nobody types it.
func newCompileCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use: nodeserver.CompileCommand, Short: "Compile a module, as told on stdin", Hidden: true, Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error { return wasmetl.CompileChild(cmd.Context(), o.in, o.out) },
	}
}

// pairs reads K=V of a flag.
func pairs(flag string, given []string) (map[string]string, error) {
	if len(given) == 0 {
		return nil, nil
	}
	out := make(map[string]string)
	for _, g := range given {
		k, v, ok := strings.Cut(g, "=")
		if !ok || k == "" {
			return nil, usagef("%s %q: want NAME=VALUE", flag, g)
		}
		out[k] = v
	}
	return out, nil
}

func newEtlObjectCommand(o *options) *cobra.Command {
	var given []string
	cmd := &cobra.Command{
		Use: "object NAME SRC DST", Short: "Transform one object, to a file, to standard output (-) or to another object",
		Args: exactly(3), ValidArgsFunction: o.completeTransform(1),
		RunE: o.withClient(func(ctx context.Context, c *client.Client, args []string) error {
			u, err := objectURI(args[1])
			if err != nil {
				return err
			}
			query, err := transformArgs(given)
			if err != nil {
				return err
			}
			query["transform"] = []string{args[0]}
			return at(u, o.etlObject(ctx, c, query, u, args[2]))
		}),
	}
	addTransformArgs(cmd, &given)
	return cmd
}

// addTransformArgs adds the flag for arguments of one run or job.
func addTransformArgs(cmd *cobra.Command, args *[]string) {
	cmd.Flags().StringArrayVar(args, "arg", nil, "an argument for the transform, K=V, beside its own; may be repeated")
}

// transformArgs reads arguments as the query and jobs have them.
func transformArgs(given []string) (map[string][]string, error) {
	out := map[string][]string{}
	for _, a := range given {
		k, v, ok := strings.Cut(a, "=")
		if !ok || k == "" {
			return nil, usagef("--arg %q: want NAME=VALUE", a)
		}
		out["arg."+k] = []string{v}
	}
	return out, nil
}

func (o *options) etlObject(ctx context.Context, c *client.Client, query map[string][]string, u core.URI, dst string) error {
	list, err := c.Transforms(ctx)
	if err != nil {
		return err // a cluster without transforms would send the object as it is
	}
	b, err := c.Bucket(ctx, u.Bucket)
	if err != nil {
		return err
	}
	r, err := c.Get(ctx, b.Alias, u.Key, client.GetOptions{Query: query, Patience: patience(query["transform"][0], list)})
	if err != nil {
		return err
	}
	if isDir(dst) || strings.HasSuffix(dst, string(filepath.Separator)) && isLocal(dst) {
		dst = filepath.Join(dst, baseKey(u.Key))
	}
	size, err := o.writeTo(ctx, c, r, dst)
	if err = errors.Join(err, r.Close()); err != nil || !o.json || dst == "-" {
		return err
	}
	return o.printJSON(map[string]any{"from": u.String(), "to": dst, "size": size})
}

// patience is how long the first byte of a result may take: each transform has its
// time, and a large object adds to it.
func patience(name string, list []api.Transform) time.Duration {
	d := time.Minute
	for step := range strings.SplitSeq(name, ">>") {
		step, _, _ = strings.Cut(strings.TrimSpace(step), "@")
		for _, t := range list {
			if limit, err := time.ParseDuration(t.Timeout); err == nil && t.Name == step {
				d += limit
			}
		}
	}
	return d
}

// writeTo writes a stream to a file, standard output or an object, and returns its
// size.
func (o *options) writeTo(ctx context.Context, c *client.Client, r io.Reader, dst string) (size int64, err error) {
	if dst == "-" {
		return io.Copy(o.out, r)
	}
	if !strings.Contains(dst, "://") {
		fill := func(f *os.File) (err error) {
			size, err = io.Copy(f, r)
			return err
		}
		if isSpecial(dst) {
			f, err := os.OpenFile(dst, os.O_WRONLY, 0)
			if err != nil {
				return 0, err
			}
			err = errors.Join(fill(f), f.Close())
			return size, err
		}
		err = writeWhole(dst, fill)
		return size, err
	}
	to, err := objectURI(dst)
	if err != nil {
		return 0, err
	}
	b, err := c.Bucket(ctx, to.Bucket)
	if err != nil {
		return 0, err
	}
	info, err := c.Upload(ctx, b.Alias, to.Key, r, -1, client.TransferOptions{})
	return info.Size, err
}

func newEtlBucketCommand(o *options) *cobra.Command {
	j := &jobFlags{options: o}
	var given []string
	cmd := &cobra.Command{
		Use: "bucket NAME SRC DST", Short: "Transform a bucket's objects into another bucket, by a job",
		Example: `  shoal etl bucket upper s3://src gs://dst --ext txt:TXT --progress --all`,
		Args:    exactly(3), ValidArgsFunction: o.completeTransform(2),
	}
	cmd.RunE = o.withClient(func(ctx context.Context, c *client.Client, args []string) error {
		from, to, err := twoURIs(args[1:])
		if err != nil {
			return err
		}
		if from.Key != "" {
			return usagef("%s: want a bucket; `shoal etl object` transforms one object, --prefix selects", from)
		}
		if j.jobSpec.Args, err = jobArgs(args[0], given); err != nil {
			return err
		}
		return j.runPair(ctx, c, cmd, "etl", from, to)
	})
	j.add(cmd)
	addTransformArgs(cmd, &given)
	return cmd
}

// dryRun is the document of a dry run.
type dryRun struct {
	api.Job
	Preview api.Preview `json:"preview"`
}

// preview waits for the end of a dry run, which counts, and shows what would become of
// the first objects.
func (j *jobFlags) preview(ctx context.Context, c *client.Client, spec api.JobSpec, started api.Job, w watchFlags) error {
	last, err := j.await(ctx, c, started, w)
	if err != nil {
		return err
	}
	if last.State != api.JobDone {
		return j.outcome(last)
	}
	p, err := c.PreviewJob(ctx, spec)
	if err != nil {
		return err
	}
	if j.json {
		return j.printJSON(dryRun{last, p})
	}
	if err := j.outcome(last); err != nil {
		return err
	}
	return j.printPreview(p)
}

func (o *options) printPreview(p api.Preview) error {
	if len(p.Objects) == 0 {
		return nil
	}
	t := newTable("OBJECT", ">SIZE", "WOULD BECOME", ">SIZE")
	head := ""
	for _, x := range p.Objects {
		name, size := printable(x.Name), "-"
		if x.Size >= 0 {
			size = formatBytes(x.Size)
		}
		switch {
		case x.Error != nil:
			t.add(name, size, "("+x.Error.Code+": "+printable(x.Error.Message)+")", "")
		case x.Dropped:
			t.add(name, size, "(dropped)", "")
		case len(x.Outputs) == 0:
			t.add(name, size, "(nothing)", "")
		}
		for _, out := range x.Outputs {
			t.add(name, size, printable(out.Name), formatBytes(out.Size))
			name, size = "", ""
		}
		if x.More > 0 {
			t.add("", "", fmt.Sprintf("(%d more)", x.More), "")
		}
		if head == "" && len(x.Outputs) > 0 {
			head = headOf(x)
		}
	}
	if p.More {
		t.add("...", "", "", "")
	}
	if err := o.printTable(t); err != nil {
		return err
	}
	if head != "" {
		fmt.Fprintf(o.out, "\n%s\n", head)
	}
	return nil
}

// headOf shows how the first output of an object begins, "" if it is empty.
func headOf(x api.PreviewObject) string {
	first := x.Outputs[0]
	switch {
	case first.Size == 0:
		return ""
	case x.Head == "":
		return fmt.Sprintf("%s begins:\n%s", printable(first.Name), strings.TrimSuffix(hex.Dump(x.HeadBase64[:min(len(x.HeadBase64), 64)]), "\n"))
	}
	lines := strings.Split(strings.TrimSuffix(x.Head, "\n"), "\n")
	for i := range lines {
		lines[i] = "  " + printable(lines[i])
	}
	return fmt.Sprintf("%s begins:\n%s", printable(first.Name), strings.Join(lines, "\n"))
}

// jobArgs are the arguments of a job that runs a transform.
func jobArgs(name string, given []string) (map[string]string, error) {
	query, err := transformArgs(given)
	out := map[string]string{"transform": name}
	for k, v := range query {
		out[k] = v[0]
	}
	return out, err
}

func newEtlInspectCommand(o *options) *cobra.Command {
	j := &jobFlags{options: o}
	var given []string
	cmd := &cobra.Command{Use: "inspect NAME SRC", Short: "Run a transform over a bucket's objects and write nothing", Args: exactly(2), ValidArgsFunction: o.completeTransform(1)}
	cmd.RunE = o.withClient(func(ctx context.Context, c *client.Client, args []string) error {
		b, err := bucketURI(args[1])
		if err != nil {
			return err
		}
		spec, err := j.spec(cmd)
		if err != nil {
			return err
		}
		spec.Kind, spec.From = "etl", b.String()
		if spec.Args, err = jobArgs(args[0], given); err != nil {
			return err
		}
		spec.Args["inspect"] = "true"
		return j.runJob(ctx, c, spec)
	})
	j.add(cmd)
	addTransformArgs(cmd, &given)
	return cmd
}

func newEtlLsCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use: "ls", Short: "List the transforms", Args: exactly(0),
		RunE: o.withClient(func(ctx context.Context, c *client.Client, _ []string) error {
			list, err := c.Transforms(ctx)
			if err != nil {
				return err
			}
			t := newTable("NAME", "TYPE", "STATE", ">CALLS", ">ERRORS", "DIGEST")
			for _, x := range list {
				if o.json {
					if err := o.printJSON(x); err != nil {
						return err
					}
					continue
				}
				t.add(x.Name, x.Type, x.State, strconv.FormatInt(x.Calls, 10), strconv.FormatInt(x.Errors, 10), x.Digest)
			}
			if o.json {
				return nil
			}
			return o.printTable(t)
		}),
	}
}

func newEtlShowCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use: "show NAME", Short: "Show a transform", Args: exactly(1), ValidArgsFunction: o.completeTransform(0),
		RunE: o.withClient(func(ctx context.Context, c *client.Client, args []string) error {
			t, err := c.Transform(ctx, args[0])
			if err != nil {
				return err
			}
			return o.showTransform(t)
		}),
	}
}

func (o *options) showTransform(t api.Transform) error {
	if o.json {
		return o.printJSON(t)
	}
	memory := ""
	if t.Memory > 0 {
		memory = formatBytes(t.Memory)
	}
	var stats []string
	if s := t.Stats; s != nil {
		seconds := func(x float64) string {
			return time.Duration(x * float64(time.Second)).Round(time.Microsecond).String()
		}
		stats = []string{
			"Dropped", strconv.FormatInt(s.Dropped, 10), "Broken off", strconv.FormatInt(s.Broken, 10),
			"Read", formatBytes(s.BytesIn), "Written", formatBytes(s.BytesOut), "Peak memory", formatBytes(s.PeakMemory),
			"Time of a call", seconds(s.WallP50) + " (p50), " + seconds(s.WallP99) + " (p99)", "Ready on", strings.Join(s.Nodes, " "),
			"Stopped on", strings.Join(s.StoppedOn, " "),
		}
	}
	o.details(append([]string{
		"Name", t.Name, "Type", t.Type, "Digest", t.Digest, "Interface", t.ABI, "State", t.State, "Memory", memory, "Timeout", t.Timeout,
		"Scope", t.Scope, "Isolation", t.Isolation, "Arguments", strings.Join(t.Args, " "), "Content type", t.ContentType,
		"Calls", strconv.FormatInt(t.Calls, 10), "Errors", strconv.FormatInt(t.Errors, 10), "Created", formatTimePtr(t.Created),
	}, stats...)...)
	return nil
}

func newEtlActionCommand(o *options, action, short string) *cobra.Command {
	return &cobra.Command{
		Use: action + " NAME", Short: short, Args: exactly(1), ValidArgsFunction: o.completeTransform(0),
		RunE: o.withClient(func(ctx context.Context, c *client.Client, args []string) error {
			t, err := c.TransformAction(ctx, args[0], action)
			if err != nil {
				return err
			}
			return o.showTransform(t)
		}),
	}
}

func newEtlErrorsCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use: "errors NAME [JOB]", Short: "List the objects that a transform refused, with reasons", Args: between(1, 2), ValidArgsFunction: o.completeTransform(0),
		RunE: o.withClient(func(ctx context.Context, c *client.Client, args []string) error {
			job := ""
			if len(args) == 2 {
				job = args[1]
			}
			list, err := c.TransformErrors(ctx, args[0], job)
			if err != nil {
				return err
			}
			t := newTable("NAME", "CODE", "MESSAGE")
			for _, e := range list {
				if o.json {
					if err := o.printJSON(e); err != nil {
						return err
					}
					continue
				}
				t.add(printable(e.Key), e.Code, e.Message)
			}
			if o.json {
				return nil
			}
			return o.printTable(t)
		}),
	}
}

func newEtlLogsCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use: "logs NAME", Short: "Print the last lines that a transform wrote", Args: exactly(1), ValidArgsFunction: o.completeTransform(0),
		RunE: o.withClient(func(ctx context.Context, c *client.Client, args []string) error {
			lines, err := c.TransformLogs(ctx, args[0])
			if err != nil {
				return err
			}
			for _, l := range lines {
				if o.json {
					if err := o.printJSON(l); err != nil {
						return err
					}
					continue
				}
				fmt.Fprintf(o.out, "%s %s %s: %s\n", formatTime(l.Time), l.Node, printable(l.Object), l.Text)
			}
			return nil
		}),
	}
}

func newEtlRmCommand(o *options) *cobra.Command {
	cmd := &cobra.Command{
		Use: "rm NAME", Short: "Remove a transform", Args: exactly(1), ValidArgsFunction: o.completeTransform(0),
		RunE: o.withClient(func(ctx context.Context, c *client.Client, args []string) error {
			if err := o.confirm(ctx, fmt.Sprintf("Remove transform %s?", args[0])); err != nil {
				return err
			}
			if err := c.DeleteTransform(ctx, args[0]); err != nil {
				return err
			}
			if o.json {
				return o.printJSON(map[string]string{"removed": args[0]})
			}
			o.hint("removed %s", args[0])
			return nil
		}),
	}
	o.addYes(cmd)
	return cmd
}
