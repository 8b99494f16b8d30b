package main

import (
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/shoalstore/shoal/config"
)

// strikeWindow is how long after a job's start the strike comes at the latest.
const strikeWindow = 5 * time.Second

// options are the flags of a script.
type options struct {
	script string

	rounds   int
	minutes  float64 // of chaos; 0 is by rounds
	objects  int
	size     sizeFlag
	seed     uint64
	job      string
	endpoint string
	from, to string
	host     string // of the proxies before the servers of from and to
	faulty   bool
	json     bool
	keep     bool
	strike   string
	restore  string
	part     part // of the node to strike; of chaos ""
	modules  string

	rate    float64
	timeout time.Duration
	nodes   int
	disks   int
	shoal   string
	logs    string
}

// sizeFlag is a number of bytes, as 65536 or 64KiB.
type sizeFlag int64

func (s *sizeFlag) Set(text string) error {
	n, err := config.ParseSize(text)
	*s = sizeFlag(n)
	return err
}

func (s *sizeFlag) String() string { return config.Size(*s).String() }
func (s *sizeFlag) Type() string   { return "size" }

func (o *options) add(f *pflag.FlagSet) {
	f.IntVar(&o.rounds, "rounds", 3, "rounds that count")
	f.IntVar(&o.objects, "objects", 600, "objects of the source bucket")
	f.Var(&o.size, "size", "size of each object (default: 64KiB; with --from 1 to 64 KiB, and one of 500 has 12 MiB)")
	f.Uint64Var(&o.seed, "seed", 0, "seed of all choices (default: drawn, and told)")
	f.StringVar(&o.job, "job", copyKind, "kind of the job that reads one bucket and writes another: "+copyKind+" or "+etlKind+", which transforms the objects")
	f.StringVar(&o.modules, "modules", filepath.Join("wasmetl", "testdata", "c"), "directory of the modules of --job "+etlKind)
	f.StringVar(&o.endpoint, "endpoint", "", "URLs of the nodes of a cluster that runs, with commas; keys from SHOAL_ACCESS_KEY and SHOAL_SECRET_KEY")
	f.StringVar(&o.from, "from", "", "remote bucket to copy from, as s3://NAME, on a server that is started for it; with --to")
	f.StringVar(&o.to, "to", "", "remote bucket to copy to, as gs://NAME; each round's is called NAME-ROUND-ATTEMPT")
	f.StringVar(&o.host, "servers-at", "", "address of this machine at which the cluster at --endpoint reaches the servers of --from and --to (default: 127.0.0.1)")
	f.BoolVar(&o.faulty, "faulty", false, "of --from: 50 ms of latency, 503 to 5 % of the requests, and connections that break")
	f.BoolVar(&o.json, "json", false, "write the result to stdout and nothing else")
	f.BoolVar(&o.keep, "keep", false, "leave the cluster and the buckets as they are in the end")
	f.StringVar(&o.strike, "strike-cmd", "", "command that takes a node or disk out; see STRIKE_NODE and STRIKE_DISK")
	f.StringVar(&o.restore, "restore-cmd", "", "command that brings it back")
	f.Float64Var(&o.rate, "rate-limit", -1, "objects a second of the job in the whole cluster, 0 for no bound (default: a tenth of the objects)")
	f.DurationVar(&o.timeout, "timeout", 5*time.Minute, "how long a job may take, and how long full redundancy")
	f.IntVar(&o.nodes, "nodes", 5, "nodes of the cluster that is started")
	f.IntVar(&o.disks, "disks", 3, "disks of each of them")
	f.StringVar(&o.shoal, "shoal", "bin/shoal", "the program under test")
	f.StringVar(&o.logs, "logs", "", "directory for the nodes' logs when something is amiss (default: a new one in the directory for temporary files)")
}

// addPart adds what chaos has no use for: its own strikes are by other parts.
func (o *options) addPart(f *pflag.FlagSet) {
	f.StringVar((*string)(&o.part), "strike", string(anyNode), "which node is struck: "+string(anyNode)+", "+string(planner)+" (moves the job's states), "+
		string(lister)+" (of a listing of --from), "+string(spoken)+" (the one that the job was started at), "+string(leader)+" (of the bus), or "+string(eachPart)+" of them in turn")
}

// addChaos adds what only chaos has.
func (o *options) addChaos(f *pflag.FlagSet) {
	f.Float64Var(&o.minutes, "minutes", 0, "go on striking for so many minutes, instead of --rounds")
	f.Lookup("rounds").Usage = "strikes"
}

// check completes the options or says what is wrong with them.
func (o *options) check() error {
	switch {
	case o.rounds < 1:
		return usagef("--rounds %d: want 1 or more", o.rounds)
	case o.objects < 1:
		return usagef("--objects %d: want 1 or more", o.objects)
	case (o.strike == "") != (o.restore == ""):
		return usagef("--strike-cmd and --restore-cmd belong together")
	case o.strike != "" && o.endpoint == "":
		return usagef("--strike-cmd is for a cluster that runs: give its --endpoint")
	case o.nodes < 2 && o.endpoint == "":
		return usagef("--nodes %d: want 2 or more, of which one can be lost", o.nodes)
	case o.minutes < 0:
		return usagef("--minutes %v: want 0 or more", o.minutes)
	case o.timeout <= 0:
		return usagef("--timeout %s: want more than 0", o.timeout)
	case (o.from == "") != (o.to == ""):
		return usagef("--from and --to belong together")
	case o.faulty && o.from == "":
		return usagef("--faulty is for remote buckets: give --from and --to")
	case o.host != "" && (o.from == "" || o.endpoint == ""):
		return usagef("--servers-at is for --from and --to with a cluster at --endpoint")
	}
	if o.part != "" {
		if err := checkParts(o.part, o.from != ""); err != nil {
			return err
		}
	}
	if o.from == "" && o.size == 0 {
		o.size = 64 << 10
	}
	if o.from != "" {
		if _, _, err := o.remoteNames(); err != nil {
			return err
		}
		o.rate = max(o.rate, 0)
	}
	if err := checkJob(o.job); err != nil {
		return err
	}
	if o.seed == 0 {
		o.seed = rand.Uint64N(1<<31-1) + 1
	}
	if o.rate < 0 {
		// Twice the window, so that the job outlasts any strike.
		o.rate = float64(o.objects) / (2 * strikeWindow.Seconds())
	}
	return nil
}

// sizeText is --size for people.
func (o *options) sizeText() string {
	if o.size == 0 {
		return "mixed sizes"
	}
	return bytesText(float64(o.size))
}

// endpoints are the URLs that --endpoint names.
func (o *options) endpoints() []string {
	var out []string
	for e := range strings.SplitSeq(o.endpoint, ",") {
		if e = strings.TrimSpace(e); e != "" {
			out = append(out, e)
		}
	}
	return out
}

// draw is the source of the choices of a part of the run. Parts are
// independent, so that a part that is repeated does not change the others.
func (o *options) draw(part string, n int) *rand.Rand {
	return rand.New(rand.NewChaCha8(sha256.Sum256(fmt.Appendf(nil, "%d %s %d", o.seed, part, n))))
}
