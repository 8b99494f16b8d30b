package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/shoalstore/shoal/config"
)

func newConfigCommand(o *options) *cobra.Command {
	example := &cobra.Command{
		Use: "example", Short: "Print an annotated configuration with every key", Args: exactly(0),
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprint(o.out, config.Example())
			return err
		},
	}
	check := &cobra.Command{
		Use: "check FILE", Short: "Check a configuration, with the environment, as a node would read it", Args: exactly(1),
		RunE: func(_ *cobra.Command, args []string) error {
			c, err := config.Load(args[0], o.environ)
			if err != nil {
				return err
			}
			if o.json {
				return o.printJSON(map[string]any{"file": args[0], "node": c.Node.Name, "ok": true})
			}
			fmt.Fprintf(o.out, "%s: ok: node %s, %d disks, clients at %s, nodes at %s\n",
				args[0], c.Node.Name, len(c.Disks), c.AdvertisedClient(), c.AdvertisedPeer())
			return nil
		},
	}
	return group("config", "Print an example of the configuration, or check a file", example, check)
}
