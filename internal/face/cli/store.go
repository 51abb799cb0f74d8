package cli

import (
	"cmp"

	"github.com/spf13/cobra"

	"fettle/internal/fleet/store"
)

// storeFlags name an existing etcd cluster as the fleet's store.
type storeFlags struct {
	endpoints string
	w         store.Where
}

func (f *storeFlags) flags(c *cobra.Command) {
	c.Flags().StringVar(&f.endpoints, "store", "", "an existing etcd cluster for the store: https://HOST:2379, several with commas (default: one of the servers' own)")
	c.Flags().StringVar(&f.w.Prefix, "store-prefix", "", "where in it the fleet's keys are (default "+store.DefaultPrefix+")")
	c.Flags().StringVar(&f.w.CAFile, "store-ca", "", "file with the authority of its certificates (default: the machine's authorities)")
	c.Flags().StringVar(&f.w.CertFile, "store-cert", "", "file with the certificate to show it")
	c.Flags().StringVar(&f.w.KeyFile, "store-key", "", "file with that certificate's key, mode 0600")
	c.Flags().StringVar(&f.w.User, "store-user", "", "user of it")
	c.Flags().StringVar(&f.w.PasswordFile, "store-password-file", "", "file with the user's password, mode 0600")
}

// where is what the flags say; nil where they name no store.
func (f *storeFlags) where() (*store.Where, error) {
	w := f.w
	if f.endpoints == "" {
		if other := cmp.Or(w.Prefix, w.CAFile, w.CertFile, w.KeyFile, w.User, w.PasswordFile); other != "" {
			return nil, exit(ExitUsage, "%q says something of an existing store, and --store names none", other)
		}
		return nil, nil
	}
	w.Prefix = cmp.Or(w.Prefix, store.DefaultPrefix)
	var err error
	if w.Endpoints, err = store.ParseEndpoints(f.endpoints); err == nil {
		err = w.Check()
	}
	if err != nil {
		return nil, &Exit{Code: ExitUsage, Err: err}
	}
	return &w, nil
}
