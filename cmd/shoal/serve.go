package main

import (
	"context"
	"log/slog"

	"github.com/shoalstore/shoal/config"
	"github.com/shoalstore/shoal/plugins/api"
)

// runServer runs a node until ctx ends.
func runServer(context.Context, config.Config, *slog.Logger) error {
	return api.NotBuilt("shoal server")
}

// runInit makes a cluster of the nodes and returns its id.
func runInit(context.Context, []config.Config, initOptions, *slog.Logger) (string, error) {
	return "", api.NotBuilt("shoal init")
}

// runJoin adds the node to the cluster of its seeds.
func runJoin(context.Context, config.Config, *slog.Logger) error {
	return api.NotBuilt("shoal cluster join")
}

// runRecover makes a new map from the node's state.
func runRecover(context.Context, config.Config, *slog.Logger) error {
	return api.NotBuilt("shoal recover")
}
