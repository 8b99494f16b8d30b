// Command strike takes nodes and disks from a cluster while it works, and
// checks that nothing is lost. It is what the failure scripts run:
//
//	strike cp-rmnode-ec          a copy to ec-3+1 while a node is killed
//	strike cp-rmnode-rebalance   a copy of scheme none while a node goes into maintenance
//	strike cp-rmdisk             a copy to mirror-3 while a disk is lost
//	strike chaos                 mixed traffic and every failure there is, at random
//	strike soak                  all of them in turn, for as long as asked
//
// Without --endpoint it starts a development cluster of its own, of real
// processes on free ports, and removes it in the end. What happens is told on
// stdout, of which the last line is the result as JSON; with --json there is
// nothing else. Stderr is for what is amiss: its first line says what.
//
// The exit code is 0 if all is well, 1 for a difference or a loss, 2 for wrong
// usage, 77 if it cannot run here and 130 after Ctrl-C, which puts back what was
// taken out first.
//
// Every choice (which node, when, what data) comes from --seed. What a cluster
// makes of it is a matter of time, too: a seed repeats the strikes, not the race.
package main
