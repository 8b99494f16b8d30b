package devcluster

import (
	"slices"
	"testing"
)

// The nodes get the credentials of clouds, but not those that `shoal dev env`
// sets for clients.
func TestNodeEnv(t *testing.T) {
	own := []string{"PATH=/bin", "AWS_ACCESS_KEY_ID=AKCLOUD", "AWS_SECRET_ACCESS_KEY=s", "AWS_REGION=eu-west-1", "AWS_PROFILE=p", "SHOAL_BACKENDS_S3_ACCESS_KEY=k", "SHOAL_LOG_LEVEL=debug"}
	if got := nodeEnv(append(slices.Clone(own), "SHOAL_ENDPOINT=x", "NATS_URL=y", "SHOAL_NODE_NAME=z")); !slices.Equal(got, own) {
		t.Errorf("got %q, want %q", got, own)
	}
	dev := []string{"AWS_ACCESS_KEY_ID=shoaldev", "AWS_SECRET_ACCESS_KEY=s", "AWS_SESSION_TOKEN=t", "AWS_ENDPOINT_URL=http://127.0.0.1:7070", "AWS_REGION=us-east-1", "AWS_PROFILE=p"}
	if got := nodeEnv(dev); !slices.Equal(got, []string{"AWS_PROFILE=p"}) {
		t.Errorf("of the development environment the nodes get %q", got)
	}
}

// A node that is started from another shell has the settings of the clouds all the
// same.
func TestRemembered(t *testing.T) {
	up := []string{"PATH=/bin", "AWS_ACCESS_KEY_ID=AK", "AWS_SECRET_ACCESS_KEY=s", "AWS_SESSION_TOKEN=t", "AWS_REGION=eu-west-1", "GOOGLE_APPLICATION_CREDENTIALS=f", "SHOAL_LIMITS_X=1"}
	kept := remembered(nodeEnv(up))
	if !slices.Equal(kept, up[1:]) {
		t.Errorf("kept %q", kept)
	}
	later := nodeEnv([]string{"PATH=/sbin", "AWS_ACCESS_KEY_ID=shoaldev", "AWS_SECRET_ACCESS_KEY=shoaldev-secret", "AWS_REGION=us-east-1", "SHOAL_LIMITS_X=2"})
	if got, want := withRemembered(later, kept), append([]string{"PATH=/sbin", "SHOAL_LIMITS_X=2"}, up[1:6]...); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	// Another key does not get the old one's session.
	other := []string{"AWS_ACCESS_KEY_ID=OTHER", "AWS_SECRET_ACCESS_KEY=o"}
	if got, want := withRemembered(other, kept), append(slices.Clone(other), up[4:]...); !slices.Equal(got, want) {
		t.Errorf("with another key: got %q, want %q", got, want)
	}
}
