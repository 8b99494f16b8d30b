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
