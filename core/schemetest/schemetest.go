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
	"github.com/shoalstore/shoal/core/memstore"
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
		name  string
		run   func(*testing.T, *Rig)
		chunk int64 // 0: Chunk
	}{
		{"sizes", testSizes, 0},
		{"wrong hints", testHints, 0},
		{"limit", testLimit, 0},
		{"meta", testMeta, 0},
		{"failing source", testSourceFails, 0},
		{"cancelled write", testWriteCancelled, 0},
		{"missing targets", testMissingTargets, 0},
		{"create fails", testCreateFails, 0},
		{"write fails early", testWriteFailsEarly, 0},
		{"write fails late", testWriteFailsLate, 0},
		{"commit fails", testCommitFails, 0},
		{"commit is not acknowledged", testAckLost, 0},
		{"too few disks", testTooFew, 0},
		{"disk full", testDiskFull, 0},
		{"stalled create", testCreateStalls, 0},
		{"stalled write", testWriteStalls, 0},
		{"hung write", testWriteHangs, 0},
		{"stalled commit", testCommitStalls, 0},
		{"late commit", testLateCommit, 0},
		{"all stall", testAllStall, 0},
		{"slow source", testSlowSource, 0},
		{"memory", testMemory, 0},
		{"pipelines", testPipelines, 0},
		{"ranges", testRanges, 0},
		{"bad ranges", testBadRanges, 0},
		{"bytes read", testBytesRead, 0},
		{"without waiting", testNow, 0},
		{"concurrent readers", testConcurrentReaders, 0},
		{"losses", testLosses, 0},
		{"too many losses", testTooManyLosses, 0},
		{"scattered damage", testScatteredDamage, 0},
		{"scattered damage within a chunk", testScatteredDamage, 16 * memstore.BlockSize},
		{"failure in mid-stream", testMidStream, 0},
		{"slow shard", testSlowShard, 0},
		{"hung shard", testHungShard, 0},
		{"slow open", testSlowOpen, 0},
		{"cancelled read", testReadCancelled, 0},
		{"wrong size", testWrongSize, 0},
		{"returning disk", testReturningDisk, 0},
		{"bad specs", testBadSpecs, 0},
		{"repair", testRepair, 0},
		{"repair of too many", testRepairTooMany, 0},
		{"repair fails", testRepairFails, 0},
		{"partial repair", testRepairPartial, 0},
		{"repair with faults", testRepairFaults, 0},
		{"move", testMove, 0},
	}
	for _, s := range schemes {
		t.Run(s.String(), func(t *testing.T) {
			for _, test := range tests {
				t.Run(test.name, func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						o := shardio.Options{Clock: Clock{}, StallAfter: StallAfter, Hedge: Hedge, ChunkSize: Chunk}
						if test.chunk != 0 {
							o.ChunkSize = test.chunk
						}
						c, err := create(s, o)
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
