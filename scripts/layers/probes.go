package main

import (
	"fmt"
	"path"
	"strings"
)

const module = "github.com/shoalstore/shoal"

func suites() []suite {
	return []suite{
		{
			name:    "layers",
			linters: []string{"depguard"},
			marks:   depguardList,
			probes:  importProbes(),
		},
		{
			name:    "habits",
			linters: []string{"errcheck", "forbidigo", "gochecknoglobals", "gochecknoinits", "revive", "sloglint"},
			marks:   func(i issue) string { return i.FromLinter },
			probes:  habitProbes(),
		},
	}
}

// depguardList returns the name of the list of .golangci.yml that an issue comes
// from; depguard puts it in quotes after the word "list".
func depguardList(i issue) string {
	_, after, found := strings.Cut(i.Text, "from list '")
	name, _, closed := strings.Cut(after, "'")
	if i.FromLinter != "depguard" || !found || !closed {
		return i.FromLinter + ": " + i.Text
	}
	return name
}

// importProbes has one file for each (folder, import) below: the rules that must
// refuse it, none where it is allowed.
func importProbes() []probe {
	const (
		core        = module + "/core"
		aws         = "github.com/aws/aws-sdk-go-v2/service/s3"
		backoff     = "github.com/cenkalti/backoff/v5"
		mapstruct   = "github.com/go-viper/mapstructure/v2"
		nats        = "github.com/nats-io/nats.go/jetstream"
		natsServer  = "github.com/nats-io/nats-server/v2/server"
		pebble      = "github.com/cockroachdb/pebble/v2"
		porcupine   = "github.com/anishathalye/porcupine"
		reedsolomon = "github.com/klauspost/reedsolomon"
		viper       = "github.com/spf13/viper"
		wazero      = "github.com/tetratelabs/wazero"
		xsys        = "golang.org/x/sys/unix"
		xxh3        = "github.com/zeebo/xxh3"
	)
	// A package below the folder, one that no probe is in: else the probes, which
	// import each other's folders every way, would be import cycles.
	ours := func(dir string) string { return module + "/" + dir + "/absent" }
	const test = "_test.go" // as a folder's suffix: the probe is a test file
	rows := []struct {
		dir     string
		allowed []string
		refused map[string][]string
	}{
		{
			"core",
			[]string{"errors", "log/slog", "net/http", ours("core/vfs")},
			map[string][]string{
				xxh3: {"core"}, ours("core/slot"): {"core"}, ours("placement"): {"core"},
				nats: {"core", "nats-in-bus"}, aws: {"core", "sdks-at-the-edge"},
				ours("cmd/shoal"): {"core", "nothing-imports-cmd"},
			},
		},
		{
			"core/vfs",
			[]string{"os", core, xsys},
			map[string][]string{ours("core/slot"): {"core-vfs"}, xxh3: {"core-vfs"}},
		},
		{
			"core/storetest",
			[]string{"testing", xxh3, core, ours("core/vfs"), ours("core/disk")},
			map[string][]string{
				ours("core/engine"): {"core-below"}, ours("core/job"): {"core-below"},
				ours("core/peer"): {"core-below"}, ours("core/sim"): {"core-below"},
				ours("bus"): {"core-below"}, pebble: {"core-below"},
			},
		},
		{
			"core/slot",
			[]string{"sort", core, ours("core/slot/internal")},
			map[string][]string{
				"os": {"core-slot"}, "os/exec": {"core-slot"}, "net": {"core-slot"}, "net/http": {"core-slot"},
				"log": {"core-slot"}, "log/slog": {"core-slot"}, ours("core/vfs"): {"core-slot"},
				ours("placement"): {"core-slot"}, xxh3: {"core-slot"},
			},
		},
		{
			"core/sim",
			[]string{"os", core, ours("core/slot"), ours("core/sim/history"), ours("placement"), porcupine},
			map[string][]string{ours("ec"): {"core-sim"}, ours("core/engine"): {"core-sim"}, pebble: {"core-sim"}},
		},
		{
			"core/disk",
			[]string{"os", pebble, xxh3, xsys, core, ours("core/vfs"), ours("core/slot"), ours("core/disk/segment")},
			map[string][]string{
				ours("core/engine"): {"core-disk"}, ours("core/job"): {"core-disk"}, ours("core/peer"): {"core-disk"},
				ours("core/sim"): {"core-disk"}, ours("placement"): {"core-disk"}, ours("ec"): {"core-disk"},
			},
		},
		{
			"core/peer",
			[]string{"net", xsys, core, ours("core/peer")},
			map[string][]string{ours("core/disk"): {"core-peer"}, ours("placement"): {"core-peer"}, xxh3: {"core-peer"}},
		},
		{
			"core/remote",
			[]string{"errors", core, ours("core/remote")},
			map[string][]string{
				"net": {"core-remote"}, "os": {"core-remote"}, ours("core/engine"): {"core-remote"}, ours("placement"): {"core-remote"},
				pebble: {"core-remote"},
			},
		},
		{
			"core/engine",
			[]string{
				"net/http", core, ours("core/slot"), ours("core/disk"), ours("core/peer"), ours("placement"),
				ours("ec"), ours("mirror"), ours("wasmetl"), ours("bus"), backoff, xxh3, xsys,
				"github.com/google/uuid", "github.com/minio/crc64nvme", "github.com/prometheus/client_golang/prometheus",
				"golang.org/x/sync/errgroup", "golang.org/x/time/rate",
			},
			map[string][]string{
				ours("config"): {"core-engine-and-job"}, ours("plugins/s3backend"): {"core-engine-and-job"},
				ours("core/sim"): {"core-engine-and-job"}, pebble: {"core-engine-and-job"},
				ours("cmd/shoal"): {"core-engine-and-job", "nothing-imports-cmd"},
				nats:              {"core-engine-and-job", "nats-in-bus"},
				wazero:            {"core-engine-and-job", "wazero-in-wasmetl"},
				viper:             {"core-engine-and-job", "viper-in-config"},
				aws:               {"core-engine-and-job", "sdks-at-the-edge"},
			},
		},
		{
			"core/job",
			[]string{ours("core/engine"), ours("bus"), ours("placement"), ours("wasmetl")},
			map[string][]string{ours("config"): {"core-engine-and-job"}, ours("plugins"): {"core-engine-and-job"}},
		},
		{
			"placement",
			[]string{"slices", core, ours("placement"), xxh3},
			map[string][]string{
				"os": {"placement"}, "net/http": {"placement"}, "log/slog": {"placement"},
				ours("core/slot"): {"placement"}, ours("ec"): {"placement"}, ours("bus"): {"placement"},
			},
		},
		{
			"mirror",
			[]string{"io", core, ours("mirror"), xxh3},
			map[string][]string{
				"os": {"mirror"}, "net": {"mirror"}, "log": {"mirror"},
				ours("ec"): {"mirror"}, ours("core/disk"): {"mirror"}, reedsolomon: {"mirror"},
			},
		},
		{
			"ec",
			[]string{"io", core, ours("ec"), xxh3, reedsolomon},
			map[string][]string{
				"os": {"ec"}, "net": {"ec"}, "log": {"ec"}, ours("mirror"): {"ec"}, ours("core/vfs"): {"ec"},
			},
		},
		{
			"wasmetl",
			[]string{"log/slog", core, ours("wasmetl/abi"), wazero},
			map[string][]string{ours("bus"): {"wasmetl"}, ours("core/disk"): {"wasmetl"}, nats: {"nats-in-bus", "wasmetl"}},
		},
		{
			"bus",
			[]string{"net", core, ours("bus/membus"), nats, natsServer},
			map[string][]string{ours("placement"): {"bus"}, ours("core/slot"): {"bus"}, viper: {"bus", "viper-in-config"}},
		},
		{
			"bus/natsbus",
			[]string{core, ours("bus"), nats, natsServer},
			map[string][]string{ours("config"): {"bus"}, aws: {"bus", "sdks-at-the-edge"}},
		},
		{
			"config",
			[]string{"os", ours("config"), viper, mapstruct},
			map[string][]string{core: {"config"}, ours("bus"): {"config"}, nats: {"config", "nats-in-bus"}},
		},
		{
			"plugins/s3gateway",
			[]string{"net/http", core, aws, "k8s.io/client-go/kubernetes"},
			map[string][]string{
				ours("bus"): {"plugins"}, ours("config"): {"plugins"}, ours("placement"): {"plugins"},
				ours("ec"): {"plugins"}, ours("mirror"): {"plugins"}, ours("wasmetl"): {"plugins"},
				ours("core/disk"): {"plugins"}, ours("core/engine"): {"plugins"}, ours("core/job"): {"plugins"},
				ours("core/peer"): {"plugins"}, ours("core/sim"): {"plugins"}, ours("core/slot"): {"plugins"},
				ours("cmd/shoal"): {"nothing-imports-cmd"}, nats: {"nats-in-bus"}, wazero: {"wazero-in-wasmetl"},
			},
		},
		{
			"cmd/shoal",
			[]string{
				ours("core/engine"), ours("config"), ours("plugins/s3gateway"), ours("bus/natsbus"),
				ours("cmd/shoal/dev"), aws, "google.golang.org/api/option",
			},
			map[string][]string{
				nats: {"nats-in-bus"}, wazero: {"wazero-in-wasmetl"}, viper: {"viper-in-config"},
				ours("scripts/bench"): {"nothing-imports-scripts"},
			},
		},
		{
			"scripts/bench",
			[]string{ours("core/engine"), ours("scripts/layers"), aws},
			map[string][]string{ours("cmd/shoal"): {"nothing-imports-cmd"}, viper: {"viper-in-config"}},
		},
		{
			"mirror" + test,
			[]string{"os", "net/http", ours("core/storetest"), nats, aws},
			map[string][]string{
				ours("cmd/shoal"): {"nothing-imports-cmd"}, wazero: {"wazero-in-wasmetl"}, viper: {"viper-in-config"},
				ours("scripts/bench"): {"nothing-imports-scripts"},
			},
		},
		{
			"deploy",
			[]string{core},
			map[string][]string{
				"cloud.google.com/go/storage": {"sdks-at-the-edge"}, "google.golang.org/api/option": {"sdks-at-the-edge"},
				"k8s.io/api/core/v1": {"sdks-at-the-edge"},
			},
		},
	}

	var probes []probe
	for _, row := range rows {
		dir, isTest := strings.CutSuffix(row.dir, test)
		suffix := ".go"
		if isTest {
			suffix = test
		}
		add := func(imported, suffix string, want []string) {
			name := strings.NewReplacer("/", "_", ".", "_").Replace(imported) + "_probe" + suffix
			probes = append(probes, probe{
				file:   path.Join(dir, name),
				source: fmt.Sprintf("package %s\n\nimport _ %q\n", path.Base(dir), imported),
				want:   want,
			})
		}
		for _, imported := range row.allowed {
			add(imported, suffix, nil)
		}
		for imported, want := range row.refused {
			add(imported, suffix, want)
		}
		if !isTest {
			// A package's tests may set up what is above it.
			add(ours("core/engine"), test, nil)
		}
	}
	return probes
}

