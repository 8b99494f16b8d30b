package main

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/shoalstore/shoal/config"
)

// durationFlag takes 3 (seconds) or 3s.
type durationFlag time.Duration

func (d *durationFlag) String() string {
	if *d == 0 {
		return ""
	}
	return time.Duration(*d).String()
}

func (d *durationFlag) Set(s string) error {
	v, err := config.ParseDuration(s)
	*d = durationFlag(v)
	return err
}

func (*durationFlag) Type() string { return "duration" }

// sizeFlag takes 65536 or 64KiB.
type sizeFlag config.Size

func (s *sizeFlag) String() string {
	if *s == 0 {
		return ""
	}
	return config.Size(*s).String()
}

func (s *sizeFlag) Set(t string) error {
	v, err := config.ParseSize(t)
	*s = sizeFlag(v)
	return err
}

func (*sizeFlag) Type() string { return "size" }

// countFlag takes a whole number, 0 or above.
type countFlag int

func (c *countFlag) String() string { return strconv.Itoa(int(*c)) }

func (c *countFlag) Set(s string) error {
	n, err := strconv.ParseUint(s, 10, 31)
	if err != nil {
		return fmt.Errorf("%q: want a whole number, 0 or above", s)
	}
	*c = countFlag(n)
	return nil
}

func (*countFlag) Type() string { return "int" }

// count adds a flag that takes a whole number, 0 or above.
func count(f *pflag.FlagSet, to *int, name string, preset int, usage string) {
	*to = preset
	f.Var((*countFlag)(to), name, usage)
}

// flagError says what is wrong with a flag.
func flagError(cmd *cobra.Command, err error) error {
	if e, ok := errors.AsType[*pflag.InvalidValueError](err); ok {
		cause := e.Unwrap()
		if _, ok := errors.AsType[*strconv.NumError](cause); ok {
			what := "a whole number, 0 or above"
			if e.GetFlag().Value.Type() == "bool" {
				what = "true or false"
			}
			cause = fmt.Errorf("%q: want %s", e.GetValue(), what)
		}
		err = fmt.Errorf("--%s %w", e.GetFlag().Name, cause)
	}
	return wrongUse(cmd, err)
}

// wrongUse is an error of the command line, with how the command is used.
func wrongUse(cmd *cobra.Command, err error) error {
	return usagef("%w\nusage: %s", err, cmd.UseLine())
}

// exactly, between and atLeast check how many arguments there are. The command's
// Use names them.
func exactly(n int) cobra.PositionalArgs { return between(n, n) }

func atLeast(n int) cobra.PositionalArgs { return between(n, math.MaxInt) }

func between(low, high int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < low:
			missing := argNames(cmd.Use)
			missing = missing[min(len(args), len(missing)):min(low, len(missing))]
			return wrongUse(cmd, fmt.Errorf("missing %s", strings.Join(missing, " ")))
		case len(args) > high:
			return wrongUse(cmd, fmt.Errorf("%q is one argument too many", args[high]))
		}
		return nil
	}
}

// argNames are the names of a command's arguments, as Use has them before its flags.
func argNames(use string) []string {
	names := strings.Fields(use)[1:]
	for i, n := range names {
		if strings.HasPrefix(strings.TrimPrefix(n, "["), "--") {
			return names[:i]
		}
	}
	return names
}
