// Package schemetest is the conformance suite of [core.Coder]. A scheme's own
// test is a few lines:
//
//	func TestConformance(t *testing.T) {
//		schemetest.Run(t, func(s core.Scheme, o shardio.Options) (core.Coder, error) { return ec.New(s, o) },
//			core.ErasureCoded(2, 1), core.ErasureCoded(4, 2))
//	}
//
// It runs in the time of testing/synctest: stalls and hedges cost nothing.
package schemetest

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/core/shardio"
)

// New makes the coder to be tested.
type New func(core.Scheme, shardio.Options) (core.Coder, error)

// The options with which the suite makes coders. Small chunks make a long stream
// of few bytes.
const (
	Chunk      = 64 << 10
	StallAfter = 10 * time.Second
	Hedge      = 50 * time.Millisecond
)

// Run runs the suite for each of the schemes.
func Run(t *testing.T, create New, schemes ...core.Scheme) {
	tests := []struct {
		name string
		run  func(*testing.T, *Rig)
	}{
		{"sizes", testSizes},
		{"wrong hints", testHints},
		{"limit", testLimit},
		{"meta", testMeta},
		{"failing source", testSourceFails},
		{"cancelled write", testWriteCancelled},
		{"missing targets", testMissingTargets},
		{"create fails", testCreateFails},
		{"write fails early", testWriteFailsEarly},
		{"write fails late", testWriteFailsLate},
		{"commit fails", testCommitFails},
		{"commit is not acknowledged", testAckLost},
		{"too few disks", testTooFew},
		{"disk full", testDiskFull},
		{"stalled create", testCreateStalls},
		{"stalled write", testWriteStalls},
		{"hung write", testWriteHangs},
		{"stalled commit", testCommitStalls},
		{"all stall", testAllStall},
		{"slow source", testSlowSource},
		{"memory", testMemory},
		{"ranges", testRanges},
		{"bad ranges", testBadRanges},
		{"bytes read", testBytesRead},
		{"concurrent readers", testConcurrentReaders},
		{"losses", testLosses},
		{"too many losses", testTooManyLosses},
		{"scattered damage", testScatteredDamage},
		{"failure in mid-stream", testMidStream},
		{"slow shard", testSlowShard},
		{"hung shard", testHungShard},
		{"slow open", testSlowOpen},
		{"cancelled read", testReadCancelled},
		{"wrong size", testWrongSize},
		{"returning disk", testReturningDisk},
		{"bad specs", testBadSpecs},
		{"repair", testRepair},
		{"repair of too many", testRepairTooMany},
		{"repair fails", testRepairFails},
		{"partial repair", testRepairPartial},
		{"repair with faults", testRepairFaults},
		{"move", testMove},
	}
	for _, s := range schemes {
		t.Run(s.String(), func(t *testing.T) {
			for _, test := range tests {
				t.Run(test.name, func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						c, err := create(s, shardio.Options{Clock: Clock{}, StallAfter: StallAfter, Hedge: Hedge, ChunkSize: Chunk})
						if err != nil {
							t.Fatal(err)
						}
						if c.Scheme() != s {
							t.Fatalf("scheme: got %v, want %v", c.Scheme(), s)
						}
						r := NewRig(c)
						test.run(t, r)
						c.Wait()
						if n := r.inUse(); n != 0 {
							t.Errorf("%d bytes of buffers are in use at the end, want none", n)
						}
					})
				})
			}
		})
	}
}
