package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/shoalstore/shoal/core"
)

// TestConfirmInterrupted wants Ctrl-C to end a question.
func TestConfirmInterrupted(t *testing.T) {
	never, w := io.Pipe()
	t.Cleanup(func() { _ = w.Close() }) // ends the read
	var asked strings.Builder
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errInterrupted)
	o := &options{in: never, err: &asked, inTerminal: true}
	if err := o.confirm(ctx, "Really?"); exitCode(err) != exitDetached || !strings.HasPrefix(asked.String(), "Really? [y/N]") {
		t.Errorf("got %v after %q, want %v", err, asked.String(), errInterrupted)
	}
}

// TestRefreshInterrupted wants Ctrl-C to be how a repeated display ends well, also
// while it asks the cluster; without --refresh it is an error.
func TestRefreshInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	show := func() error { cancel(errInterrupted); return errInterrupted }
	if err := (&repeatFlags{refresh: 1}).run(ctx, show); err != nil {
		t.Errorf("with --refresh: got %v", err)
	}
	if err := (&repeatFlags{}).run(ctx, show); exitCode(err) != exitDetached {
		t.Errorf("once: got %v, want %v", err, errInterrupted)
	}
}

func TestPlain(t *testing.T) {
	for _, c := range []struct {
		err  error
		want string
	}{
		{fmt.Errorf("scheme %q: %w", "x", core.ErrInvalid), `scheme "x"`},
		{fmt.Errorf("regex: %w: missing )", core.ErrInvalid), "regex: missing )"},
		{errors.Join(fmt.Errorf("a: %w", core.ErrInvalid), fmt.Errorf("b: %w", core.ErrInvalid)), "a\nb"},
		{fmt.Errorf("job kind: %w", errors.ErrUnsupported), "job kind"},
		{fmt.Errorf("key: %w", core.ErrNotFound), "key: not found"},
		{errInterrupted, "interrupted"},
		{fmt.Errorf("PUT /b/k: %w (Put \"http://h\": %w)", errInterrupted, errInterrupted), "PUT /b/k: interrupted"},
	} {
		if got := plain(c.err); got != c.want {
			t.Errorf("plain(%q): got %q, want %q", c.err, got, c.want)
		}
	}
}
