package slot

import "github.com/shoalstore/shoal/core"

// Kind says what a message is.
type Kind uint8

// The messages. Their numbers are part of the wire format.
const (
	// MsgReport tells a voter which map the node obeys and asks for a grant.
	MsgReport Kind = 1
	// MsgGrant answers a report.
	MsgGrant Kind = 2
	// MsgConfirmed tells that a voter confirmed a map.
	MsgConfirmed Kind = 3
	// MsgMapWant asks for maps above an epoch; MsgMap carries one.
	MsgMapWant Kind = 4
	MsgMap     Kind = 5

	// MsgSeal asks a member to adopt a ballot; MsgSealed says how far it got.
	MsgSeal   Kind = 10
	MsgSealed Kind = 11
	// MsgSync makes a member's tail that of the owner; answered by MsgAck.
	MsgSync Kind = 12
	// MsgAppend adds entries; MsgAck acknowledges, MsgNack refuses.
	MsgAppend Kind = 13
	MsgAck    Kind = 14
	MsgNack   Kind = 15
	// MsgMark spreads the commit mark of an idle slot.
	MsgMark Kind = 16
	// MsgCatchup brings a stretch of history to a joiner; MsgCaughtUp
	// acknowledges.
	MsgCatchup  Kind = 17
	MsgCaughtUp Kind = 18
)

// Message is what nodes say to each other. Which fields matter depends on Kind.
type Message struct {
	Kind Kind

	// For slots: Disk is the member's disk, in both directions.
	Slot    core.SlotID
	Disk    core.DiskID
	Ballot  core.Ballot
	Joining bool
	// Prev is the version before the first of Entries.
	Prev    core.Version
	Entries []core.Entry
	// Commit is the sender's commit mark, Last its last version.
	Commit, Last core.Version
	// After, UpTo and Floor belong to catching up, Attempt to all messages
	// about it: it tells one attempt to bring a joiner level from another.
	After   uint64
	UpTo    core.Version
	Floor   uint64
	Attempt uint64

	// For maps and leases. Key is that of the answering voter.
	Key     string
	Epoch   core.Epoch
	Sum     string
	Boot    uint64
	Nonce   core.Instant
	Granted bool
	Silent  []core.NodeID
	Map     *core.Map
}
