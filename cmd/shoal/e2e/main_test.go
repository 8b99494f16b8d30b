package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/shoalstore/shoal/cmd/shoal/internal/devcluster"
)

// The environment of this package's processes.
const (
	// binVar is the program under test; it is built if that is unset.
	binVar = "SHOAL_BIN"
	// stateVar is the directory of the clusters of this run.
	stateVar = "SHOAL_E2E_STATE"
	// guardVar makes the test program a guard of that directory.
	guardVar = "SHOAL_E2E_GUARD"
	// seedVar repeats the choices of an earlier run.
	seedVar = "SHOAL_E2E_SEED"
	// longVar also runs what takes minutes.
	longVar = "SHOAL_E2E_LONG"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(guardVar); dir != "" {
		os.Exit(guard(dir))
	}
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		code = max(code, 1)
	}
	os.Exit(code)
}

func run(m *testing.M) (code int, err error) {
	dir, err := os.MkdirTemp("", "shoal-e2e-")
	if err != nil {
		return 1, err
	}
	if err := os.Setenv(stateVar, dir); err != nil {
		return 1, err
	}
	stop, err := startGuard(dir)
	if err != nil {
		return 1, errors.Join(err, os.RemoveAll(dir))
	}
	defer func() { err = errors.Join(err, stop()) }()
	if os.Getenv(binVar) == "" {
		bin := filepath.Join(dir, "bin", "shoal")
		build := exec.Command("go", "build", "-o", bin, "github.com/shoalstore/shoal/cmd/shoal")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		build.Stdout, build.Stderr = os.Stderr, os.Stderr
		if err := build.Run(); err != nil {
			return 1, fmt.Errorf("build the program: %w", err)
		}
		if err := os.Setenv(binVar, bin); err != nil {
			return 1, err
		}
	}
	return m.Run(), nil
}

// startGuard starts a process that ends all clusters and removes dir once this
// process has ended, in whatever way.
func startGuard(dir string) (stop func() error, err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), guardVar+"="+dir)
	cmd.Stderr = os.Stderr
	end, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the guard: %w", err)
	}
	return func() error { return errors.Join(end.Close(), cmd.Wait()) }, nil
}

func guard(dir string) int {
	_, _ = io.Copy(io.Discard, os.Stdin)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var errs []error
	clusters, _ := filepath.Glob(filepath.Join(dir, "*", "cluster.json"))
	for _, file := range clusters {
		c := devcluster.New(devcluster.Options{
			StateDir: dir, Name: filepath.Base(filepath.Dir(file)), Executable: os.Args[0], Env: os.Environ(), Grace: time.Second,
		})
		errs = append(errs, c.Clean(ctx))
	}
	if err := errors.Join(append(errs, os.RemoveAll(dir))...); err != nil {
		fmt.Fprintln(os.Stderr, "e2e guard:", err)
		return 1
	}
	return 0
}
