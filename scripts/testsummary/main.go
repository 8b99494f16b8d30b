// Testsummary runs the tests of the named packages with `go test -json` and prints a
// short report as they go: a line for each package, the output of a failing package in
// full, and last a line of totals that reads "N passed, N failed, N skipped".
//
//	go run ./scripts/testsummary [flags] [packages] [-- flags of go test]
//
// It exits 0 only if at least one test ran and nothing went wrong. A package that does
// not build, panics, runs out of time or ends without saying how counts as a failure
// and is shown with its output. With -race it runs in two parts: all packages under the
// race detector but those of the -no-race list, then those without it. With
// -enforce-skips a skipped test is a failure unless its reason is on the -allowed-skips
// list, so that a machine which lacks a tool cannot pass by testing less.
//
// A test that has subtests is not counted itself, unless it failed or was skipped and
// none of its subtests was: the totals are of checks, not of the functions around them.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := command(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	switch {
	case err == nil || errors.Is(err, flag.ErrHelp):
	case errors.Is(err, errTestsFailed): // the report has said it
		os.Exit(1)
	default:
		fmt.Fprintf(os.Stderr, "testsummary: %v\n", err)
		os.Exit(2)
	}
}

// errTestsFailed says that the run was carried out and that its outcome is bad.
var errTestsFailed = errors.New("tests failed")

// options says what to run and how to judge it.
type options struct {
	dir          string // where go runs; "" is the current directory
	packages     []string
	testFlags    []string // handed to go test as they are
	race         bool
	noRaceList   string // path of the list of packages to run without the race detector; "" for none
	onlyRace     bool   // leave those packages out
	allowedSkips string // path of the list of reasons; "" for none
	enforceSkips bool
	timeout      time.Duration // for one package
	parallel     int           // packages at a time
	heartbeat    time.Duration // silence after which the running packages are named
	logPath      string        // where the raw events go; "" for nowhere
}

// command parses args, runs the tests and writes the report to stdout; what go itself
// says goes to stderr.
func command(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	var o options
	flags := flag.NewFlagSet("testsummary", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.BoolVar(&o.race, "race", false, "use the race detector")
	flags.StringVar(&o.noRaceList, "no-race", "", "`file` that lists the packages to run without the race detector")
	flags.BoolVar(&o.onlyRace, "only-race", false, "leave out the packages of the -no-race list")
	flags.StringVar(&o.allowedSkips, "allowed-skips", "", "`file` that lists the reasons for which a test may be skipped")
	flags.BoolVar(&o.enforceSkips, "enforce-skips", false, "a test that is skipped for another reason is a failure")
	flags.DurationVar(&o.timeout, "timeout", 10*time.Minute, "the `time` that one package may take")
	flags.IntVar(&o.parallel, "p", 2, "the `number` of packages to test at a time")
	flags.DurationVar(&o.heartbeat, "heartbeat", time.Minute, "name the packages that run when nothing ended for this `time`")
	flags.StringVar(&o.logPath, "log", "", "`file` to write the events of go test -json to")
	packages := args
	if i := slices.Index(args, "--"); i >= 0 {
		packages, o.testFlags = args[:i], args[i+1:]
	}
	if err := flags.Parse(packages); err != nil {
		return err
	}
	o.packages = flags.Args()
	if len(o.packages) == 0 {
		o.packages = []string{"./..."}
	}
	return run(ctx, o, stdout, stderr)
}
