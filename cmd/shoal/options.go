package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/shoalstore/shoal/cmd/shoal/internal/devcluster"
	"github.com/shoalstore/shoal/config"
	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/plugins/api/client"
)

// options are what a command gets from the process and the global flags.
type options struct {
	in         io.Reader
	out, err   io.Writer
	getenv     func(string) string
	environ    []string
	executable func() (string, error)

	inTerminal, outTerminal, errTerminal bool

	endpoint string
	json     bool
	timeout  durationFlag
	quiet    bool
	noColor  bool
	verbose  bool
	yes      bool
}

// addGlobalFlags adds the flags that every command takes.
func (o *options) addGlobalFlags(cmd *cobra.Command) {
	f := cmd.PersistentFlags()
	f.StringVar(&o.endpoint, "endpoint", "", "URLs of nodes, with commas (default: SHOAL_ENDPOINT, or the development cluster)")
	f.BoolVar(&o.json, "json", false, "print JSON: one document, for listings an object a line")
	f.Var(&o.timeout, "timeout", "end the command after this time, as 30 or 30s (exit code 5)")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "no progress and no hints on stderr")
	f.BoolVar(&o.noColor, "no-color", false, "no colors (or NO_COLOR=1)")
	f.BoolVar(&o.verbose, "debug", false, "log what the client does to stderr")
}

// addYes adds --yes to a destructive command.
func (o *options) addYes(cmd *cobra.Command) {
	cmd.Flags().BoolVarP(&o.yes, "yes", "y", false, "do not ask")
}

// confirm asks before something is destroyed. Without a terminal it takes
// --yes.
func (o *options) confirm(ctx context.Context, question string) error {
	if o.yes {
		return nil
	}
	if !o.inTerminal {
		return usagef("%s Not asked, as this is no terminal: add --yes", question)
	}
	fmt.Fprintf(o.err, "%s [y/N] ", question)
	type answer struct {
		line string
		err  error
	}
	// Nothing ends a read of a terminal: after Ctrl-C it ends with the process.
	answers := make(chan answer, 1)
	go func() {
		line, err := bufio.NewReader(o.in).ReadString('\n')
		answers <- answer{line, err}
	}()
	select {
	case a := <-answers:
		if a.err != nil && !errors.Is(a.err, io.EOF) {
			return fmt.Errorf("read the answer: %w", a.err)
		}
		switch strings.ToLower(strings.TrimSpace(a.line)) {
		case "y", "yes":
			return nil
		}
	case <-ctx.Done():
		fmt.Fprintln(o.err)
		return context.Cause(ctx)
	}
	return withCode(exitRefused, errors.New("not confirmed; nothing was changed"))
}

// hint prints a line for people to stderr, unless they want quiet or JSON.
func (o *options) hint(format string, args ...any) {
	if !o.quiet && !o.json {
		fmt.Fprintf(o.err, format+"\n", args...)
	}
}

// log is the logger of a client command.
func (o *options) log() *slog.Logger {
	if !o.verbose {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(o.err, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// remotePatience is how much longer a node may keep a request for an object of a remote
// bucket waiting: it tries again for the client while the remote throttles or gives no
// answer, for half a minute at a time, and then says so.
const remotePatience = 30 * time.Second

// patienceOf is how much longer than usual a node may keep the requests of a command
// waiting.
func patienceOf(command string, args []string) time.Duration {
	if !slices.Contains([]string{"cat", "get", "ls", "put", "stat", "rm"}, command) {
		return 0
	}
	for _, a := range args {
		if u, err := core.ParseURI(a); err == nil && u.Bucket.Remote() {
			return remotePatience
		}
	}
	return 0
}

// connect returns a client of the cluster that flags and environment name. It
// does not reach out yet.
func (o *options) connect(patience time.Duration) (*client.Client, error) {
	endpoints := o.endpoints()
	access, secret := o.getenv("SHOAL_ACCESS_KEY"), o.getenv("SHOAL_SECRET_KEY")
	switch {
	case access != "" && secret != "":
	case access != "" || secret != "" || !allLoopback(endpoints):
		return nil, usagef("no keys: set SHOAL_ACCESS_KEY and SHOAL_SECRET_KEY")
	default:
		// A cluster on this machine without keys is a development cluster.
		access, secret = config.DevAccessKey, config.DevSecretKey
	}
	c, err := client.New(client.Options{
		Endpoints: endpoints, AccessKey: access, SecretKey: secret, Region: o.getenv("SHOAL_REGION"),
		Log: o.log(), UserAgent: "shoal/" + version(), Patience: patience,
	})
	if errors.Is(err, core.ErrInvalid) || errors.Is(err, core.ErrPermission) {
		return nil, usagef("%v", err)
	}
	return c, err
}

// endpoints are the flag's, the environment's, those of the development
// cluster "dev", or the default port on this machine.
func (o *options) endpoints() []string {
	list := o.endpoint
	if list == "" {
		list = o.getenv("SHOAL_ENDPOINT")
	}
	var out []string
	for e := range strings.SplitSeq(list, ",") {
		if e = strings.TrimSpace(e); e != "" {
			out = append(out, e)
		}
	}
	if len(out) > 0 {
		return out
	}
	if state, err := devcluster.Find(o.stateDir(), devcluster.DefaultName); err == nil {
		return state.Endpoints()
	}
	return []string{fmt.Sprintf("http://127.0.0.1:%d", devcluster.DefaultBasePort)}
}

// stateDir is where development clusters keep their state; "" if the
// environment has no home.
func (o *options) stateDir() string {
	return devcluster.StateDir(o.getenv("XDG_STATE_HOME"), o.getenv("HOME"))
}

func allLoopback(endpoints []string) bool {
	for _, e := range endpoints {
		if !strings.Contains(e, "://") {
			e = "http://" + e
		}
		u, err := url.Parse(e)
		if err != nil {
			return false
		}
		ip := net.ParseIP(u.Hostname())
		if u.Hostname() != "localhost" && (ip == nil || !ip.IsLoopback()) {
			return false
		}
	}
	return true
}

// withClient runs a command that speaks to the cluster.
func (o *options) withClient(f func(ctx context.Context, c *client.Client, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		c, err := o.connect(patienceOf(cmd.Name(), args))
		if err != nil {
			return err
		}
		defer c.Close()
		if args, err = resolveFiles(cmd.Context(), c, args); err != nil {
			return err
		}
		return f(cmd.Context(), c, args)
	}
}

// resolveFiles replaces what names directories and files of the servers by their
// paths: only the servers know below which of their roots these are.
func resolveFiles(ctx context.Context, c *client.Client, args []string) ([]string, error) {
	out := slices.Clone(args)
	for i, a := range args {
		if !strings.HasPrefix(a, "file:///") {
			continue
		}
		u, err := c.Resolve(ctx, a)
		if err != nil {
			return nil, err
		}
		out[i] = u.String()
	}
	return out, nil
}

// limited is ctx under --timeout.
func (o *options) limited(ctx context.Context) (context.Context, context.CancelFunc) {
	if o.timeout == 0 {
		return context.WithCancel(ctx)
	}
	d := time.Duration(o.timeout)
	return context.WithTimeoutCause(ctx, d, timeoutError(d))
}

// timeoutError is why the context of a command ends at --timeout.
type timeoutError time.Duration

func (e timeoutError) Error() string {
	return fmt.Sprintf("timed out after %s (--timeout)", time.Duration(e))
}

// Unwrap makes it a deadline like others.
func (timeoutError) Unwrap() error { return context.DeadlineExceeded }
