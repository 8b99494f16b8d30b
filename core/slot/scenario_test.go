package slot

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/shoalstore/shoal/core"
)

var rewrite = flag.Bool("rewrite", false, "write what the scenarios print into their files")

// TestScenarios plays the files of testdata: commands, each followed by what it
// printed, indented.
//
//	cluster NODES VOTERS DISK,...   one slot, in sync on these disks
//	settle                          deliver and store all that is under way
//	run DURATION                    ticks of 100 ms, settling
//	write NODE KEY=VALUE            an empty value deletes
//	read NODE                       what a write of "write NODE KEY=VALUE read" rests on
//	row DISK,... [+DISK,...] [voters=NODE,...] [to NODE ...]
//	                                the next map, shown to all or some nodes,
//	                                with every node's present boot
//	maps                            which maps each node knows
//	show NODE ...                   the newest map to some nodes
//	cut NODE ... | heal             lose all messages from and to
//	stall NODE | resume NODE        hold back the node's batches
//	crash NODE [KEEP] | start NODE  with a new boot; KEEP batches made it
//	replug NODE                     take the disk out and put it back
//	reclaim NODE                    forget the slot, if the disk is no member
//	hold KIND [TO [FROM]] | release keep messages back, and deliver them
//	again                           deliver what was held once more
//	print                           the disks, and who serves
func TestScenarios(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scenarios: %v", err)
	}
	for _, f := range files {
		t.Run(strings.TrimSuffix(filepath.Base(f), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			got, err := play(string(text))
			if err != nil {
				t.Fatal(err)
			}
			if *rewrite {
				if err := os.WriteFile(f, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			} else if got != string(text) {
				t.Errorf("got:\n%s\nwant:\n%s", got, text)
			}
		})
	}
}

// play carries out the commands of a script and returns it with their output.
func play(script string) (string, error) {
	var out strings.Builder
	var s *stage
	for line := range strings.SplitSeq(strings.TrimRight(script, "\n"), "\n") {
		if strings.HasPrefix(line, "    ") {
			continue
		}
		out.WriteString(line + "\n")
		words := strings.Fields(line)
		if len(words) == 0 || words[0] == "#" {
			continue
		}
		var err error
		if words[0] == "cluster" {
			s, err = cluster(words[1:])
		} else {
			err = s.command(words)
		}
		if err != nil {
			return "", fmt.Errorf("%s: %w", line, err)
		}
		for l := range strings.SplitSeq(strings.TrimRight(s.out.String(), "\n"), "\n") {
			if l != "" {
				out.WriteString("    " + l + "\n")
			}
		}
		s.out.Reset()
	}
	return out.String(), nil
}

func cluster(args []string) (*stage, error) {
	nodes, _ := strconv.Atoi(args[0])
	voters, _ := strconv.Atoi(args[1])
	insync, err := diskList(args[2])
	if err != nil {
		return nil, err
	}
	return newStage(nodes, voters, insync...), nil
}

func diskList(text string) (out []core.DiskID, err error) {
	for w := range strings.SplitSeq(text, ",") {
		n, err := strconv.Atoi(w)
		if err != nil {
			return nil, err
		}
		out = append(out, core.DiskID(n))
	}
	return out, nil
}

func nodeList(words []string) (out []core.NodeID) {
	for _, w := range words {
		out = append(out, core.NodeID(w))
	}
	return out
}

// kinds are the names of messages in scripts.
var kinds = map[string]Kind{
	"report": MsgReport, "grant": MsgGrant, "confirmed": MsgConfirmed, "seal": MsgSeal, "sealed": MsgSealed,
	"sync": MsgSync, "append": MsgAppend, "ack": MsgAck, "catchup": MsgCatchup, "caughtup": MsgCaughtUp, "mark": MsgMark,
	"map": MsgMap,
}

func (s *stage) command(words []string) error {
	args := words[1:]
	switch words[0] {
	case "settle":
		s.settle()
	case "run":
		d, err := time.ParseDuration(args[0])
		if err != nil {
			return err
		}
		s.run(d)
	case "read":
		s.read(core.NodeID(args[0]))
	case "write":
		if len(args) == 2 {
			s.read(core.NodeID(args[0]))
		}
		key, value, _ := strings.Cut(args[1], "=")
		s.propose(core.NodeID(args[0]), key, value)
	case "row":
		return s.row(args)
	case "maps":
		s.printMaps()
	case "show":
		s.show(nodeList(args)...)
	case "cut":
		for _, id := range nodeList(args) {
			s.cut[id] = true
		}
	case "heal":
		clear(s.cut)
	case "stall":
		s.actors[core.NodeID(args[0])].stalled = true
	case "resume":
		s.actors[core.NodeID(args[0])].stalled = false
	case "crash":
		keep := 0
		if len(args) > 1 {
			keep, _ = strconv.Atoi(args[1])
		}
		s.crash(core.NodeID(args[0]), keep)
	case "start":
		s.actors[core.NodeID(args[0])].boot++
		s.start(core.NodeID(args[0]))
	case "replug":
		s.replug(core.NodeID(args[0]))
	case "reclaim":
		s.reclaim(core.NodeID(args[0]))
	case "hold":
		kind, ok := kinds[args[0]]
		if !ok {
			return fmt.Errorf("no such message")
		}
		s.hold = func(e envelope) bool {
			return e.msg.Kind == kind && (len(args) < 2 || string(e.to) == args[1]) && (len(args) < 3 || string(e.from) == args[2])
		}
	case "release":
		s.hold = nil
		s.again()
	case "again":
		s.again()
	case "print":
		s.print()
	default:
		return fmt.Errorf("no such command")
	}
	return nil
}

// again delivers all messages that were held; they stay for another time.
func (s *stage) again() {
	for _, e := range s.held {
		s.deliver(e)
	}
}

func (s *stage) row(args []string) error {
	insync, err := diskList(args[0])
	if err != nil {
		return err
	}
	var joining []core.DiskID
	var voters []core.Voter
	for args = args[1:]; len(args) > 0 && args[0] != "to"; args = args[1:] {
		if list, ok := strings.CutPrefix(args[0], "+"); ok {
			if joining, err = diskList(list); err != nil {
				return err
			}
		}
		if list, ok := strings.CutPrefix(args[0], "voters="); ok {
			for _, id := range nodeList(strings.Split(list, ",")) {
				voters = append(voters, core.Voter{Node: id, Key: s.actors[id].voter.Key})
			}
		}
	}
	s.next(func(m *core.Map) {
		if !slices.Equal(m.Slots[0].Insync, insync) || !slices.Equal(m.Slots[0].Joining, joining) {
			m.Slots[0] = core.Slot{Term: m.Epoch, Insync: insync, Joining: joining}
		}
		for _, a := range s.actors {
			m.Node(a.id).Boot = a.boot
		}
		if voters != nil {
			m.Voters = voters
		}
	})
	if len(args) > 0 {
		s.show(nodeList(args[1:])...)
	} else {
		s.show()
	}
	return nil
}
