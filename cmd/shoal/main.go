// Command shoal is the server and the client of a Shoal cluster.
//
//	shoal dev up -d                      # a cluster on this machine
//	shoal bucket create shoal://train
//	shoal put shards/ shoal://train -r
//	shoal ls shoal://train
//	shoal server --config node.yaml      # a node
//
// docs/cli.md describes the commands, docs/config.md the configuration.
package main

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/term"
)

func main() {
	ctx, cancel := context.WithCancelCause(context.Background())
	done := make(chan struct{})
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		defer close(done)
		if _, ok := <-signals; ok {
			// The second signal ends the process at once.
			signal.Stop(signals)
			cancel(errInterrupted)
		}
	}()
	code := execute(ctx, processOptions(), os.Args[1:])
	signal.Stop(signals)
	close(signals)
	<-done
	os.Exit(code)
}

// errInterrupted is why the context of a command ends on Ctrl-C.
var errInterrupted = errors.New("interrupted")

// hasRoom says whether a stream is a terminal on which bars can be drawn. Some
// that programs make have no size.
func hasRoom(f *os.File) bool {
	width, height, err := term.GetSize(int(f.Fd()))
	return err == nil && width >= 40 && height >= 3
}

// processOptions are the options of a real process.
func processOptions() *options {
	return &options{
		in: os.Stdin, out: os.Stdout, err: os.Stderr,
		getenv: os.Getenv, environ: os.Environ(),
		inTerminal:  term.IsTerminal(int(os.Stdin.Fd())),
		outTerminal: term.IsTerminal(int(os.Stdout.Fd())),
		errTerminal: hasRoom(os.Stderr),
		executable:  os.Executable,
	}
}
