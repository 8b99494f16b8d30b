package main

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

var update = flag.Bool("update", false, "write docs/cli.md")

// intro is what docs/cli.md says before the commands.
const intro = `# The command line

<!-- Written by "go test ./cmd/shoal -run TestDocs -update" from the commands themselves. -->

One program, ` + "`shoal`" + `, is the server and the client. This page lists the client's commands and those that run nodes; configuration is in [config.md](config.md).

    shoal dev up -d --nodes 5 --disks 3     # a cluster on this machine
    shoal bucket create shoal://train
    shoal put -r ./shards shoal://train
    shoal cp shoal://train shoal://copy --progress
    shoal show cluster

**Where the cluster is.** ` + "`--endpoint` or `SHOAL_ENDPOINT`" + ` name one or more nodes, with commas; the client goes on to the next when one dies, in the middle of a transfer or of a job's progress too. Without them it takes the development cluster "dev", or http://127.0.0.1:7070. ` + "`SHOAL_ACCESS_KEY` and `SHOAL_SECRET_KEY`" + ` are the keys (for a cluster on this machine the development keys, if unset), ` + "`SHOAL_REGION`" + ` the region if it is not us-east-1.

**Names.** ` + "`shoal://bucket/key`, `s3://bucket/key`, `gs://bucket/key`" + `; no scheme means ` + "`shoal://`" + `. A plain path is a file here, ` + "`file:///path`" + ` one of the servers (` + "`backends.file.roots`" + ` in their configuration): ` + "`file://ROOT/...`" + ` is the same.

**Values.** Durations are ` + "`3` (seconds) or `3s`, `1m30s`" + `; sizes ` + "`65536`, `64KiB`, `10MB`" + `.

**Output.** Results go to stdout, progress and hints to stderr: as bars on a terminal, as a line per refresh elsewhere. ` + "`--json`" + ` prints one document; listings and progress are an object a line, errors are ` + "`{\"error\":{\"code\",\"message\",\"hint\"}}`" + ` on stderr. What destroys something asks on a terminal and needs ` + "`--yes`" + ` elsewhere.

**Jobs** run in the cluster. Ctrl-C leaves them running and prints the commands to wait and to stop.

| exit code | meaning |
|---|---|
| 0 | ok |
| 1 | another error |
| 2 | wrong usage |
| 3 | not found |
| 4 | conflict, or refused |
| 5 | unavailable, or timed out |
| 6 | the job ended with failed objects |
| 7 | the job was stopped |
| 130 | detached by Ctrl-C |

**Completion** of commands, buckets, nodes, disks, jobs and kinds of jobs: ` + "`shoal completion bash|zsh|fish --help`" + `.

`

// TestDocs holds docs/cli.md to the commands.
func TestDocs(t *testing.T) {
	const file = "../../docs/cli.md"
	var b strings.Builder
	b.WriteString(intro)
	root := newRootCommand(&options{getenv: func(string) string { return "" }})
	b.WriteString("## Global flags\n\n")
	writeFlags(&b, root.PersistentFlags())
	for _, g := range root.Groups() {
		fmt.Fprintf(&b, "## %s\n\n", strings.TrimSuffix(g.Title, ":"))
		for _, c := range root.Commands() {
			if c.GroupID == g.ID {
				document(&b, c)
			}
		}
	}
	if *update {
		if err := os.WriteFile(file, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != b.String() {
		t.Error("docs/cli.md is not what the commands say: go test ./cmd/shoal -run TestDocs -update")
	}
}

func document(b *strings.Builder, c *cobra.Command) {
	if c.Runnable() && !c.HasSubCommands() {
		use := strings.TrimSpace(strings.TrimSuffix(c.UseLine(), "[flags]"))
		fmt.Fprintf(b, "### `%s`\n\n%s.", use, strings.TrimSuffix(c.Short, "."))
		if c.Long != "" {
			fmt.Fprintf(b, " %s", strings.ReplaceAll(c.Long, "\n", " "))
		}
		b.WriteString("\n\n")
		if c.Example != "" {
			for line := range strings.SplitSeq(c.Example, "\n") {
				fmt.Fprintf(b, "    %s\n", strings.TrimPrefix(line, "  "))
			}
			b.WriteString("\n")
		}
		writeFlags(b, c.NonInheritedFlags())
	}
	for _, child := range c.Commands() {
		document(b, child)
	}
}

func writeFlags(b *strings.Builder, f *pflag.FlagSet) {
	if !f.HasAvailableFlags() {
		return
	}
	f.VisitAll(func(f *pflag.Flag) {
		if f.Hidden || f.Name == "help" {
			return
		}
		name := "--" + f.Name
		if f.Shorthand != "" {
			name = "-" + f.Shorthand + ", " + name
		}
		switch kind := f.Value.Type(); kind {
		case "bool":
		case "stringSlice":
			name += " LIST"
		case "stringArray":
			name += " STRING ..."
		case "int", "uint64":
			name += " N"
		default:
			name += " " + strings.ToUpper(kind)
		}
		text := f.Usage
		switch f.DefValue {
		case "", "0", "false", "[]":
		default:
			text += " (default " + f.DefValue + ")"
		}
		fmt.Fprintf(b, "- `%s`: %s\n", name, text)
	})
	b.WriteString("\n")
}

// TestEveryCommandIsDescribed wants a short text of every command, and a group
// of every command of the root.
func TestEveryCommandIsDescribed(t *testing.T) {
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		if c.Short == "" || strings.HasSuffix(c.Short, ".") {
			t.Errorf("%s: short text %q", c.CommandPath(), c.Short)
		}
		for _, child := range c.Commands() {
			walk(child)
		}
	}
	root := newRootCommand(&options{getenv: func(string) string { return "" }})
	walk(root)
	for _, c := range root.Commands() {
		if c.GroupID == "" && !c.Hidden {
			t.Errorf("%s has no group", c.CommandPath())
		}
	}
}
