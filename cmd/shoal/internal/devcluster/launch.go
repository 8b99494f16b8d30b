package devcluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/plugins/api"
)

// ErrEnded says that a process that was started has ended before it served.
var ErrEnded = errors.New("the process has ended")

// launch starts a node's process, apart from any terminal so that none
// ends it, with its output in its log. The flags are of `shoal server`.
func (c *Cluster) launch(name string, flags ...string) error {
	return c.update(func(s *State) error {
		n, err := c.node(s, name)
		if err != nil {
			return err
		}
		n.Process.reap()
		if alive, paused := n.Process.alive(); alive {
			hint := ""
			if paused {
				hint = fmt.Sprintf("it is paused: shoal dev resume %s%s", name, c.nameFlag())
			}
			return api.Refused(fmt.Sprintf("%s runs already, as process %d", name, n.Process.PID), hint)
		}
		log, err := os.OpenFile(n.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		defer func() { _ = log.Close() }()
		cmd := exec.Command(c.o.Executable, append([]string{"server", "--config", n.Config}, flags...)...)
		cmd.Dir, cmd.Env = n.Dir, withRemembered(nodeEnv(c.o.Env), s.Env)
		cmd.Stdout, cmd.Stderr = log, log
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		if err := cmd.Start(); err != nil {
			return fmt.Errorf("start %s: %w", name, err)
		}
		n.Process, err = identify(cmd.Process.Pid)
		if err != nil {
			// It is this process's child and not reaped, so the id is still its.
			return errors.Join(fmt.Errorf("start %s: %w", name, err), cmd.Process.Kill(), ignoreExit(cmd.Wait()))
		}
		n.Ready, n.Ended = false, ""
		return cmd.Process.Release()
	})
}

// ignoreExit drops the error that tells of the kill.
func ignoreExit(err error) error {
	if _, killed := errors.AsType[*exec.ExitError](err); killed {
		return nil
	}
	return err
}

// run runs a command of the executable to its end.
func (c *Cluster) run(ctx context.Context, args ...string) error {
	cmd := exec.CommandContext(ctx, c.o.Executable, args...)
	cmd.Env = nodeEnv(c.o.Env)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return fmt.Errorf("shoal %s: %w\n%s", strings.Join(args[:min(len(args), 2)], " "), err, strings.TrimSpace(out.String()))
	}
	return nil
}

// awaitReady returns when all the nodes serve. It fails as soon as one has
// ended.
func (c *Cluster) awaitReady(ctx context.Context, names ...string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, readyTime, fmt.Errorf("not ready after %s: %w", readyTime, core.ErrUnavailable))
	defer cancel()
	s, err := c.State()
	if err != nil {
		return err
	}
	g, gctx := errgroup.WithContext(ctx)
	for _, name := range names {
		n, err := c.node(s, name)
		if err != nil {
			return err
		}
		g.Go(func() error {
			err := await(gctx, func() (bool, error) {
				n.Process.reap()
				if alive, _ := n.Process.alive(); !alive {
					return false, ErrEnded
				}
				return c.ready(gctx, *n), nil
			})
			if err != nil {
				return fmt.Errorf("%s: %w; the end of %s:\n%s", n.Name, err, n.Log, tail(n.Log))
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return c.update(func(s *State) error {
		for _, name := range names {
			n, err := c.node(s, name)
			if err != nil {
				return err
			}
			n.Ready = true
		}
		return nil
	})
}

// ready asks a node whether it serves.
func (c *Cluster) ready(ctx context.Context, n Node) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, n.URL()+api.ReadyPath, http.NoBody)
	if err != nil {
		return false
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return false
	}
	_ = resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// await asks until there is an answer. What it waits for are other processes,
// which send no event.
func await(ctx context.Context, done func() (bool, error)) error {
	t := time.NewTicker(25 * time.Millisecond)
	defer t.Stop()
	for {
		ok, err := done()
		if ok || err != nil {
			return err
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// tail is the end of a log.
func tail(file string) string {
	const lines = 20
	b, err := os.ReadFile(file)
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimRight(string(b), "\n"), "\n")
	return strings.Join(all[max(len(all)-lines, 0):], "\n")
}
