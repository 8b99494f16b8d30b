package engine

import (
	"errors"
	"testing"

	"github.com/shoalstore/shoal/core"
)

// Whoever appends to the errors of his changes leaves those of others alone that went
// into the same map.
func TestAnswersApart(t *testing.T) {
	proposals := []*proposal{
		{changes: make([]core.Change, 1), done: make(chan struct{})},
		{changes: make([]core.Change, 2), done: make(chan struct{})},
	}
	void := errors.New("void")
	answer(proposals, 7, []error{nil, void, nil}, nil)
	_ = append(proposals[0].errs, errors.New("another"))
	if p := proposals[1]; p.epoch != 7 || len(p.errs) != 2 || !errors.Is(p.errs[0], void) || p.errs[1] != nil {
		t.Errorf("got %v in epoch %d", p.errs, p.epoch)
	}
}
