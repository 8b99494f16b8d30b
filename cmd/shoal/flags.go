package main

import (
	"time"

	"github.com/spf13/cobra"

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

// args are cobra's validators with errors of usage.
func exactly(n int) cobra.PositionalArgs { return usageArgs(cobra.ExactArgs(n)) }

func between(low, high int) cobra.PositionalArgs { return usageArgs(cobra.RangeArgs(low, high)) }

func atLeast(n int) cobra.PositionalArgs { return usageArgs(cobra.MinimumNArgs(n)) }

func usageArgs(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return usagef("%v\nusage: %s", err, cmd.UseLine())
		}
		return nil
	}
}
