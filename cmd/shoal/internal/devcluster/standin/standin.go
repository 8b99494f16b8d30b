// Package standin lets a test binary stand in for the nodes of a development
// cluster: init and cluster join mark the directories, server serves readiness
// until it is told to end.
//
//	func TestMain(m *testing.M) {
//		standin.Main()
//		os.Exit(m.Run())
//	}
package standin

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/shoalstore/shoal/config"
	"github.com/shoalstore/shoal/plugins/api"
)

// Variable is set in the environment of a stand-in. Its value says how it
// behaves: "yes" as it should, "init-fails", "NODE-dies", "never-ready",
// "ignores-term".
const Variable = "STAND_IN"

// Main does not return in a process that is a stand-in.
func Main() {
	what := os.Getenv(Variable)
	if what == "" {
		return
	}
	if err := run(os.Args[1:], what); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func run(args []string, what string) error {
	command := args[0]
	if command == "cluster" {
		command, args = args[1], args[1:]
	}
	for i := 2; i < len(args); i += 2 { // --config FILE --config FILE ...
		c, err := config.Load(args[i], os.Environ())
		if err != nil {
			return err
		}
		mark := filepath.Join(c.Node.Data, "member")
		if command == "server" {
			if _, err := os.Stat(mark); err != nil {
				return fmt.Errorf("not a member: %w", err)
			}
			return serve(c, what)
		}
		if what == "init-fails" {
			return errors.New("init does not want to")
		}
		if err := os.MkdirAll(c.Node.Data, 0o700); err != nil {
			return err
		}
		if err := os.WriteFile(mark, nil, 0o600); err != nil {
			return err
		}
	}
	return nil
}

func serve(c config.Config, what string) error {
	if what == c.Node.Name+"-dies" {
		return errors.New("this node dies at once")
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	s := &http.Server{Addr: c.Listen.Client, ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != api.ReadyPath || what == "never-ready" {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})}
	if what == "ignores-term" {
		signal.Ignore(syscall.SIGTERM)
	}
	fmt.Println("serving, AWS_ACCESS_KEY_ID is", os.Getenv("AWS_ACCESS_KEY_ID"), os.Getenv("SHOAL_ENDPOINT"))
	done := make(chan error, 1)
	go func() { done <- s.ListenAndServe() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return s.Close()
	}
}
