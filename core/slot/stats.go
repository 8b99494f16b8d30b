package slot

// Stats counts what a node has been through, for tests and metrics.
type Stats struct {
	TakeOvers         int // begun
	TakeOversInFlight int // begun with writes of unknown fate in the slot
	Undone            int // members that were told to undo writes
	Joins             int // joiners that went live
	JoinsFromFloor    int // of these, those that needed all records
	JoinsAgain        int // joiners that lost track and were begun with anew
	Drops             int // proposed
	Confirmed         int // maps, by this voter
	Resent            int // messages sent again
	Reclaimed         int // histories forgotten on disks that are no members
	JoinsReclaimed    int // joiners that had forgotten the slot's history
}

// Add returns the sum.
func (s Stats) Add(t Stats) Stats {
	return Stats{
		s.TakeOvers + t.TakeOvers, s.TakeOversInFlight + t.TakeOversInFlight, s.Undone + t.Undone, s.Joins + t.Joins,
		s.JoinsFromFloor + t.JoinsFromFloor, s.JoinsAgain + t.JoinsAgain, s.Drops + t.Drops, s.Confirmed + t.Confirmed, s.Resent + t.Resent,
		s.Reclaimed + t.Reclaimed, s.JoinsReclaimed + t.JoinsReclaimed,
	}
}

// Stats returns the counts since the node's start.
func (n *Node) Stats() Stats { return n.stats }
