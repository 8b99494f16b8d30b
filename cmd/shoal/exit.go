package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/shoalstore/shoal/cmd/shoal/internal/devcluster"
	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/plugins/api"
)

// The exit codes.
const (
	exitOther       = 1
	exitUsage       = 2
	exitNotFound    = 3
	exitRefused     = 4
	exitUnavailable = 5
	exitJobFailed   = 6
	exitJobStopped  = 7
	exitDetached    = 130
)

// codedError is an error that decides the exit code.
type codedError struct {
	code int
	err  error
}

func (e *codedError) Error() string { return e.err.Error() }
func (e *codedError) Unwrap() error { return e.err }

func withCode(code int, err error) error { return &codedError{code, err} }

// errSilent ends a command whose output has said everything.
var errSilent = errors.New("said already")

// usagef is an error of the command line itself.
func usagef(format string, args ...any) error {
	return withCode(exitUsage, fmt.Errorf(format, args...))
}

// exitCode is the process's exit code for a command's error.
func exitCode(err error) int {
	if err == nil {
		return 0
	}
	if c, ok := errors.AsType[*codedError](err); ok {
		return c.code
	}
	if errors.Is(err, errInterrupted) {
		return exitDetached
	}
	if e, ok := errors.AsType[*api.Error](err); ok {
		switch e.Code {
		case api.CodeRefused, api.CodeNotBuilt:
			return exitRefused
		case api.CodeTimedOut:
			return exitUnavailable
		}
	}
	for _, k := range []struct {
		code int
		errs []error
	}{
		{exitNotFound, []error{core.ErrNotFound, core.ErrNoSuchBucket, core.ErrNoSuchUpload, fs.ErrNotExist}},
		{exitRefused, []error{
			core.ErrExists, core.ErrNotEmpty, core.ErrConflict, core.ErrPrecondition, core.ErrPermission, core.ErrTooLarge, core.ErrLocked, core.ErrWrongRegion,
		}},
		{exitUnavailable, []error{core.ErrUnavailable, core.ErrUnknownOutcome, core.ErrThrottled, context.DeadlineExceeded}},
		{exitUsage, []error{core.ErrInvalid}},
	} {
		for _, target := range k.errs {
			if errors.Is(err, target) {
				return k.code
			}
		}
	}
	return exitOther
}

// report tells stderr of a command's error.
func (o *options) report(err error) {
	if errors.Is(err, errSilent) {
		return
	}
	hint := ""
	if e, ok := errors.AsType[*api.Error](err); ok {
		hint = e.Hint
	}
	if hint == "" && unreached(err) {
		hint = "is the cluster running? --endpoint or SHOAL_ENDPOINT say where it is; now: " + strings.Join(o.endpoints(), ",")
	}
	text := plain(err)
	if !o.json {
		fmt.Fprintf(o.err, "shoal: %s\n", text)
		if hint != "" {
			fmt.Fprintf(o.err, "hint: %s\n", hint)
		}
		return
	}
	e := api.FromError(err)
	body, jsonErr := json.Marshal(api.ErrorBody{Error: &api.Error{Code: errorCode(err, e), Message: text, Hint: hint}})
	if jsonErr != nil {
		fmt.Fprintf(o.err, "shoal: %s\n", text)
		return
	}
	fmt.Fprintf(o.err, "%s\n", body)
}

// unreached says whether no node could be reached at all.
func unreached(err error) bool {
	if errors.Is(err, devcluster.ErrEnded) || errors.Is(err, errInterrupted) {
		return false
	}
	return strings.Contains(err.Error(), "connection refused") || strings.Contains(err.Error(), "no such host")
}

// plain is an error's text without the words of sentinels that say no more than the
// exit code does.
func plain(err error) string {
	text := err.Error()
	for _, sentinel := range []error{core.ErrInvalid, errors.ErrUnsupported} {
		words := ": " + sentinel.Error()
		text = strings.TrimSuffix(text, words)
		text = strings.ReplaceAll(text, words+"\n", "\n")
		text = strings.ReplaceAll(text, words+": ", ": ")
	}
	if errors.Is(err, errInterrupted) {
		// What follows is how the transport says the same.
		text, _, _ = strings.Cut(text, ": "+errInterrupted.Error())
		if text != errInterrupted.Error() {
			text += ": " + errInterrupted.Error()
		}
	}
	return text
}

// errorCode is the code of an error under --json.
func errorCode(err error, e *api.Error) api.Code {
	switch {
	case e.Code != api.CodeInternal:
		return e.Code
	case exitCode(err) == exitUsage:
		return api.CodeInvalid
	case exitCode(err) == exitNotFound:
		return api.CodeNotFound
	case exitCode(err) == exitRefused:
		return api.CodeRefused
	}
	return e.Code
}