// habitProbes breaks the rules that are settings of this repository rather than a
// linter's own. They import the standard library only, because these linters need
// types.
func habitProbes() []probe {
	const pkg = "// Package p is a probe.\npackage p\n\n"
	calls := map[string]string{
		"time_now":       "import \"time\"\n\nvar _ = time.Now()\n",
		"time_sleep":     "import \"time\"\n\nfunc _() { time.Sleep(1) }\n",
		"time_after":     "import \"time\"\n\nfunc _() { <-time.After(1) }\n",
		"time_afterfunc": "import \"time\"\n\nfunc _() { time.AfterFunc(1, nil) }\n",
		"time_tick":      "import \"time\"\n\nfunc _() { <-time.Tick(1) }\n",
		"time_newtimer":  "import \"time\"\n\nfunc _() { time.NewTimer(1) }\n",
		"time_newticker": "import \"time\"\n\nfunc _() { time.NewTicker(1) }\n",
		"time_since":     "import \"time\"\n\nvar _ = time.Since(time.Time{})\n",
		"time_until":     "import \"time\"\n\nvar _ = time.Until(time.Time{})\n",
		"time_renamed":   "import clock \"time\"\n\nvar _ = clock.Now()\n",
		"ctx_background": "import \"context\"\n\nvar _ = context.Background()\n",
		"ctx_todo":       "import \"context\"\n\nvar _ = context.TODO()\n",
		"os_exit":        "import \"os\"\n\nfunc _() { os.Exit(1) }\n",
		"os_getenv":      "import \"os\"\n\nvar _ = os.Getenv(\"A\")\n",
		"os_lookupenv":   "import \"os\"\n\nvar _, _ = os.LookupEnv(\"A\")\n",
		"os_environ":     "import \"os\"\n\nvar _ = os.Environ()\n",
		"fmt_print":      "import \"fmt\"\n\nfunc _() { fmt.Print(1) }\n",
		"fmt_printf":     "import \"fmt\"\n\nfunc _() { fmt.Printf(\"1\") }\n",
		"fmt_println":    "import \"fmt\"\n\nfunc _() { fmt.Println(1) }\n",
	}
	var probes []probe
	for name, source := range calls {
		probes = append(probes, probe{"core/job/" + name + ".go", pkg + source, []string{"forbidigo"}})
		// These say when they run and end the process themselves, by their nature.
		probes = append(probes,
			probe{"cmd/shoal/" + name + ".go", pkg + source, nil},
			probe{"config/" + name + ".go", pkg + source, nil},
			probe{"scripts/bench/" + name + ".go", pkg + source, nil},
			probe{"core/job/" + name + "_test.go", pkg + source, nil},
		)
	}
	for name, p := range map[string]probe{
		"global":        {source: "var counter int\n\nfunc _() { counter++ }\n", want: []string{"gochecknoglobals"}},
		"init":          {source: "func init() {}\n", want: []string{"gochecknoinits"}},
		"unchecked":     {source: "import \"os\"\n\nfunc _(f *os.File) { f.Sync() }\n", want: []string{"errcheck"}},
		"fprint":        {source: "import (\n\t\"fmt\"\n\t\"io\"\n)\n\nfunc _(w io.Writer) {\n\tfmt.Fprint(w, 1)\n\tfmt.Fprintf(w, \"1\")\n\tfmt.Fprintln(w, 1)\n}\n"},
		"readcloser":    {source: "import \"io\"\n\nfunc _(r io.ReadCloser) { defer r.Close() }\n"},
		"undocumented":  {source: "func Exported() {}\n", want: []string{"revive"}},
		"ctx_second":    {source: "import \"context\"\n\nfunc _(n int, ctx context.Context) { _, _ = n, ctx }\n", want: []string{"revive"}},
		"slog_global":   {source: "import \"log/slog\"\n\nfunc _() { slog.Info(\"up\") }\n", want: []string{"sloglint"}},
		"slog_case":     {source: "import \"log/slog\"\n\nfunc _(l *slog.Logger) { l.Info(\"up\", \"nodeName\", 1) }\n", want: []string{"sloglint"}},
		"slog_mixed":    {source: "import \"log/slog\"\n\nfunc _(l *slog.Logger) { l.Info(\"up\", \"a\", 1, slog.Int(\"b\", 2)) }\n", want: []string{"sloglint"}},
		"slog_variable": {source: "import \"log/slog\"\n\nfunc _(l *slog.Logger, m string) { l.Info(m) }\n", want: []string{"sloglint"}},
		"slog_good":     {source: "import \"log/slog\"\n\nfunc _(l *slog.Logger) { l.Info(\"up\", \"node\", 1) }\n"},
	} {
		probes = append(probes, probe{"bus/" + name + ".go", pkg + p.source, p.want})
	}
	// A package without a comment, in a folder of its own so that no other file has one.
	return append(probes, probe{"bus/bare/bare.go", "package bare\n", []string{"revive"}})
}
