package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

// The exit codes.
const (
	exitDiffers     = 1
	exitUsage       = 2
	exitCannot      = 77
	exitInterrupted = 130
)

func main() {
	if name := os.Getenv(guardVar); name != "" {
		os.Exit(guard(name))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// A second Ctrl-C ends the program at once; its guard removes the cluster.
	context.AfterFunc(ctx, stop)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run is the program; it returns the exit code.
func run(ctx context.Context, args []string, out, errs io.Writer) int {
	root := newRoot(out) //nolint:contextcheck // cobra hands the context to what runs
	root.SetArgs(args)
	root.SetOut(out)
	root.SetErr(errs)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	if _, told := errors.AsType[toldError](err); !told {
		fmt.Fprintln(errs, "strike:", err)
	}
	if _, usage := errors.AsType[usageError](err); usage {
		return exitUsage
	}
	if ctx.Err() != nil {
		return exitInterrupted
	}
	if _, cannot := errors.AsType[cannotError](err); cannot {
		return exitCannot
	}
	return exitDiffers
}

func newRoot(out io.Writer) *cobra.Command {
	root := &cobra.Command{
		Use: "strike", Short: "Take nodes and disks from a cluster at work, and check that nothing is lost",
		SilenceErrors: true, SilenceUsage: true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
		Args:              cobra.ArbitraryArgs,
		RunE:              func(*cobra.Command, []string) error { return usagef("say which script; see strike --help") },
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	for _, s := range copyScripts() {
		root.AddCommand(newScriptCommand(out, s.name, s.short, s.run))
	}
	root.AddCommand(newScriptCommand(out, chaosName, "Have every failure there is, one at a time, under mixed traffic", runChaos))
	root.AddCommand(newSoakCommand(out))
	return root
}

// newScriptCommand is the command of a script that runs against a cluster.
func newScriptCommand(out io.Writer, name, short string, script func(context.Context, *harness) error) *cobra.Command {
	o := &options{script: name}
	cmd := &cobra.Command{
		Use: name, Short: short, Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.check(); err != nil {
				return err
			}
			return runScript(cmd.Context(), o, out, cmd.ErrOrStderr(), script)
		},
	}
	o.add(cmd.Flags())
	if name == chaosName {
		o.addChaos(cmd.Flags())
	} else {
		o.addPart(cmd.Flags())
	}
	return cmd
}

func noArgs(_ *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usagef("%q: want flags only", args[0])
	}
	return nil
}

// runScript runs a script against its cluster and writes the result. What is
// amiss it tells at once, so that the first line on stderr says which.
func runScript(ctx context.Context, o *options, out, errs io.Writer, script func(context.Context, *harness) error) error {
	h := newHarness(o, out)
	h.say("seed %d", o.seed)
	if err := h.open(ctx); err != nil {
		return err
	}
	err := script(ctx, h)
	if err != nil {
		fmt.Fprintf(errs, "%s: %v; seed %d\n", o.script, err, o.seed)
	}
	_, cannot := errors.AsType[cannotError](err)
	if cerr := h.close(ctx, err != nil && !cannot && ctx.Err() == nil); cerr != nil {
		fmt.Fprintf(errs, "%s: %v\n", o.script, cerr)
		err = errors.Join(err, cerr)
	}
	if cannot || ctx.Err() != nil {
		return toldError{err}
	}
	if jerr := json.NewEncoder(out).Encode(h.res.total()); jerr != nil {
		return jerr
	}
	if err != nil {
		return toldError{err}
	}
	return nil
}

// toldError is on stderr already.
type toldError struct{ error }

func (e toldError) Unwrap() error { return e.error }

// usageError is a mistake in the command line.
type usageError struct{ error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// cannotError says why the script cannot run here.
type cannotError struct{ error }

func cannotf(format string, args ...any) error { return cannotError{fmt.Errorf(format, args...)} }

func (e cannotError) Unwrap() error { return e.error }
