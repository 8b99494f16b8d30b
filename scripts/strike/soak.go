package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
)

// soakOptions are the flags of soak.
type soakOptions struct {
	minutes float64
	rounds  int
	log     string
	seed    uint64
	shoal   string
	chaos   float64
	scripts []string
}

// soakRound is a line of the log.
type soakRound struct {
	Round   int       `json:"round"`
	Script  string    `json:"script"`
	Seed    uint64    `json:"seed"`
	Started time.Time `json:"started"`
	Seconds float64   `json:"seconds"`
	Exit    int       `json:"exit"`
	// Why is the first line that a failed round wrote to stderr, Output the
	// file with all that it wrote.
	Why    string          `json:"why,omitempty"`
	Output string          `json:"output,omitempty"`
	Result json.RawMessage `json:"result,omitempty"`
}

// soakTotal is the last line of stdout.
type soakTotal struct {
	Script string         `json:"script"`
	Rounds int            `json:"rounds"` // in the log, of all runs
	Failed int            `json:"failed"`
	By     map[string]int `json:"by"` // rounds of each script
	Log    string         `json:"log"`
}

func newSoakCommand(out io.Writer) *cobra.Command {
	o := &soakOptions{}
	cmd := &cobra.Command{
		Use: "soak", Short: "Run all scripts in turn, a round each, and log every round with its seed", Args: noArgs,
		Long: "A run goes on where the log ends. A round that fails is logged with its seed, its output and the nodes' logs, and the next one begins.",
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd.Context(), out) },
	}
	f := cmd.Flags()
	f.Float64Var(&o.minutes, "minutes", 0, "begin no round after so many minutes (default: go on until Ctrl-C)")
	f.IntVar(&o.rounds, "rounds", 0, "rounds of this run (default: no bound)")
	f.StringVar(&o.log, "log", "soak.jsonl", "the log, an object a line")
	f.Uint64Var(&o.seed, "seed", 0, "round n has this seed + n (default: drawn for each)")
	f.Float64Var(&o.chaos, "chaos-minutes", 3, "how long a round of chaos lasts")
	f.StringSliceVar(&o.scripts, "scripts", scriptNames(), "which, with commas")
	f.StringVar(&o.shoal, "shoal", "bin/shoal", "the program under test")
	return cmd
}

// scriptNames are the scripts that soak runs.
func scriptNames() []string {
	var out []string
	for _, s := range copyScripts() {
		out = append(out, s.name)
	}
	return append(out, chaosName)
}

func (o *soakOptions) run(ctx context.Context, out io.Writer) (err error) {
	if len(o.scripts) == 0 || o.minutes < 0 || o.rounds < 0 || o.chaos <= 0 {
		return usagef("want scripts, and positive --minutes, --rounds and --chaos-minutes")
	}
	total, last, err := readSoak(o.log)
	if err != nil {
		return cannotf("%w", err)
	}
	log, err := os.OpenFile(o.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return cannotf("%w", err)
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	end := time.Now().Add(time.Duration(o.minutes * float64(time.Minute)))
	failed := 0
	for n := 1; ctx.Err() == nil && (o.rounds == 0 || n <= o.rounds) && (o.minutes == 0 || time.Now().Before(end)); n++ {
		r, err := o.round(ctx, last+n)
		if ctx.Err() != nil {
			break // it did not end by itself
		}
		if err != nil {
			return err
		}
		line, err := json.Marshal(r)
		if err != nil {
			return err
		}
		if _, err := log.Write(append(line, '\n')); err != nil {
			return fmt.Errorf("%s: %w", o.log, err)
		}
		total.add(r)
		if r.Exit != 0 {
			failed++
		}
		fmt.Fprintf(out, "round %d: %s, seed %d: exit %d after %.0f s %s\n", r.Round, r.Script, r.Seed, r.Exit, r.Seconds, r.Why)
	}
	if err := json.NewEncoder(out).Encode(total); err != nil {
		return err
	}
	if failed > 0 {
		return fmt.Errorf("%d rounds failed; see %s", failed, o.log)
	}
	return nil
}

// readSoak sums a log up.
func readSoak(file string) (total soakTotal, last int, err error) {
	total = soakTotal{Script: "soak", By: map[string]int{}, Log: file}
	f, err := os.Open(file)
	if errors.Is(err, fs.ErrNotExist) {
		return total, 0, nil
	}
	if err != nil {
		return total, 0, err
	}
	defer func() { _ = f.Close() }()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var r soakRound
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			return total, 0, fmt.Errorf("%s is not the log of a soak: %w", file, err)
		}
		total.add(&r)
		last = r.Round
	}
	return total, last, lines.Err()
}

func (t *soakTotal) add(r *soakRound) {
	t.Rounds++
	t.By[r.Script]++
	if r.Exit != 0 {
		t.Failed++
	}
}

// round runs one script once, as a process of its own.
func (o *soakOptions) round(ctx context.Context, n int) (*soakRound, error) {
	r := &soakRound{Round: n, Script: o.scripts[(n-1)%len(o.scripts)], Seed: o.seed + uint64(n), Started: time.Now().UTC()}
	if o.seed == 0 {
		r.Seed = rand.Uint64N(1<<31-1) + 1
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(o.log+".failed", strconv.Itoa(n))
	args := []string{r.Script, "--shoal", o.shoal, "--seed", strconv.FormatUint(r.Seed, 10), "--logs", dir}
	if r.Script == chaosName {
		args = append(args, "--minutes", strconv.FormatFloat(o.chaos, 'f', -1, 64))
	} else {
		args = append(args, "--rounds", "1")
	}
	cmd := exec.CommandContext(ctx, self, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 2 * time.Minute
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err = cmd.Run()
	r.Seconds = time.Since(r.Started).Seconds()
	if r.Exit = cmd.ProcessState.ExitCode(); err != nil && r.Exit == 0 {
		return nil, fmt.Errorf("%s: %w", r.Script, err)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if last := []byte(lines[len(lines)-1]); json.Valid(last) {
		r.Result = last
	}
	if r.Exit == 0 || ctx.Err() != nil {
		return r, nil
	}
	r.Why, _, _ = strings.Cut(errs.String(), "\n")
	r.Output = filepath.Join(dir, "output.txt")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	return r, os.WriteFile(r.Output, append(out.Bytes(), errs.Bytes()...), 0o600)
}
