package nodeserver

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/shoalstore/shoal/core"
	"github.com/shoalstore/shoal/plugins/api"
)

// TestRefusedDisk wants an answer at once where a repetition is of no use: of a node
// that is down, but not of one that may only be slow.
func TestRefusedDisk(t *testing.T) {
	for name, c := range map[string]struct {
		state core.NodeState
		err   error
		want  api.Code
		hint  string
	}{
		"well":          {core.NodeActive, nil, "", ""},
		"down":          {core.NodeDown, core.ErrUnavailable, api.CodeRefused, "start it"},
		"slow":          {core.NodeActive, core.ErrUnavailable, api.CodeUnavailable, ""},
		"back":          {core.NodeDown, nil, "", ""},
		"in use":        {core.NodeActive, core.ErrConflict, api.CodeRefused, "disk detach n1/d1"},
		"a file":        {core.NodeActive, core.ErrNotEmpty, api.CodeRefused, "disk format n1/d1 --force"},
		"not mounted":   {core.NodeActive, core.ErrUnformatted, api.CodeRefused, "mount the disk"},
		"without index": {core.NodeActive, core.ErrCorrupt, api.CodeRefused, "disk rebuild n1/d1"},
	} {
		err := c.err
		if err != nil {
			err = fmt.Errorf("n1: %w", err)
		}
		got := refusedDisk(&core.Node{ID: "n1", State: c.state}, "d1", err)
		if c.want == "" {
			if got != nil {
				t.Errorf("%s: got %v", name, got)
			}
			continue
		}
		hint := ""
		if e, ok := errors.AsType[*api.Error](got); ok {
			hint = e.Hint
		}
		if code := api.FromError(got).Code; code != c.want || !strings.Contains(hint, c.hint) {
			t.Errorf("%s: got %s, hint %q, want %s, %q", name, code, hint, c.want, c.hint)
		}
	}
}
